"""``--http`` of ``gu hub`` and ``gu up``, as a user runs them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
from typing import Any

import psutil
import pytest

from tests.command import ended, eventually, first_line, gu, refused, running


def get(url: str, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    try:
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())
    except OSError:
        return 0, None
    finally:
        connection.close()


def test_gu_hub_serves_http_beside_it() -> None:
    with running("hub", "--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0") as process:
        assert first_line(process).startswith("gu://")
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith("HTTP at "):
            assert line, "it never said where"
        url = line.split()[-1]
        assert get(url, "/health") == (200, {"status": "ok"})
        assert get(url, "/sessions")[0] == 401
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 1
    eventually(lambda: ended(family[0].pid), "its HTTP server ends with the hub")


@pytest.mark.may_keep("dirs")
def test_a_killed_hub_takes_its_http_server_with_it() -> None:
    with running("hub", "--listen", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0") as process:
        first_line(process)
        hub = psutil.Process(process.pid)
        eventually(lambda: bool(hub.children()), "the HTTP server is started")
        server = hub.children()[0].pid
        process.kill()
        process.wait()
    eventually(lambda: ended(server), "its HTTP server ends with the hub")


def test_gu_up_serves_http_and_keeps_it_up() -> None:
    up = json.loads(gu("up", "--cpus", "1", "--http", "127.0.0.1:0", "--json").stdout)
    try:
        assert get(up["http"], "/health") == (200, {"status": "ok"})
        os.kill(up["pids"]["http"], signal.SIGKILL)
        # The port was any free one; the new server may have another.
        node = psutil.Process(up["pid"])
        eventually(lambda: len(node.children()) == 3, "the HTTP server is started again")
    finally:
        gu("down")
    eventually(lambda: ended(up["pid"]), "the grid is down")
    assert get(up["http"], "/health")[0] == 0


@pytest.mark.parametrize("command", ["hub", "up"])
def test_what_will_not_do_is_said_in_one_line(command: str) -> None:
    assert "plain HTTP only on this machine" in refused(command, "--http", "0.0.0.0:0")
    assert "need --http" in refused(command, "--http-name", "grid")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in refused(command, "--http", address)
