"""Deployments on a real grid of keys, in Python: native instances at a provider that believes
signatures only."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

import guactors as gu
from guactors import errors
from tests import leaks
from tests.e2e.deployed import UPLOADS, new_store, shell_image, upload
from tests.e2e.keyed_grid import KeyedGrid, until

pytestmark = [
    pytest.mark.may_keep(*leaks.KINDS),
    pytest.mark.needs("posix", "linux", "busybox", "bwrap"),
]


class Ground(NamedTuple):
    grid: KeyedGrid
    app: Path
    image: str
    other: str


@pytest.fixture(scope="module")
def ground(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ground]:
    path = tmp_path_factory.mktemp("deployed")
    store = new_store(path)
    image, other = shell_image(store, path), shell_image(store, path, "2")
    (run_root / "dep").mkdir(mode=0o700)
    with KeyedGrid(run_root / "dep") as grid:
        grid.add_provider("box")
        owner = grid.add_app(runtimes=["native"], image_hashes=[image, other], actions=UPLOADS)
        for one in (image, other):
            upload(grid, owner, store, one)
        app = grid.add_app(runtimes=["native"], image_hashes=[image], actions=UPLOADS)
        yield Ground(grid, app, image, other)


@pytest.fixture
def image(ground: Ground) -> Iterator[str]:
    """Within a session of the app."""
    with ground.grid.session(ground.app):
        yield ground.image


def processes_with(word: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if word in (process.info["cmdline"] or []):
            found.append(process)
    return found


def test_programs_run_in_what_is_kept(image: str) -> None:
    with gu.deploy("native", image, name="w", tags=["a"], env={"WHO": "me"}) as deployed:
        facts = deployed.facts()
        assert (facts.state, facts.name, facts.tags) == ("running", "w", ["a"])
        assert (facts.runtime, facts.image, facts.ran) == ("native", image, False)
        done = deployed.run(["/bin/sh", "-c", "echo $WHO; echo no >&2; cat; exit 3"], stdin=b"in")
        assert (done.code, done.out, done.err) == (3, b"me\nin", b"no\n")
        deployed.run(["/bin/sh", "-c", "echo here > /data/x"])
        assert deployed.read("/data/x") == b"here\n", "what one leaves the next one finds"
        assert list(deployed.exec(["/bin/cat", "x"], cwd="/data")) == [
            ("out", b"here\n"),
            ("exit", 0),
        ]
        assert deployed.facts().ran
        with pytest.raises(errors.ProgramNotStarted):
            deployed.run(["/bin/missing"])
        with pytest.raises(errors.UsageError):
            deployed.run([])
        assert deployed.change_tags(add=["b", "b"], remove=["a"]) == ["b"]
        assert deployed.stats().processes is not None


def test_the_machine_is_not_seen(image: str, ground: Ground) -> None:
    with gu.deploy("native", image) as deployed:
        secret = ground.grid.root / "box" / "keys"
        assert secret.exists()
        assert deployed.run(["/bin/ls", str(secret)]).code != 0
        with pytest.raises(errors.UsageError):
            deployed.read("../../../../etc/passwd")
        with pytest.raises(errors.UsageError):
            deployed.put("../up", b"x")


def test_programs_in_the_background(image: str) -> None:
    with gu.deploy("native", image) as deployed:
        number = deployed.start(["/bin/sh", "-c", "echo on; exec sleep 600"])
        assert deployed.wait(number, 0.05) is None
        until(lambda: deployed.output(number)[0] == b"on\n", "its output")
        done = deployed.start(["/bin/true"])
        ended = deployed.wait(done)
        assert ended is not None
        assert ended.code == 0
        assert deployed.programs()[number] is None
        deployed.signal(number, signal.SIGKILL)
        ended = deployed.wait(number, 10)
        assert ended is not None
        assert ended.code == -signal.SIGKILL
        with pytest.raises(errors.UsageError, match="no program"):
            deployed.wait(99)


def test_several_programs_at_a_time(image: str) -> None:
    with gu.deploy("native", image) as deployed:
        streams = [deployed.exec(["/bin/sh", "-c", "echo up; exec sleep 600"]) for _ in range(20)]
        for stream in streams:
            assert next(stream) == ("out", b"up\n")
        assert deployed.facts().running == 20
        for stream in streams:
            stream.close()  # type: ignore[attr-defined]
        until(lambda: deployed.facts().running == 0, "all end with who listened")


def test_files_go_in_and_out(image: str) -> None:
    large = os.urandom(5 << 20)
    with gu.deploy("native", image) as deployed:
        deployed.put("new/large", io.BytesIO(large))
        assert deployed.read("new/large") == large
        deployed.put("/data/small", b"")
        assert deployed.read("data/small") == b""
        packed = b"".join(deployed.get("new", tar=True))
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            assert [one.name.strip("./") for one in tar if one.isfile()] == ["large"]
        deployed.put("copy", iter([packed[:1000], packed[1000:]]), tar=True)
        assert deployed.read("copy/large") == large
        with pytest.raises(errors.UsageError):
            deployed.put("bad", b"no tar" * 200, tar=True)
        with pytest.raises(errors.UsageError):
            deployed.read("/missing")

        def broken() -> Iterator[bytes]:
            yield b"half"
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            deployed.put("/data/half", broken())
        with pytest.raises(errors.UsageError):
            deployed.read("/data/half")


def test_pause_and_stop(image: str) -> None:
    with gu.deploy("native", image) as deployed:
        number = deployed.start(["/bin/sh", "-c", "trap 'echo bye; exit 0' TERM; sleep 600 & wait"])
        deployed.pause()
        assert deployed.facts().state == "paused"
        with pytest.raises(errors.UsageError, match="resume it first"):
            deployed.run(["/bin/true"])
        deployed.resume()
        deployed.stop(grace=5)
        assert deployed.facts().state == "ended"
        ended = deployed.wait(number, 5)
        assert ended is not None
        with pytest.raises(errors.InstanceLost):
            deployed.run(["/bin/true"])


def test_limits_are_held(image: str) -> None:
    with gu.deploy("native", image, limits={"wall": 0.5}) as deployed:
        done = deployed.run(["/bin/sleep", "600"])
        assert (done.code < 0, done.reason) == (True, "wall_limit")
        with pytest.raises(errors.InstanceLost, match="wall limit"):
            deployed.run(["/bin/true"])
    with gu.deploy("native", image, limits={"disk": 16 << 20}) as deployed:
        done = deployed.run(
            ["/bin/sh", "-c", "dd if=/dev/zero of=/data/big bs=1M count=64; sleep 60"]
        )
        assert done.reason == "disk_limit"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"limits": {"speed": 1}}, errors.UsageError),
        ({"tags": [""]}, errors.UsageError),
        ({"env": {"A": 1}}, errors.UsageError),
    ],
)
def test_what_cannot_be_made_says_why(
    image: str, given: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        gu.deploy("native", image, **given)


def test_who_may_not_is_refused(ground: Ground, image: str) -> None:
    with pytest.raises(errors.PermissionDenied):
        gu.deploy("native", ground.other)
    with pytest.raises((errors.PermissionDenied, errors.Unschedulable)):
        gu.deploy("docker", image)
    with pytest.raises(errors.UnknownOption):
        gu.deploy("No Such", image)


def test_nothing_is_left_when_its_session_ends(ground: Ground) -> None:
    with ground.grid.session(ground.app):
        deployed = gu.deploy("native", ground.image)
        deployed.start(["/bin/sleep", "98765"])
        until(lambda: processes_with("98765"), "it runs")
    until(lambda: not processes_with("98765"), "it is gone")


def test_nothing_is_left_when_nobody_holds_it(image: str) -> None:
    deployed = gu.deploy("native", image)
    deployed.start(["/bin/sleep", "98766"])
    until(lambda: processes_with("98766"), "it runs")
    del deployed
    until(lambda: not processes_with("98766"), "it is gone")


def test_nothing_is_left_of_a_killed_worker(ground: Ground, image: str) -> None:
    deployed = gu.deploy("native", image)
    deployed.start(["/bin/sh", "-c", "sleep 98764"])
    [found, *_] = until(lambda: processes_with("98764"), "it runs")
    failed: list[Exception] = []

    def listen() -> None:
        try:
            deployed.run(["/bin/sleep", "98764"])
        except errors.GuactorsError as error:
            failed.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    until(lambda: deployed.facts().running == 2, "the other runs")
    keeper = next(one for one in found.parents() if "bwrap" not in one.name())
    keeper.kill()
    thread.join(20)
    assert [isinstance(one, errors.ActorDied) for one in failed] == [True]
    until(lambda: not processes_with("98764"), "all is gone")
    with pytest.raises(errors.ActorDied):
        deployed.facts()
    deployed.close()


def test_nothing_is_left_of_a_killed_provider(ground: Ground) -> None:
    ground.grid.add_provider("second")
    with ground.grid.session(ground.app):
        deployed = gu.deploy("native", ground.image, provider="second")
        deployed.start(["/bin/sleep", "98763"])
        [found, *_] = until(lambda: processes_with("98763"), "it runs")
        provider = next(one for one in found.parents() if "--name" in one.cmdline())
        provider.kill()
        until(lambda: not processes_with("98763"), "it is gone")
        with pytest.raises(errors.ActorDied):
            deployed.run(["/bin/true"])
