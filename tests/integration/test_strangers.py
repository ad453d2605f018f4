"""Holes that a review found: what somebody without any approved key can do to a hub on a real
socket, and what a provider makes of the revocations of a hub restored from a backup. Each test
fails as long as its hole is open."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from guactors import messages as m
from guactors.config import ProviderConfig, Seal
from guactors.hub_wire import MOST_STRANGERS, Wire
from guactors.join import endpoint_of
from guactors.provider_state.permits import Permits
from guactors.security.keys import Kind
from guactors.security.policy import default_policy, policy_text
from guactors.transport.base import Lane
from guactors.transport.frames import encode
from tests.e2e.keyed_grid import KeyedGrid
from tests.unit.security.samples import secret

USUAL = 1024
"""The soft limit of open files that most systems give a process."""


@pytest.fixture
def usual_limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (USUAL, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_connections_of_strangers_do_not_end_the_hub(tmp_path: Path, usual_limit: None) -> None:
    """libzmq ends a process that finds no descriptor for a connection of a socket file."""
    with KeyedGrid(tmp_path) as grid:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 8192), most))
        place = endpoint_of(grid.join).data.removeprefix("tcp://")
        host, port = place.rsplit(":", 1)
        hub = psutil.Process(grid.hub_pid)
        made: list[socket.socket] = []
        end = time.monotonic() + 8.0
        while time.monotonic() < end and len(made) < 3000:
            if hub.status() == psutil.STATUS_ZOMBIE:
                break
            try:
                made.append(socket.create_connection((host, int(port)), 0.5))
            except OSError:
                time.sleep(0.01)
        time.sleep(0.5)
        for one in made:
            one.close()
        assert hub.status() != psutil.STATUS_ZOMBIE, "the hub is dead"


@pytest.mark.may_keep("fds", "threads")  # of a socket whose message nobody takes
def test_a_message_of_a_stranger_costs_little(tmp_path: Path) -> None:
    """60 MB of two-letter lines, of which decoding would make 1.5 GB and take 5 s."""
    with KeyedGrid(tmp_path) as grid, grid.stranger() as stranger:
        head = encode(m.Output("s", "w", 1, "p", 1, "n", []))
        at = bytes(head).rindex(b"\x90")
        count = (60 << 20) // 3
        lines = b"\xdd" + count.to_bytes(4, "big") + b"\xa2ab" * count
        hub, peak = psutil.Process(grid.hub_pid), [0]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.02):
                peak[0] = max(peak[0], hub.memory_info().rss >> 20)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            stranger.raw(Lane.DATA, bytes(head)[:at] + lines + bytes(head)[at + 1 :])
            slowest, end = 0.0, time.monotonic() + 4.0
            while time.monotonic() < end:
                began = time.monotonic()
                grid.owner.ask(m.AskKeys(0))
                slowest = max(slowest, time.monotonic() - began)
                time.sleep(0.05)
        finally:
            over.set()
            watcher.join()
        assert peak[0] < 500, f"{peak[0]} MB"
        assert slowest < 1.0, f"{slowest:.1f} s"


class _Deaf:
    """A transport and its listener: whatever is sent is taken."""

    def user_of(self, _peer: str) -> str:
        return ""

    def send(self, *_message: Any) -> None:
        return


def test_strangers_do_not_push_members_off_the_wire() -> None:
    """10,000 links with one message each, some 20 s of one machine: all providers are lost then."""

    async def run() -> None:
        deaf: Any = _Deaf()
        wire = Wire(deaf)
        heard = [encode(m.Goodbye())]
        wire._arrived(deaf, "k-member", Lane.CONTROL, heard)  # type: ignore[arg-type]
        welcome = m.Welcome("h-1", m.Versions("0", "3.11.7"))
        assert wire.send("k-member", welcome) is None  # type: ignore[arg-type]
        for number in range(MOST_STRANGERS):
            wire._arrived(deaf, f"k-{number}", Lane.CONTROL, heard)  # type: ignore[arg-type]
        assert wire.send("k-member", m.Ping(1)) is None  # type: ignore[arg-type]

    asyncio.run(run())


def test_revocations_of_a_hub_restored_from_a_backup_count() -> None:
    """Its epoch is behind."""
    hub, owner, app = secret(Kind.HUB), secret(Kind.OWNER), secret(Kind.APP)
    policy = policy_text(default_policy([owner.public.text]))
    config = ProviderConfig(
        "p-1", "box", [], {"CPU": 1.0}, "/run", hub_key=hub.public.text, policy=policy,
        seal=Seal(secret(Kind.PROVIDER).public.text),
    )  # fmt: skip
    permits = Permits(config)
    permits.revoke(m.Revoked(5, [], [], []))
    permits.revoke(m.Revoked(5, [app.public.text], [], []))  # the backup had epoch 4
    assert permits.revoked(app.public.text)
