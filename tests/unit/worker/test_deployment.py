"""The actor that workers have themselves, with a runtime that only says what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Any

import cloudpickle
import pytest

from guactors import values
from guactors.context import running
from guactors.errors import InstanceLost, PermissionDenied, RuntimeMissing, UsageError
from guactors.messages import ActorSpec, Bind, Call, Limits, LoadActor, Shape
from guactors.payload import DEPLOYMENT, ActorPayload, encode
from guactors.runtimes.base import Capability, Command, Exit, Output, Spec, Stats, Where
from guactors.worker import execution
from guactors.worker.deployment import KEPT, MOST_PROGRAMS, MOST_TAGS, Deployment
from guactors.worker.execution import Code
from guactors.worker.intake import Item
from guactors.worker.serving import open_actor
from guactors.worker.trust import Trust
from guactors.worker.uploads import MOST, Uploads


class FakeProcess:
    """Says what the test puts into ``said``."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.said: SimpleQueue[Output | Exit] = SimpleQueue()
        self.signals: list[int] = []
        self.fed = b""
        self.input_closed = threading.Event()
        self.closed = False
        self._end: Exit | None = None

    def read(self, timeout: float | None) -> Output | Exit | None:
        if self._end is not None:
            return self._end
        try:
            found = self.said.get(timeout=timeout)
        except Empty:
            return None
        if isinstance(found, Exit):
            self._end = found
        return found

    def write(self, data: bytes) -> None:
        self.fed += data

    def close_input(self) -> None:
        self.input_closed.set()

    def resize(self, size: Any) -> None:
        raise AssertionError(size)

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def close(self) -> None:
        self.closed = True
        self.said.put(Exit(None, 9, "closed"))


class FakeDriver:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.done: list[str] = []
        self.processes: list[FakeProcess] = []
        self.ran = threading.Event()
        self.files: dict[str, bytes] = {}

    def start(self) -> None:
        self.done.append("start")

    def exec(self, command: Command) -> FakeProcess:
        self.processes.append(FakeProcess(command))
        self.ran.set()
        return self.processes[-1]

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        if path == "/full":
            raise UsageError("no room")
        self.files[path] = b"".join(data) + (b"tar" if tar else b"")

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        yield self.files[path]

    def pause(self) -> None:
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")

    def save(self, path: str) -> None:
        raise AssertionError(path)

    def stats(self) -> Stats:
        return Stats(cpu_seconds=1.5)

    def disk_used(self) -> int | None:
        return None

    def lost(self) -> str:
        return ""

    def stop(self, grace: float) -> None:
        self.done.append(f"stop {grace:g}")

    def close(self) -> None:
        self.done.append("close")


class FakeRuntime:
    name = "fake"

    def __init__(self, *capabilities: Capability) -> None:
        self.capabilities = frozenset(capabilities or {Capability.PRIVATE})
        self.drivers: list[FakeDriver] = []
        self.closed = False

    def create(self, spec: Spec) -> FakeDriver:
        self.drivers.append(FakeDriver(spec))
        return self.drivers[-1]

    def close(self) -> None:
        self.closed = True


WHERE = Where("fake", "/store", "sha3-256:" + "a" * 64, Limits(cpu=2.0, memory=100), "p-1")


class Made:
    def __init__(self, runtime: FakeRuntime | None = None, where: Where = WHERE, **given: Any):
        self.runtime = runtime or FakeRuntime()
        opened: Any = lambda: self.runtime  # noqa: E731
        self.it = Deployment(where, opened, **given)

    @property
    def driver(self) -> FakeDriver:
        return self.runtime.drivers[0]


@pytest.fixture
def made() -> Iterator[Made]:
    one = Made(env={"A": "1"}, tags=["x"], name="w")
    yield one
    one.it._close()


def test_it_is_made_of_what_the_worker_is_bound_to() -> None:
    one = Made(limits={"memory": 50, "wall": 3}, env={"A": "1"})
    spec = one.driver.spec
    assert (spec.image, spec.owner) == (WHERE.image, "p-1")
    assert spec.limits == Limits(2.0, 50, 0, 0, 3.0), "the smaller of each"
    assert spec.options == {}
    assert one.driver.done == ["start"]
    one.it._close()
    one.it._close()
    assert one.driver.done == ["start", "close"]
    assert one.runtime.closed
    with pytest.raises(InstanceLost):
        one.it.start(["/bin/x"])


def test_native_instances_are_confined() -> None:
    one = Made(where=Where("native", "/root", "i"))
    assert one.driver.spec.options == {"root": "/root", "sandbox": "bubblewrap"}
    one.it._close()
    runtime = FakeRuntime(Capability.IMAGE)
    with pytest.raises(RuntimeMissing, match="bubblewrap"):
        Made(runtime)
    assert runtime.closed
    assert not runtime.drivers


@pytest.mark.parametrize(
    "given",
    [{"limits": 5}, {"limits": {"speed": 1}}, {"env": {"A": 1}}, {"env": []}, {"tags": "x"},
     {"tags": [""]}, {"tags": ["x" * 257]}, {"tags": [str(n) for n in range(MOST_TAGS + 1)]},
     {"name": 5}, {"name": "x" * 257}],
)  # fmt: skip
def test_only_plain_data_makes_it(given: dict[str, Any]) -> None:
    runtime = FakeRuntime()
    with pytest.raises(UsageError):
        Made(runtime, **given)
    assert not runtime.drivers


def test_what_a_program_says_is_told_as_it_says_it(made: Made) -> None:
    stream = made.it.exec(["/bin/x", "1"], {"B": "2"}, "/d", "guest", b"in")
    told: SimpleQueue[Any] = SimpleQueue()
    thread = threading.Thread(target=lambda: [told.put(one) for one in stream])
    thread.start()
    assert made.driver.ran.wait(10)
    [process] = made.driver.processes
    assert process.input_closed.wait(10)
    assert process.fed == b"in"
    wanted = Command(("/bin/x", "1"), {"A": "1", "B": "2"}, "/d", "guest", stdin=True)
    assert process.command == wanted
    process.said.put(Output(1, b"one"))
    assert told.get(timeout=10) == ("out", b"one")
    assert made.it.describe()["running"] == 1
    process.said.put(Output(2, b"two"))
    process.said.put(Exit(None, 9, "memory_limit", "too much"))
    assert told.get(timeout=10) == ("err", b"two")
    assert told.get(timeout=10) == ("exit", None, 9, "memory_limit", "too much")
    thread.join()
    assert process.closed
    found = made.it.describe()
    assert (found["running"], found["ran"], found["state"]) == (0, True, "running")


def test_a_silent_program_ends_with_who_listened(made: Made) -> None:
    class Cancelled:
        name, cancelled, timed_out, key = "", True, False, None

    def listen() -> None:
        running.set(Cancelled())
        assert list(made.it.exec(["/bin/x"])) == []

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join(10)
    [process] = made.driver.processes
    assert process.signals == [15]
    assert process.closed


@pytest.mark.parametrize(
    "given",
    [([],), ("/bin/x",), ([5],), (["/bin/x\0"],), ([""],), (["x"], {"A": 1}), (["x"], None, 5),
     (["x"], None, "", 5), (["x"], None, "", "", "in")],
)  # fmt: skip
def test_what_is_no_program_is_not_started(made: Made, given: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError):
        made.it.start(*given)
    with pytest.raises(UsageError):
        list(made.it.exec(*given))
    assert not made.driver.processes


def test_background_programs(made: Made) -> None:
    number = made.it.start(["/bin/x"])
    [process] = made.driver.processes
    assert made.it.wait(number, 0) is None
    process.said.put(Output(1, b"a" * KEPT))
    process.said.put(Output(1, b"bc"))
    process.said.put(Output(2, b"e"))
    made.it.signal(number, 10)
    assert process.signals == [10]
    process.said.put(Exit(3))
    assert made.it.wait(number) == ("exit", 3, None, "", "")
    told = made.it.output(number)
    assert (len(told["out"]), told["out"][-3:], told["err"]) == (KEPT, b"abc", b"e")
    assert told["dropped"] == {"out": 2, "err": 0}
    assert made.it.programs() == {1: ("exit", 3, None, "", "")}
    for wrong in (0, 2, "1", None, 1.0):
        with pytest.raises(UsageError, match="no program"):
            made.it.wait(wrong)
    for wrong in (0, 65, "TERM", None):
        with pytest.raises(UsageError, match="a signal is"):
            made.it.signal(number, wrong)
    for wrong in (-1, "1", float("nan")):
        with pytest.raises(UsageError, match="a timeout is"):
            made.it.wait(number, wrong)


def test_ended_programs_make_room(made: Made) -> None:
    for _ in range(MOST_PROGRAMS):
        made.it.start(["/bin/x"])
    with pytest.raises(UsageError, match="run in the background already"):
        made.it.start(["/bin/x"])
    made.driver.processes[4].said.put(Exit(0))
    made.it.wait(5)
    assert made.it.start(["/bin/x"]) == MOST_PROGRAMS + 1
    with pytest.raises(UsageError):
        made.it.wait(5)


def test_files(made: Made) -> None:
    number = made.it.begin_put("/a")
    made.it.put(number, b"one")
    made.it.put(number, b"")
    made.it.put(number, b"two")
    made.it.end_put(number)
    assert b"".join(made.it.get("/a")) == b"onetwo"
    with pytest.raises(UsageError, match="no upload"):
        made.it.put(number, b"x")
    number = made.it.begin_put("/b", True)
    made.it.end_put(number)
    assert made.driver.files["/b"] == b"tar"
    number = made.it.begin_put("/c")
    made.it.put(number, b"half")
    made.it.end_put(number, False)
    assert "/c" not in made.driver.files
    number = made.it.begin_put("/full")
    with pytest.raises(UsageError, match="no room"):
        made.it.end_put(number)
    made.driver.files["/large"] = bytes(200_000)
    assert [len(one) for one in made.it.get("/large")] == [65536, 65536, 65536, 3392]
    with pytest.raises(UsageError):
        made.it.begin_put(5)
    with pytest.raises(UsageError):
        made.it.put(made.it.begin_put("/d"), "text")


def test_uploads_have_a_bound_and_end_with_it() -> None:
    written: list[str] = []

    def put(path: str, data: Iterator[bytes], _tar: bool) -> None:
        b"".join(data)
        written.append(path)

    uploads = Uploads(put)
    for number in range(MOST):
        uploads.begin(str(number), tar=False)
    with pytest.raises(UsageError, match="are open already"):
        uploads.begin("more", tar=False)
    uploads.end(1, complete=True)
    assert written == ["0"]
    uploads.begin("more", tar=False)
    uploads.close()
    assert written == ["0"]


def test_the_rest_is_the_instances(made: Made) -> None:
    made.it.pause()
    assert made.it.describe()["state"] == "paused"
    with pytest.raises(UsageError, match="resume it first"):
        made.it.start(["/bin/x"])
    made.it.resume()
    assert made.it.stats()["cpu_seconds"] == 1.5
    assert made.it.change_tags(["y", "x"], []) == ["x", "y"]
    assert made.it.change_tags([], ["x"]) == ["y"]
    made.it.stop(2)
    assert made.driver.done == ["start", "pause", "resume", "stop 2", "close"]
    found = made.it.describe()
    assert (found["state"], found["end"], found["name"]) == ("ended", "it was closed", "w")
    with pytest.raises(UsageError):
        made.it.stop(-1)


# --- how a worker comes to it ---------------------------------------------------------------------


class Desk:
    """A worker's code without the worker."""

    def __init__(self, runtime: str = "fake", root: str = "/store") -> None:
        self.refusals: list[Any] = []
        trust = Trust("on worker w-1 of provider box", lambda: "caller-key", self.refusals.append)
        self.code = Code(trust)
        self.code.bind(Bind("s-1", "space", runtime=runtime, root=root, image=WHERE.image))

    def load(self, args: Any = ((), {})) -> Any:
        payload = encode(ActorPayload(DEPLOYMENT, cloudpickle.dumps(args), [], []))
        spec = ActorSpec("a-1", "s-1", "c-1", "Deployment", Shape({}))
        actor = open_actor(self, LoadActor(spec, 0, payload))  # type: ignore[arg-type]
        assert not actor.is_async
        self.code.instance = actor.build()
        return self.code.instance

    def call(self, method: str, *args: Any) -> Any:
        packed = values.pack_arguments(args, {}, lambda: "")
        return execution.start(self.code, Item("k-1", Call(1, b"", method, packed.data)))


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRuntime]:
    from guactors.runtimes import choice

    made = FakeRuntime()
    monkeypatch.setattr(choice, "open_runtime", lambda name, images: made)
    yield made
    for name, opener in vars(values.Openers()).items():
        setattr(values.openers, name, opener)


@pytest.mark.parametrize(("runtime_", "root"), [("", "/store"), ("python", ""), ("fake", "")])
def test_a_worker_without_an_image_deploys_nothing(
    runtime: FakeRuntime, runtime_: str, root: str
) -> None:
    desk = Desk(runtime_, root)
    with pytest.raises(PermissionDenied, match="nothing was deployed on worker w-1"):
        desk.load()
    assert desk.refusals
    assert not runtime.drivers


def test_a_worker_opens_no_code_for_it(runtime: FakeRuntime) -> None:
    desk = Desk()
    with pytest.raises(PermissionDenied, match="no plain data"):
        desk.load(((), {"env": _Evil()}))
    assert not runtime.drivers
    made = desk.load(((), {"tags": ["x"]}))
    assert desk.call("describe")["tags"] == ["x"]
    with pytest.raises(PermissionDenied, match="no plain data"):
        desk.call("start", _Evil())
    for private in ("_close", "_start", "__init__", "__class__", "_held"):
        with pytest.raises(PermissionDenied, match="no public method"):
            desk.call(private)
    with pytest.raises(PermissionDenied):
        desk.call("__ray_call__", _Evil())
    made._close()


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("opened",)
