"""The same functions, actors and programs in each runtime, on a real grid with keys."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest

import guactors as gu
from guactors import errors, image_client
from guactors.errors import RuntimeMissing
from guactors.grid_client import GridClient
from tests import command, leaks
from tests.contract import docker_daemon, guests
from tests.contract.runtime_bench import NEEDS
from tests.e2e.keyed_grid import KeyedGrid

pytestmark = [
    pytest.mark.may_keep(*leaks.KINDS),
    pytest.mark.needs("posix"),
    pytest.mark.skipif(
        sys.version_info[:2] != (3, 11), reason="the image has the Python of Debian 12, 3.11"
    ),
]
cloudpickle.register_pickle_by_value(sys.modules[__name__])

KINDS = ["native", pytest.param("docker", marks=pytest.mark.needs(*NEEDS["docker"])), "qemu"]
RUNTIMES = ["native", "docker", "qemu"]
WITHIN = 120.0


class World:
    """A grid with one provider that has every runtime of this machine, and an app for images."""

    def __init__(self, root: Path, run_root: Path, stack: ExitStack) -> None:
        self.image = guests.whole_python_image()
        if docker_daemon.possible():
            daemon = stack.enter_context(docker_daemon.own_daemon(run_root))
            os.environ["DOCKER_HOST"] = f"unix://{daemon.socket}"
            stack.callback(os.environ.pop, "DOCKER_HOST")
        self.grid = stack.enter_context(KeyedGrid(root))
        self.home = root / "box"
        self.home.mkdir(mode=0o700)
        guests.furnish(self.home)
        self.grid.add_provider("box")
        self.app = self.grid.add_app(
            runtimes=["python", "native", "docker", "qemu"],
            image_hashes=[self.image],
            actions=["submit", "upload_images"],
        )
        self.other = self.grid.add_app(runtimes=["python"], image_hashes=[self.image])
        with GridClient(self.grid.address, key=str(self.app)) as client:
            image_client.push(client, guests.store(), self.image)


@pytest.fixture(scope="module")
def world(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    root = tmp_path_factory.mktemp("grid")
    try:
        guests.whole_python_image()
    except RuntimeMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    before = leaks.take(root, run_root)
    with ExitStack() as stack:
        yield World(root, run_root, stack)
    # The socket directory of a provider that was killed stays.
    kinds = tuple(name for name in leaks.KINDS if name != "dirs")
    found = leaks.settle(before, root, run_root, kinds)
    if found:
        pytest.fail("the grid left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, world: World) -> Iterator[dict[str, Any]]:
    """Options that name the runtime and the image, in a session of the app."""
    with world.grid.session(world.app):
        yield {"runtime": request.param, "image": world.image}


def where() -> tuple[int, str, int]:
    import os
    import sys

    return os.getpid(), sys.executable, sys.version_info[1]


def double(value: Any) -> Any:
    return value * 2


def raises() -> None:
    raise KeyError("of the user")


def both() -> tuple[int, int]:
    return 1, 2


def upto(count: int) -> Iterator[int]:
    yield from range(count)


class Counter:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def keep(self, refs: list[Any]) -> None:
        self.refs = refs

    def give(self) -> list[Any]:
        return self.refs


class Waiter:
    async def wait(self, seconds: float) -> float:
        import asyncio

        await asyncio.sleep(seconds)
        return seconds


def get(ref: Any) -> Any:
    return gu.get(ref, timeout=WITHIN)


def test_a_function(kind: dict[str, Any]) -> None:
    pid, executable, minor = get(gu.remote(where).options(**kind).remote())
    assert minor == sys.version_info[1]
    assert executable.startswith("/usr/bin/")
    assert pid != os.getpid()
    remote = gu.remote(double).options(**kind)
    assert get([remote.remote(i) for i in range(50)]) == [2 * i for i in range(50)]
    assert get(remote.remote(gu.put([1]))) == [1, 1]
    assert get(remote.remote(remote.remote(remote.remote("a")))) == "a" * 8
    data = bytes(range(256)) * 20_000
    assert get(remote.remote(data)) == data * 2


def test_its_errors(kind: dict[str, Any]) -> None:
    failed = gu.remote(raises).options(**kind).remote()
    with pytest.raises(KeyError, match="of the user") as caught:
        get(failed)
    assert isinstance(caught.value, errors.TaskError)
    with pytest.raises(KeyError):
        get(gu.remote(double).options(**kind).remote(failed))


def test_its_results(kind: dict[str, Any]) -> None:
    assert get(list(gu.remote(both).options(**kind, num_returns=2).remote())) == [1, 2]
    stream = gu.remote(upto).options(**kind, num_returns="streaming").remote(5)
    assert [get(ref) for ref in stream] == [0, 1, 2, 3, 4]


def test_an_actor(kind: dict[str, Any]) -> None:
    actor = gu.remote(Counter).options(**kind).remote(5)
    assert get([actor.add.remote() for _ in range(3)]) == [6, 7, 8]
    assert get(actor.add.remote(amount=10)) == 18
    kept = gu.put("kept")
    get(actor.keep.remote([kept]))
    del kept
    [back] = get(actor.give.remote())
    assert get(back) == "kept"
    gu.kill(actor)


def test_an_async_actor(kind: dict[str, Any]) -> None:
    actor = gu.remote(Waiter).options(**kind).remote()
    get(actor.wait.remote(0))
    began = time.monotonic()
    assert get([actor.wait.remote(0.5) for _ in range(8)]) == [0.5] * 8
    assert time.monotonic() - began < 3.5
    long = actor.wait.remote(600)
    with pytest.raises(errors.GetTimeout):
        gu.get(long, timeout=0.3)
    gu.cancel(long)
    with pytest.raises(errors.TaskCancelled):
        get(long)
    gu.kill(actor)


def test_cancel_and_die(kind: dict[str, Any]) -> None:
    def sleep() -> None:
        import time

        time.sleep(600)

    def die() -> None:
        import os

        os._exit(7)

    remote = gu.remote(sleep).options(**kind, max_retries=0).remote()
    with pytest.raises(errors.GetTimeout):
        gu.get(remote, timeout=0.5)
    gu.cancel(remote)
    with pytest.raises(errors.TaskCancelled):
        get(remote)
    with pytest.raises(errors.WorkerDied, match="ended with status 7"):
        get(gu.remote(die).options(**kind, max_retries=0).remote())
    assert get(gu.remote(double).options(**kind).remote(1)) == 2


def test_limits_of_an_instance(kind: dict[str, Any]) -> None:
    def allocate() -> int:
        return len(b"x" * (1 << 30))

    limited = gu.remote(allocate).options(**kind, limits={"memory": 300 << 20}, max_retries=0)
    with pytest.raises((errors.OutOfMemory, errors.TaskError), match=r"memory limit|MemoryError"):
        get(limited.remote())


def test_gu_run(kind: dict[str, Any], world: World) -> None:
    runtime, image = kind["runtime"], kind["image"]
    words = ["run", "--runtime", runtime, "--image", image, "--address", world.grid.address]
    program = "import sys; print(6 * 7); print('err', file=sys.stderr); sys.exit(3)"
    done = command.gu(
        *words, "--key", str(world.app), "--", "/usr/bin/python3", "-c", program,
        status=3, GU_HOME=str(world.grid.home),
    )  # fmt: skip
    assert done.stdout == "42\n"
    assert done.stderr.endswith("err\n")


@pytest.mark.needs("povray")
@pytest.mark.timeout(WITHIN)
def test_an_animation_is_the_same_everywhere(world: World, tmp_path: Path) -> None:
    """On two providers of a grid of its own."""
    home = tmp_path / "own"
    home.mkdir(mode=0o700)
    guests.furnish(home)
    example = Path(__file__).parents[2] / "examples" / "animation.py"
    wanted = [name for name in RUNTIMES if name != "docker" or "DOCKER_HOST" in os.environ]
    words = ["--frames", "2", "--width", "32", "--height", "24", "--runtimes", *wanted]
    done = subprocess.run(
        [sys.executable, example, *words, "--out", "out.png"],
        env={**os.environ, "GU_HOME": str(home)}, cwd=tmp_path, check=False, capture_output=True,
        text=True, timeout=WITHIN,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"the frames of {', '.join(wanted)} are identical" in done.stdout
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_an_app_without_the_runtime(kind: dict[str, Any], world: World) -> None:
    script = (
        "import sys, guactors as gu\n"
        f"gu.init({world.grid.address!r}, key={str(world.other)!r})\n"
        f"f = gu.remote(lambda: 1).options(runtime={kind['runtime']!r}, image={world.image!r})\n"
        "gu.get(f.remote(), timeout=60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=WITHIN, check=False
    )
    assert "PermissionDenied" in done.stderr


def test_a_provider_that_is_killed_leaves_nothing_and_another_goes_on(world: World) -> None:
    """With an instance of every kind in it."""
    with world.grid.session(world.app, ignore_reinit_error=True):
        wanted = [one for one in RUNTIMES if one != "docker" or "DOCKER_HOST" in os.environ]
        actors = [
            gu.remote(Counter).options(runtime=name, image=world.image).remote(1) for name in wanted
        ]
        assert get([actor.add.remote() for actor in actors]) == [2] * len(actors)
        before = instances(world)
        assert len(before) >= len(actors)
        provider = provider_process(world)
        provider.send_signal(signal.SIGKILL)
        command.eventually(lambda: not any(map(lives, before)), "the end of all instances")
        with pytest.raises((errors.ActorLost, errors.ProviderLost)):
            get(actors[0].add.remote())
        world.grid.add_provider("box")
        for name in wanted:
            remote = gu.remote(double).options(runtime=name, image=world.image)
            assert get(remote.remote(2)) == 4


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def provider_process(world: World) -> psutil.Process:
    for process in psutil.process_iter():
        try:
            line, env = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        if "provider" in line and env.get("GU_HOME") == str(world.home) and "--hub" in line:
            return process
    raise AssertionError("the provider is not to be found")


def instances(world: World) -> list[psutil.Process]:
    """QEMU, sandboxes, and what runs in containers of our daemon."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "import os, sys" in words or "qemu-system" in words:
            found.append(process)
    return found
