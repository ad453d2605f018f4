"""Containers and virtual machines on a full grid: how soon an urgent one begins, and how soon one
that gave way runs again. ``benchmarks.preemption`` makes rows of it.

Owns: a Docker daemon, a hub and one provider of two processors that has the image and a warm guest,
and what was measured there. Must never: use a daemon or guests of the user's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import guactors as gu
from guactors.ids import fresh
from guactors.images.store import ImageStore
from guactors.remote_function import RemoteFunction, image_program
from guactors.runtimes.base import Command, Spec
from guactors.runtimes.docker.driver import DockerRuntime
from guactors.runtimes.docker.images import Images
from guactors.runtimes.instance import Instance
from tests.contract import docker_daemon, guests
from tests.e2e.deployed import UPLOADS, upload
from tests.e2e.keyed_grid import KeyedGrid

NEEDS = ("dockerd", "docker", "qemu-system-x86_64", "mksquashfs", "busybox")
ECHO = ["/bin/sh", "-c", "echo on"]
BUSY = ["/bin/sh", "-c", "while :; do :; done"]
REST = 0.03
"""Seconds in which what runs has its turn for certain."""
LOOK = 0.0003
"""Seconds between two looks at a victim."""
TURN = 300_000
"""Nanoseconds of a processor after which a victim runs again; a paused QEMU uses less."""
WITHIN = 30.0


@dataclass
class Times:
    """Of one runtime, in milliseconds: from the submission to the first output, with others in the
    way and on a free grid; from the end of others to the moment at which it runs again; and the
    floor of each."""

    urgent: list[float] = field(default_factory=list)
    free: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    resume: list[float] = field(default_factory=list)


def missing() -> list[str]:
    """Programs that it takes and that are not here."""
    return [name for name in NEEDS if shutil.which(name) is None]


@gu.remote
def spin(path: str) -> None:
    """Keep a processor busy until the neighbour of ``path`` is there."""
    Path(path).touch()
    while not os.path.exists(path + ".end"):
        for _ in range(1000):
            pass


@gu.remote(priority=10, num_cpus=2)
def hold(seconds: float) -> float:
    """When it ended."""
    time.sleep(seconds)
    return time.monotonic()


class Ground:
    """A grid with an image in it, and both runtimes beside it for the floors."""

    def __init__(self, stack: ExitStack, root: Path) -> None:
        self.root = root
        self.daemon = stack.enter_context(docker_daemon.own_daemon(root))
        os.environ["DOCKER_HOST"] = f"unix://{self.daemon.socket}"
        stack.callback(os.environ.pop, "DOCKER_HOST")
        (root / "box").mkdir(mode=0o700)
        guests.furnish(root / "box")
        self.image = guests.shell_image()
        self.store: ImageStore = guests.store()
        grid = stack.enter_context(KeyedGrid(root))
        grid.add_provider("box", "--runtime", "docker", "--runtime", "qemu")
        app = grid.add_app(
            runtimes=["*"], image_hashes=[self.image], actions=UPLOADS, max_priority=10,
            preemption=["*"],
        )  # fmt: skip
        upload(grid, app, self.store, self.image)
        stack.enter_context(grid.session(app))

    def program(self, runtime: str) -> RemoteFunction:
        return image_program({"runtime": runtime, "image": self.image, "priority": 10})

    @contextmanager
    def full(self) -> Iterator[None]:
        """Both processors are busy."""
        paths = [self.root / f"spin-{fresh('instance')}" for _ in range(2)]
        running = [spin.remote(str(path)) for path in paths]
        while not all(path.exists() for path in paths):
            time.sleep(0.01)
        try:
            yield
        finally:
            for path in paths:
                Path(f"{path}.end").touch()
            gu.get(running, timeout=60)


def first_output(program: RemoteFunction) -> float:
    """Milliseconds."""
    began = time.monotonic()
    stream = program.remote(ECHO, {}, "", None)
    said = gu.get(next(stream), timeout=60)
    took = (time.monotonic() - began) * 1000
    assert said == ("out", b"on\n"), said
    for _ in stream:
        pass
    return took


def running_again(ground: Ground, runtime: str, trials: int) -> list[float]:
    """Milliseconds from the end of what it gave way to."""
    found = []
    before = {process.pid for process in psutil.process_iter()}
    with gu.deploy(runtime, ground.image, num_cpus=2, timeout=120) as it:
        it.start(BUSY)
        victim = _busiest(before)
        for _ in range(trials):
            held = hold.remote(0.3)
            while it.facts().state != "paused":
                time.sleep(0.01)
            used, until = _at_rest(victim), time.monotonic() + WITHIN
            while _used(victim) - used < TURN:
                assert time.monotonic() < until, "it does not go on"
                time.sleep(LOOK)
            again = time.monotonic()
            found.append((again - gu.get(held)) * 1000)
    return found


def _at_rest(pid: int) -> int:
    """What it had used when it stood still: it may be shown as paused a moment before."""
    used = -1
    while (now := _used(pid)) != used:
        used = now
        time.sleep(REST)
    return used


def _busiest(before: set[int]) -> int:
    """The process, started since, that uses the most of a processor."""
    since = [one for one in psutil.process_iter() if one.pid not in before]
    at = {one.pid: _used(one.pid) for one in since}
    time.sleep(1.0)
    return max(at, key=lambda pid: _used(pid) - at[pid])


def _used(pid: int) -> int:
    """Nanoseconds of processors that all its threads have used."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(path.read_text().split()[0])
    return total


def floors_of_docker(ground: Ground, trials: int, times: Times) -> None:
    """``docker run`` of the image to its first output; ``docker unpause``."""
    own = DockerRuntime(lambda: ground.store, socket=ground.daemon.socket)
    image = Images(own.client(), own._open_store).load(ground.image).id
    words = ["docker", "-H", f"unix://{ground.daemon.socket}"]
    for _ in range(trials):
        began = time.monotonic()
        given = ["run", "--rm", "--network=none", "--log-driver=none", image, *ECHO]
        with subprocess.Popen([*words, *given], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.read(1)
            times.floor.append((time.monotonic() - began) * 1000)
    _resumes(_instance(own, ground), times, trials)
    own.close()


def floors_of_qemu(ground: Ground, trials: int, times: Times) -> None:
    """From the warm snapshot until the guest's agent answers; ``cont``."""
    own = guests.runtime()
    for _ in range(trials + 1):
        with _instance(own, ground) as instance:
            began = time.monotonic()
            instance.start()
            times.floor.append((time.monotonic() - began) * 1000)
    del times.floor[0]  # that one made the snapshot
    _resumes(_instance(own, ground), times, trials)
    own.close()


def _instance(runtime: Any, ground: Ground) -> Instance:
    name = fresh("instance")
    (ground.root / name).mkdir()
    spec = Spec(name, "p-benchmark", str(ground.root / name), ground.image)
    return Instance(spec, runtime.create(spec))


def _resumes(instance: Instance, times: Times, trials: int) -> None:
    with instance:
        instance.start()
        instance.exec(Command(tuple(BUSY)))
        for _ in range(trials):
            instance.pause()
            began = time.monotonic()
            instance.resume()
            times.resume.append((time.monotonic() - began) * 1000)


def measure(trials: int) -> dict[str, Times]:
    """By runtime."""
    found = {"docker": Times(), "qemu": Times()}
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gb-")))
        ground = Ground(stack, root)
        for runtime, times in found.items():
            program = ground.program(runtime)
            first_output(program)  # which loads the image, or saves the guest
            times.free = [first_output(program) for _ in range(trials)]
            with ground.full():
                times.urgent = [first_output(program) for _ in range(trials)]
            times.back = running_again(ground, runtime, trials)
        floors_of_docker(ground, trials, found["docker"])
        floors_of_qemu(ground, trials, found["qemu"])
    return found
