"""A grid shared by the tests of one module, checked for leaks when the module is done."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import guactors as gu
from guactors.config import Identity
from guactors.transport import open_transport
from guactors.transport.base import Lane
from tests import leaks


@pytest.fixture(scope="session")
def permanent_threads(run_root: Path) -> None:
    """The first large message starts threads that the socket library keeps for the process's life;
    start them before anybody counts."""
    transport = open_transport(Identity())
    listener = transport.listen(f"ipc://{run_root}/first/s")
    link = transport.dial(listener.endpoint)
    link.send(Lane.DATA, [b"h", memoryview(bytes(1 << 20))])
    deadline = time.monotonic() + 10
    while listener.receive() is None:
        assert time.monotonic() < deadline
        select.select(listener.filenos(), [], [], 0.1)
    transport.close()


@pytest.fixture(scope="module")
def grid(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """An embedded grid of two CPUs. Its workers come and go, so tests on it are marked
    ``may_keep(*leaks.KINDS)``; the whole of it must be gone at the end."""
    home = tmp_path_factory.mktemp("grid-home")
    before = leaks.take(home, run_root)
    gu.init(num_cpus=2)
    yield
    gu.shutdown()
    found = leaks.settle(before, home, run_root, leaks.KINDS)
    if found:
        pytest.fail("the grid left behind:\n  " + "\n  ".join(found), pytrace=False)
