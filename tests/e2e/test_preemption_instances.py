"""Programs in sandboxes, containers and virtual machines that give way on a real grid, and for
which others do: they stand still meanwhile, go on where they were, and nothing of them is lost."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import guactors as gu
from guactors.errors import Preempted, RuntimeMissing
from guactors.refs import ObjectRefGenerator
from guactors.remote_function import image_program
from tests import leaks
from tests.contract import docker_daemon, guests
from tests.e2e.deployed import UPLOADS, new_store, shell_image, upload
from tests.e2e.keyed_grid import KeyedGrid, until

pytestmark = [
    pytest.mark.may_keep(*leaks.KINDS),
    pytest.mark.needs(
        "posix", "linux", "root", "busybox", "bwrap", "dockerd", "qemu-system-x86_64", "mksquashfs"
    ),
    pytest.mark.timeout(300),
]
RUNTIMES = ("native", "docker", "qemu")
WITHIN = 60.0
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"


class Box:
    """A grid whose one provider has two processors and all runtimes, and an image in it."""

    def __init__(self, grid: KeyedGrid, app: Path, image: str, daemon: docker_daemon.Daemon):
        self.grid, self.app, self.image, self.daemon = grid, app, image, daemon

    def provider(self) -> psutil.Process:
        """Its process; those that it forked have its command line too."""
        hub = self.grid.address.split("?")[0]
        found = {}
        for process in psutil.process_iter(["cmdline", "ppid"]):
            words: list[str] = process.info["cmdline"] or []
            if "provider" in words and hub in " ".join(words):
                found[process.pid] = process
        (first,) = (x for x in found.values() if x.info["ppid"] not in found)
        return first


@contextmanager
def _docker_host(socket: str) -> Iterator[None]:
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = f"unix://{socket}"
    try:
        yield
    finally:
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before


@pytest.fixture(scope="module")
def box(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Box]:
    root, place = run_root / "giving-way", tmp_path_factory.mktemp("giving-way")
    (root / "box").mkdir(parents=True, mode=0o700)
    try:
        guests.furnish(root / "box")
    except RuntimeMissing as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    store = new_store(place)
    image = shell_image(store, place, media="squashfs")
    with ExitStack() as stack:
        daemon = stack.enter_context(docker_daemon.own_daemon(run_root))
        stack.enter_context(_docker_host(daemon.socket))
        grid = stack.enter_context(KeyedGrid(root))
        words = [word for runtime in RUNTIMES for word in ("--runtime", runtime)]
        grid.add_provider("box", *words)
        app = grid.add_app(
            runtimes=["python", *RUNTIMES], image_hashes=[image], actions=UPLOADS,
            max_priority=10, preemption=["*"],
        )  # fmt: skip
        upload(grid, app, store, image)
        yield Box(grid, app, image, daemon)
    shutil.rmtree(root)


@pytest.fixture
def session(box: Box) -> Iterator[None]:
    with box.grid.session(box.app):
        yield


@gu.remote(priority=10, num_cpus=2)
def urgent(seconds: float) -> None:
    time.sleep(seconds)


@gu.remote(num_cpus=1, max_retries=0)
def busy(path: str) -> None:
    """Until the neighbour of ``path`` is there; notes that it runs."""
    while not Path(f"{path}.end").exists():
        Path(path).write_text(str(time.monotonic()), encoding="utf-8")
        time.sleep(0.005)


class Counter:
    """A program that counts in a deployment."""

    def __init__(self, box: Box, runtime: str, **options: Any) -> None:
        self.it = gu.deploy(runtime, box.image, timeout=200, **options)
        self.number = self.it.start(["/bin/sh", "-c", COUNT])
        until(self.count, "it counts", WITHIN)

    def count(self) -> int:
        """What it has counted to; without a gap, and nothing twice."""
        said = self.it.output(self.number)[0].split(b"\n")[:-1]
        assert said == [b"%d" % (n + 1) for n in range(len(said))]
        return len(said)

    def rests(self) -> bool:
        before = self.count()
        threading.Event().wait(0.1)
        return self.count() == before


def _rests(path: Path) -> bool:
    before = path.read_text()
    threading.Event().wait(0.05)
    return path.read_text() == before


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_stands_still_and_goes_on(box: Box, session: None, runtime: str) -> None:
    counter = Counter(box, runtime, num_cpus=2)
    with counter.it as it:
        held = urgent.remote(1.0)
        until(lambda: it.facts().state == "paused", "it stands still")
        assert counter.rests() and gu.wait([held], timeout=0)[0] == []
        before = counter.count()
        asked = Asker(it)  # meanwhile somebody wants something of it, and waits
        gu.get(held, timeout=WITHIN)
        until(lambda: counter.count() > before, "it goes on")
        assert asked.answer() == b"here\n"
        assert it.facts().state == "running"


class Asker:
    """Runs a program in a deployment, from a thread of its own."""

    def __init__(self, it: gu.Deployment) -> None:
        self._said = b""
        self._thread = threading.Thread(target=self._ask, args=(it,))
        self._thread.start()

    def _ask(self, it: gu.Deployment) -> None:
        self._said = it.run(["/bin/echo", "here"]).out

    def answer(self) -> bytes:
        self._thread.join(WITHIN)
        return self._said


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_others_stand_still_for_it(box: Box, session: None, tmp_path: Path, runtime: str) -> None:
    paths = [tmp_path / str(number) for number in range(2)]
    running = [busy.remote(str(path)) for path in paths]
    until(lambda: all(path.exists() and path.read_text() for path in paths), "they run")
    program = image_program({"runtime": runtime, "image": box.image, "priority": 10, "num_cpus": 2})
    stream = program.remote(["/bin/busybox", "sh", "-c", "echo on; sleep 0.5"], {}, "", None)
    assert _chunk(stream) == ("out", b"on\n")
    assert all(_rests(path) for path in paths)
    assert _chunk(stream) == ("exit", 0)
    until(lambda: not any(_rests(path) for path in paths), "they go on")
    for path in paths:
        Path(f"{path}.end").touch()
    gu.get(running, timeout=WITHIN)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_it_is_asked_to_end_before_it_is_ended(box: Box, session: None, runtime: str) -> None:
    program = image_program(
        {"runtime": runtime, "image": box.image, "num_cpus": 2, "preemption": ["stop"], "grace": 30}
    )
    script = "trap 'echo saved; exit 0' TERM; echo on; while :; do sleep 0.05; done"
    stream = program.remote(["/bin/busybox", "sh", "-c", script], {}, "", None)
    assert _chunk(stream) == ("out", b"on\n")
    held = urgent.remote(0.0)
    # A shell may say more than that of a signal.
    until(lambda: _chunk(stream) == ("out", b"saved\n"), "it is asked")
    with pytest.raises(Preempted):
        gu.get(list(stream), timeout=WITHIN)
    gu.get(held, timeout=15.0)


def _chunk(stream: ObjectRefGenerator) -> Any:
    return gu.get(next(stream), timeout=WITHIN)


def test_where_one_does_not_stand_still_another_does(
    box: Box, session: None, tmp_path: Path
) -> None:
    """The youngest is tried first, and the daemon of its container is dead."""
    path = tmp_path / "tick"
    running = busy.remote(str(path))
    until(lambda: path.exists() and path.read_text(), "it runs")
    it = gu.deploy("docker", box.image)
    box.daemon.kill()
    try:
        held = urgent.options(num_cpus=1).remote(0.5)
        until(lambda: _rests(path), "the other one stands still")
        gu.get(held, timeout=WITHIN)
        until(lambda: not _rests(path), "and goes on")
        assert it.facts().state == "running"
    finally:
        box.daemon.start()
    path.with_suffix(".end").touch()
    gu.get(running, timeout=WITHIN)
    it.close()


def test_a_provider_that_is_killed_leaves_nothing_that_stands_still(
    box: Box, session: None
) -> None:
    """The last of these tests."""
    assert docker_daemon.containers(box.daemon.socket) == []
    counters = [Counter(box, runtime, num_cpus=1) for runtime in ("docker", "qemu")]
    held = urgent.remote(60.0)
    for counter in counters:
        until(lambda at=counter: at.it.facts().state == "paused", "it stands still")
    provider = box.provider()
    started = provider.children(recursive=True)
    assert any("qemu-system" in process.name() for process in started)
    provider.kill()
    until(lambda: not psutil.wait_procs(started, timeout=0)[1], "its processes end", WITHIN)
    until(lambda: docker_daemon.containers(box.daemon.socket) == [], "its container ends", WITHIN)
    del held
