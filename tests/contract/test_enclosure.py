"""Functions and actors in instances: one suite, in each runtime that is here."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from guactors import values
from guactors.enclosure.conversation import Answer, Asked
from guactors.enclosure.enclosure import Enclosure
from guactors.enclosure.frames import encode
from guactors.errors import (
    InstanceLost,
    NotSerializable,
    RuntimeMissing,
    UsageError,
    VersionMismatch,
)
from guactors.images.build import build_image
from guactors.images.unpack import unpack_image
from guactors.runtimes import program
from guactors.runtimes.base import Runtime, Where
from tests.contract import guests
from tests.contract.runtime_bench import NEEDS

KINDS = [
    "native",
    pytest.param("docker", marks=pytest.mark.needs(*NEEDS["docker"])),
    "qemu",
]
LATER = "head -c 9 >/dev/null; cat /lie; cat >/dev/null"
SAME = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the image has the Python of Debian 12, 3.11"
)
WITHIN = 60.0
VARIABLES = {"HOW": "<${HOME}>"}
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Inside:
    """What a worker does with an enclosure."""

    def __init__(self, where: Where, runtime: Callable[[], Runtime]) -> None:
        self.printed: list[tuple[int, str]] = []
        self.over: list[str] = []
        self.told = threading.Event()
        self.enclosure = Enclosure(where, runtime, VARIABLES, self._tell, self._end)
        self._sent: set[str] = set()

    def _tell(self, _id: int, stream: int, data: bytes) -> None:
        self.printed.append((stream, data.decode()))

    def _end(self, cause: str, why: str) -> None:
        self.cause = cause
        self.over.append(why)
        self.told.set()

    def ask(self, function: Any, *args: Any, returns: int = 1, **kwargs: Any) -> Asked:
        talk = self.enclosure.talk()
        name = function if isinstance(function, str) else function.__name__
        if not isinstance(function, str) and name not in self._sent:
            blob, _ = values.pack_code(function, name)
            talk.say({"do": "define", "fn": name, "name": name}, [blob])
            self._sent.add(name)
        packed = values.pack_arguments(args, kwargs, lambda: name)
        assert isinstance(packed.data, bytes)
        header = {
            "do": "call", "fn": "" if isinstance(function, str) else name, "method": name,
            "name": name, "returns": returns, "counts": [len(packed.buffers)],
        }  # fmt: skip
        return talk.ask(header, [packed.data, *packed.buffers])

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        return opened(*self.ask(function, *args, **kwargs).wait())

    def load(self, cls: type, *args: Any, threads: int = 1) -> int:
        blob, _ = values.pack_code(cls, cls.__name__)
        packed = values.pack_arguments(args, {}, lambda: "")
        header = {
            "do": "load", "name": cls.__name__, "counts": [0], "threads": threads, "in_groups": 0,
            "coroutines": 7,
        }  # fmt: skip
        answer, parts = self.enclosure.talk().ask(header, [blob, packed.data]).wait()
        if parts:
            raise values.unpack_error(bytes(parts[0]))
        return answer.threads


def opened(answer: Answer, parts: list[memoryview]) -> Any:
    if answer.own:
        raise NotSerializable(answer.text)
    if answer.say == "failed":
        raise values.unpack_error(bytes(parts[0]))
    return values.unpack(bytes(parts[0]), parts[1:])


@pytest.fixture(scope="session", params=KINDS)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A runtime, and its socket: begun before anybody counts what a test leaves behind."""
    socket = request.getfixturevalue("docker_socket") if request.param == "docker" else ""
    return request.param, socket


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Inside]]:
    """Makes one: of the runtime of that kind, of an image."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made: list[Inside] = []
    opened_runtimes: list[Runtime] = []

    def build(kind: tuple[str, str] = ("native", ""), image: str = "") -> Inside:
        where = _where(kind[0], image or guests.whole_python_image(), tmp_path)
        runtime = _runtime(*kind)
        opened_runtimes.append(runtime)
        made.append(Inside(where, lambda: runtime))
        return made[-1]

    try:
        yield build
    except RuntimeMissing as missing:
        pytest.skip(str(missing))
    finally:
        for one in made:
            one.enclosure.close()
        for runtime in opened_runtimes:
            runtime.close()
        program.forget()


def _where(kind: str, image: str, directory: Path) -> Where:
    if kind != "native":
        return Where(kind, "", image, owner="p-1")
    root = directory / "root"
    unpack_image(guests.store(), image, root)
    return Where(kind, str(root), image, owner="p-1")


def _runtime(kind: str, socket: str) -> Runtime:
    if kind == "docker":
        from guactors.runtimes.docker.driver import DockerRuntime

        return DockerRuntime(guests.store, socket=socket)
    if kind == "qemu":
        return guests.runtime()
    from guactors.runtimes.native.driver import NativeRuntime

    return NativeRuntime(guests.store)


def fake_python(*frames: bytes, then: str = "cat >/dev/null", lie: bytes = b"") -> str:
    """The id of an image whose Python says that, and does ``then``, which finds /lie."""
    root = guests.ground() / f"fake-{time.monotonic_ns()}"
    (root / "bin").mkdir(parents=True)
    (root / "tmp").mkdir()
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        raise RuntimeMissing("busybox is not installed")
    (root / "bin/busybox").write_bytes(busybox.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for name in ("sh", "cat", "printf", "head", "sleep"):
        (root / "bin" / name).symlink_to("busybox")
    (root / "lie").write_bytes(lie)
    (root / "said").write_bytes(b"".join(frames))
    (root / "bin/python3").write_text(f"#!/bin/sh\ncat /said\n{then}\n")
    (root / "bin/python3").chmod(0o755)
    return build_image(root, guests.store(), name="fake")


def hello(version: list[int]) -> bytes:
    said = {"say": "hello", "python": version, "kind": sys.implementation.name}
    return b"".join(encode(said))


# --- what user code sees --------------------------------------------------------------------------


def add(x: Any, y: Any = 1) -> Any:
    print("adding", x)
    return x + y


class Counter:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


class Async:
    def __init__(self) -> None:
        self.meets = 0

    async def meet(self, together: int) -> int:
        import asyncio

        self.meets += 1
        if self.meets == 1:
            self.all = asyncio.Event()
        if self.meets == together:
            self.all.set()
        await self.all.wait()
        return self.meets


@SAME
def test_functions_and_actors(make: Callable[..., Inside], kind: tuple[str, str]) -> None:
    inside = make(kind)
    assert inside.call(add, 20, y=22) == 42
    assert (1, "adding 20\n") in inside.printed
    with pytest.raises(TypeError, match="can only concatenate") as caught:
        inside.call(add, "a")
    assert "in add" in str(caught.value)
    assert "guactors.enclosure" not in str(caught.value)
    data = bytes(range(256)) * 8192
    assert inside.call(add, data, data) == data * 2
    assert inside.load(Counter, 5) == 1
    assert [inside.call("add", amount) for amount in (1, 10)] == [6, 16]


@SAME
def test_nothing_of_this_machine_is_there(
    make: Callable[..., Inside], kind: tuple[str, str], tmp_path: Path
) -> None:
    def look(path: str) -> tuple[bool, list[str]]:
        import os

        names = [name for name in os.environ if name.startswith("GU_") and name != "GU_INSTANCE"]
        return os.path.exists(path), names

    (tmp_path / "secret").write_text("no")
    assert make(kind).call(look, str(tmp_path / "secret")) == (False, [])


@SAME
def test_async_actors_run_their_calls_together(make: Callable[..., Inside]) -> None:
    inside = make()
    assert inside.load(Async) == 7
    asked = [inside.ask("meet", 3) for _ in range(3)]
    assert [opened(*one.wait()) for one in asked] == [3, 3, 3]


@SAME
def test_threads_of_an_actor(make: Callable[..., Inside]) -> None:
    class Meeting:
        def __init__(self) -> None:
            import threading

            self.barrier = threading.Barrier(3, timeout=30)

        def meet(self) -> bool:
            return self.barrier.wait() >= 0

    inside = make()
    assert inside.load(Meeting, threads=3) == 3
    asked = [inside.ask("meet") for _ in range(3)]
    assert all(opened(*one.wait()) for one in asked)


@SAME
def test_a_constructor_that_raises(make: Callable[..., Inside]) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        make().load(type("Bad", (), {"__init__": lambda self, x: setattr(self, "x", int(x))}), "x")


@SAME
def test_streams_wait_for_who_reads(make: Callable[..., Inside]) -> None:
    def many() -> Iterator[int]:
        for i in range(100):
            print(i)
            yield i

    inside = make()
    asked = inside.ask(many, returns=-1)
    first = asked.wait()
    assert (first[0].say, opened(*first)) == ("item", 0)
    # One call behind the other: had the stream not stopped, its end would be here.
    made = sum(text.strip().isdigit() for _, text in list(inside.printed))
    assert made < 100
    found = []
    while (item := asked.wait())[0].say == "item":
        found.append(opened(*item))
        asked.more()
    assert found == list(range(1, 100)) or len(found) < 99


@SAME
def test_a_call_that_is_cancelled_ends_and_the_next_one_runs(make: Callable[..., Inside]) -> None:
    def forever() -> None:
        import time

        print("began")
        while True:
            time.sleep(0.001)

    inside = make()
    asked = inside.ask(forever)
    until = time.monotonic() + WITHIN
    while not any("began" in text for _, text in inside.printed):
        assert time.monotonic() < until
        time.sleep(0.005)
    asked.cancel()
    assert inside.call(add, 1) == 2


@SAME
def test_variables_and_modules(make: Callable[..., Inside]) -> None:
    def variable() -> str:
        import os

        return os.environ["HOW"]

    def needs() -> None:
        import absent_here  # type: ignore[import-not-found]

        absent_here.go()

    def grid() -> None:
        import guactors as gu

        gu.get(1)  # type: ignore[call-overload]

    inside = make()
    assert inside.call(variable).startswith("<")
    with pytest.raises(ModuleNotFoundError, match="absent_here"):
        inside.call(needs)
    with pytest.raises(AttributeError, match="does not reach the grid"):
        inside.call(grid)


@SAME
def test_what_cannot_be_pickled(make: Callable[..., Inside]) -> None:
    def lock() -> Any:
        import threading

        return threading.Lock()

    with pytest.raises(NotSerializable, match="the result of lock"):
        make().call(lock)


@SAME
def test_its_standard_streams_are_not_the_line(make: Callable[..., Inside]) -> None:
    def chatter() -> bytes:
        import os
        import sys

        os.write(1, b"past Python\n")
        sys.stderr.write("by Python\n")
        return os.read(0, 10)

    inside = make()
    assert inside.call(chatter) == b""
    assert inside.call(add, 1) == 2
    said = "".join(text for stream, text in inside.printed if stream == 2)
    assert "by Python" in said


@SAME
def test_one_that_dies_is_told_once_and_to_all(make: Callable[..., Inside]) -> None:
    def die() -> None:
        import os

        os._exit(3)

    inside = make()
    asked = inside.ask(die)
    with pytest.raises(InstanceLost, match="ended with status 3"):
        asked.wait()
    assert inside.told.wait(WITHIN)
    assert len(inside.over) == 1
    with pytest.raises(InstanceLost):
        inside.ask(add, 1).wait()


# --- what an image may be -------------------------------------------------------------------------


def test_another_python_is_refused_with_both_versions(make: Callable[..., Inside]) -> None:
    inside = make(image=fake_python(hello([3, 9, 18])))
    with pytest.raises(VersionMismatch) as caught:
        inside.call(add, 1)
    mine = ".".join(str(x) for x in sys.version_info[:3])
    assert "3.9.18" in str(caught.value)
    assert mine in str(caught.value)


def test_an_image_without_a_python(make: Callable[..., Inside]) -> None:
    with pytest.raises(UsageError, match="has no Python"):
        make(image=guests.shell_image()).call(add, 1)


@pytest.mark.parametrize(
    ("said", "then", "match"),
    [
        (b"", "echo no such thing >&2; exit 2", "ended with status 2: no such thing"),
        (b"\x00\x00\x00\x05hello", "cat >/dev/null", "no JSON"),
        (b"\xff\xff\xff\xffhello", "cat >/dev/null", "a header of"),
        (b"".join(encode({"say": "done", "id": 1}, [b"x"])), "cat >/dev/null", "'done' with"),
        (b"".join(encode({"say": 7})), "cat >/dev/null", "answer that is none"),
    ],
)
def test_what_is_no_python(make: Callable[..., Inside], said: bytes, then: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        make(image=fake_python(said, then=then)).call(add, 1)


def test_one_that_lies_later_is_given_up(make: Callable[..., Inside]) -> None:
    ready = b"".join(encode({"say": "ready"}))
    lie = b"".join(encode({"say": "done", "id": 1, "counts": [3], "refs": [[]]}, [b"x"]))
    version = list(sys.version_info[:3])
    inside = make(image=fake_python(hello(version), ready, lie=lie, then=LATER))
    with suppress(InstanceLost):
        inside.call(add, 1)
    assert inside.told.wait(WITHIN)
    assert "given up" in inside.over[0]
