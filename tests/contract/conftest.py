"""Fixtures of the contract suites that live for a whole session: daemons and images; and the table
of what the runtimes do (``conformance.py``).

Owns: when they are started. Must never: start one that no test of the session asks for.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from guactors.images.store import ImageStore
from tests.contract import conformance
from tests.contract.runtime_bench import BENCHES


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the table says is what the tests report."""
    report = yield
    conformance.note(item, report)
    return report


def pytest_sessionfinish() -> None:
    """Once all have reported."""
    conformance.write(BENCHES)


@pytest.fixture(scope="session")
def docker_socket(run_root: Path) -> Iterator[str]:
    """Of a daemon: one that is there, else one of our own."""
    from tests.contract import docker_daemon

    socket = docker_daemon.standing_socket()
    if socket:
        yield socket
        return
    with docker_daemon.own_daemon(run_root) as daemon:
        yield daemon.socket


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageStore, str]:
    """A store, and the id of an image with a shell and small programs."""
    from tests.contract import docker_daemon

    return docker_daemon.busybox_image(tmp_path_factory.mktemp("busybox"))
