"""The other side of the launcher: what ``gu.init()`` and ``gu up`` call to have a grid here.

Owns: the launcher's process as seen by who started it. Must never: import what only the launcher
needs (start-up time is counted here), or put a configuration where ``ps`` shows it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from guactors.config import NodeConfig
from guactors.errors import HubUnreachable, UsageError
from guactors.messages import Endpoint
from guactors.runtimes.command import environment, python_module

_LENGTH_BYTES = 4
_CLOSE_WITHIN = 2.0
_LOG_TAIL = 2000


class NodeProcess:
    """A running launcher, ready: its hub and HTTP server (if it has them) and every provider
    serve.

    ``hub_endpoints``: where its hub listens; ``url``: of its HTTP server, empty without one.
    ``pid``: of the launcher. ``pids``: of its members by id, as of the start (it restarts those
    that die)."""

    def __init__(self, popen: subprocess.Popen[bytes], config: NodeConfig) -> None:
        self._popen = popen
        self._config = config
        self.pid = popen.pid
        self.pids: dict[str, int] = {}
        self.hub_endpoints: list[Endpoint] = []
        self.url = ""
        self._lines: list[bytes] = []
        self._rest = b""

    def alive(self) -> bool:
        """Whether the launcher still runs."""
        return self._popen.poll() is None

    def next_report(self, seconds: float) -> dict[str, Any] | None:
        """The next thing it says (``role``, ``name``, ``pid``, ``event``, ``text``); None when
        there is none within so many seconds. Raises HubUnreachable when it has ended."""
        assert self._popen.stdout is not None
        deadline = time.monotonic() + seconds
        while not self._lines:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._popen.stdout], [], [], left)[0]:
                return None
            data = os.read(self._popen.stdout.fileno(), 65536)
            if not data:
                raise HubUnreachable("the launcher of the grid on this machine has ended")
            *self._lines, self._rest = (self._rest + data).split(b"\n")
        report: dict[str, Any] = json.loads(self._lines.pop(0))
        return report

    def close(self) -> None:
        """End it and everything under it, within two seconds; idempotent."""
        if self._popen.stdin is not None:
            self._popen.stdin.close()
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        if not self._config.embedded and self.alive():
            self._popen.terminate()
        try:
            self._popen.wait(_CLOSE_WITHIN)
        except subprocess.TimeoutExpired:
            # Its members end with it (PDEATHSIG, lifelines).
            self._popen.kill()
            self._popen.wait()
        from guactors.objects import place, sweeping

        sweeping.sweep(place.own_place(), at_once=True)
        for directory in self._config.scratch:
            # It does that itself, unless it was killed.
            if os.path.exists(directory):
                _remove(directory)

    def detach(self) -> None:
        """Leave a launcher that is not embedded to itself: it runs on after this process."""
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        # Nobody waits for it any more; unset, Popen would complain that it still runs.
        self._popen.returncode = 0


def launch_node(
    config: NodeConfig,
    *,
    timeout: float = 30.0,
    log: Path | None = None,
    module: str = "guactors.node",
    meanwhile: Callable[[], object] = lambda: None,
) -> NodeProcess:
    """Start a launcher (``module``) and wait until all it runs is ready; ``timeout`` in seconds.
    ``meanwhile`` is called once it is on its way: importing is better done now than before.

    ``log``: where its processes write their standard error, default ``node.log`` in the run
    directory. An embedded one gets this process's import path for its workers. Raises
    HubUnreachable with the reported reason and the end of the log when it does not come up,
    UsageError on a platform without fork."""
    if not hasattr(os, "fork"):
        raise UsageError(
            "a grid of several processes cannot be launched where there is no fork: "
            "run 'gu hub' and 'gu provider' and join them with init(address)"
        )
    log = log or _default_log(config)
    if config.embedded and not config.path:
        config = msgspec.structs.replace(config, path=list(sys.path))
    with _open_log(log) as errors:
        popen = subprocess.Popen(
            python_module(module),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(),
            start_new_session=True,
        )
    node = NodeProcess(popen, config)
    try:
        _send(popen, config)
        meanwhile()
        _await_ready(node, config, time.monotonic() + timeout)
    except BaseException as error:
        node.close()
        if isinstance(error, HubUnreachable):
            error.message += _tail(log)
        raise
    return node


def _send(popen: subprocess.Popen[bytes], config: NodeConfig) -> None:
    assert popen.stdin is not None
    data = msgspec.msgpack.encode(config)
    try:
        popen.stdin.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
        popen.stdin.flush()
    except BrokenPipeError:
        # It is gone already; what it reported before, or its log, says why.
        return
    if not config.embedded:
        popen.stdin.close()


def _await_ready(node: NodeProcess, config: NodeConfig, deadline: float) -> None:
    missing = (config.hub is not None) + bool(config.web) + len(config.providers)
    while missing:
        report = node.next_report(deadline - time.monotonic())
        if report is None:
            raise HubUnreachable(
                f"the grid on this machine was not ready in time: {missing} processes are missing"
            )
        if report["event"] == "error":
            raise HubUnreachable(f"the grid on this machine did not start: {report['text']}")
        if report["event"] == "ready":
            missing -= 1
            node.pids[report["name"]] = report["pid"]
            if report["role"] == "hub":
                node.hub_endpoints = [Endpoint(**one) for one in report["endpoints"]]
            node.url = report.get("url", node.url)


def _remove(directory: str) -> None:
    import shutil  # here, for its many imports would cost the start

    shutil.rmtree(directory, ignore_errors=True)


def _default_log(config: NodeConfig) -> Path:
    rooms = ([config.hub] if config.hub else []) + list(config.providers)
    return Path(rooms[0].run_dir) / "node.log"


def _open_log(path: Path) -> IO[bytes]:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return os.fdopen(fd, "ab")


def _tail(log: Path) -> str:
    try:
        text = log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip()
    except OSError:
        return ""
    return f"\nthe end of its log {log}:\n{text}" if text else ""
