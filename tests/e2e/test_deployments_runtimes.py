"""The same deployment in containers and in virtual machines."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import guactors as gu
from guactors import errors
from guactors.errors import RuntimeMissing
from tests import leaks
from tests.contract import docker_daemon, guests
from tests.e2e.deployed import UPLOADS, new_store, shell_image, upload
from tests.e2e.keyed_grid import KeyedGrid, until

pytestmark = [
    pytest.mark.may_keep(*leaks.KINDS),
    pytest.mark.needs("posix", "linux", "busybox"),
    pytest.mark.timeout(300),
]
Left = Callable[[], list[str]]
"""What a runtime has that could be left over."""


@contextmanager
def docker(run_root: Path, home: Path) -> Iterator[Left]:
    """A daemon for the providers that are started within."""
    del home
    with docker_daemon.own_daemon(run_root) as daemon:
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = f"unix://{daemon.socket}"
        try:
            yield lambda: containers(daemon.socket)
        finally:
            if before is None:
                del os.environ["DOCKER_HOST"]
            else:
                os.environ["DOCKER_HOST"] = before


def containers(socket: str) -> list[str]:
    client = docker_daemon.Client(socket)
    try:
        found = client.call("GET", "/containers/json", query={"all": "1"}).data
        return sorted(one["Id"] for one in found)
    finally:
        client.close()


@contextmanager
def qemu(run_root: Path, home: Path) -> Iterator[Left]:
    """A home with packages for guests."""
    try:
        packages = guests.packages()
    except RuntimeMissing as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    home.mkdir(mode=0o700)
    (home / "guest-packages").symlink_to(packages)
    yield lambda: [one.name() for one in psutil.process_iter() if _is_guest_of(one, str(run_root))]


def _is_guest_of(process: psutil.Process, place: str) -> bool:
    try:
        return "qemu-system" in process.name() and place in " ".join(process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.parametrize(
    ("runtime", "ground"),
    [
        pytest.param("docker", docker, marks=pytest.mark.needs("dockerd", "root")),
        pytest.param("qemu", qemu, marks=pytest.mark.needs("qemu-system-x86_64", "mksquashfs")),
    ],
)
def test_a_deployment(
    permanent_threads: None,
    run_root: Path,
    tmp_path: Path,
    runtime: str,
    ground: Callable[..., Iterator[Left]],
) -> None:
    root = run_root / f"dep-{runtime}"
    root.mkdir(mode=0o700)
    store = new_store(tmp_path)
    image = shell_image(store, tmp_path, media="squashfs" if runtime == "qemu" else "tar")
    with ground(run_root, root / "box") as left, KeyedGrid(root) as grid:
        grid.add_provider("box", "--runtime", runtime)
        app = grid.add_app(runtimes=[runtime], image_hashes=[image], actions=UPLOADS)
        upload(grid, app, store, image)
        before = left()
        with grid.session(app):
            with gu.deploy(runtime, image, limits={"memory": 256 << 20}, timeout=200) as it:
                assert_works(it, runtime, image)
            until(lambda: left() == before, "nothing is left of it", 30)
            kept = gu.deploy(runtime, image, timeout=200)
            kept.start(["/bin/sleep", "600"])
            assert left() != before or runtime == "qemu"
        until(lambda: left() == before, "nothing is left of its session", 30)


def assert_works(it: gu.Deployment, runtime: str, image: str) -> None:
    facts = it.facts()
    assert (facts.state, facts.runtime, facts.image) == ("running", runtime, image)
    done = it.run(["/bin/sh", "-c", "cat; echo no >&2; exit 3"], stdin=b"in")
    assert (done.code, done.out, done.err) == (3, b"in", b"no\n")
    large = os.urandom(3 << 20)
    it.put("/data/large", large)
    assert it.read("/data/large") == large
    assert it.run(["/bin/wc", "-c", "/data/large"]).out.split()[0] == str(len(large)).encode()
    number = it.start(["/bin/sh", "-c", "echo on; exec sleep 600"])
    until(lambda: it.output(number)[0] == b"on\n", "its output")
    it.pause()
    assert it.facts().state == "paused"
    it.resume()
    it.signal(number, signal.SIGKILL)
    ended = it.wait(number, 20)
    assert ended is not None
    assert ended.code == -signal.SIGKILL
    with pytest.raises(errors.ProgramNotStarted):
        it.run(["/bin/missing"])
    assert it.stats().memory is not None
