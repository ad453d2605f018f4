"""Fixtures of the contract suites that live for a whole session: daemons and images.

Owns: when they are started. Must never: start one that no test of the session asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from guactors.images.store import ImageStore


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
