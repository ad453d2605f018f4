"""What a worker opens as code, what as data, and what it says of the rest."""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import pytest

from guactors import values
from guactors.errors import GuactorsError, PermissionDenied, ProtocolError, TaskError
from guactors.messages import ActorSpec, Bind, Call, Define, LoadActor, Refusal, Shape, Value
from guactors.payload import PROGRAM, ActorPayload, encode
from guactors.security import code_signing
from guactors.security.code import Purpose, sign_code
from guactors.security.keys import Kind
from guactors.worker import execution
from guactors.worker.execution import Code
from guactors.worker.intake import Item
from guactors.worker.serving import open_actor
from guactors.worker.trust import Trust
from tests.unit.security.samples import public, secret

SIGNER = public(Kind.SIGNER).text
OTHER = public(Kind.SIGNER, 2).text
opened: list[str] = []


class Told(list[Refusal]):
    """What the provider was told."""

    def reasons(self) -> list[str]:
        return [refusal.reason for refusal in self]


class Desk:
    """A worker's code without the worker."""

    def __init__(self, signers: Sequence[str] | None = (SIGNER,), **rest: Any) -> None:
        self.told = Told()
        trust = Trust("on worker w-1 of provider box", lambda: "caller-key", self.told.append)
        self.code = Code(trust)
        self.bind(signers, **rest)

    def bind(self, signers: Sequence[str] | None, **rest: Any) -> None:
        listed = None if signers is None else list(signers)
        self.code.bind(Bind("s-1", "space", signers=listed, **rest))

    def define(
        self, target: Any, *signers: int, fn: bytes = b"f", purpose: Purpose = Purpose.FUNCTION
    ) -> None:
        blob = cloudpickle.dumps(target)
        self.code.define(Define(fn, "work", blob, signed(blob, *signers, purpose=purpose)))

    def call(self, *args: Any, fn: bytes = b"f", method: str = "", **kwargs: Any) -> Any:
        packed = values.pack_arguments(args, kwargs, lambda: "")
        return execution.start(self.code, Item("k-1", Call(1, fn, method, packed.data)))

    def load(self, cls: Any, *signers: int, args: Any = ((), {})) -> Any:
        blob = cloudpickle.dumps(cls)
        payload = encode(ActorPayload(blob, cloudpickle.dumps(args), [], []))
        spec = ActorSpec("a-1", "s-1", "c-1", "Thing", Shape({}))
        signatures = signed(blob, *signers, purpose=Purpose.CLASS)
        message = LoadActor(spec, 0, payload, signatures)
        actor = open_actor(self, message)  # type: ignore[arg-type]
        self.code.instance = actor.build()
        return self.code.instance


def signed(blob: bytes, *signers: int, purpose: Purpose = Purpose.FUNCTION) -> bytes:
    if not signers:
        return b""
    return sign_code([secret(Kind.SIGNER, number) for number in signers], purpose, blob)


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "openers", values.Openers())
    monkeypatch.setattr(code_signing, "_received", {})
    opened.clear()


class Opened:
    """Leaves a note when its pickle is opened."""

    def __reduce__(self) -> Any:
        return opened.append, ("x",)


def double(value: Any) -> Any:
    return [value, value]


def unsigned_call(desk: Desk) -> Any:
    desk.define(double)
    return desk.call(1)


# --- functions -----------------------------------------------------------------------------------


def test_without_signers_everything_is_opened_as_it_comes() -> None:
    desk = Desk(None)
    assert unsigned_call(desk) == [1, 1]
    found = desk.call(Opened)
    assert found == [Opened, Opened]
    assert not desk.told


def test_signed_code_runs() -> None:
    desk = Desk()
    desk.define(double, 1)
    assert desk.call(value={"a": [1, uuid.UUID(int=2)]}) == [{"a": [1, uuid.UUID(int=2)]}] * 2
    assert not desk.told


@pytest.mark.parametrize("signers", [(), (2,)])
def test_other_code_is_not_even_opened(signers: Sequence[int]) -> None:
    desk = Desk()
    desk.define(Opened(), *signers)
    with pytest.raises(PermissionDenied, match=SIGNER) as refusal:
        desk.call()
    assert not opened
    for part in ("work", "w-1", "box", "init(signer="):
        assert part in str(refusal.value)
    (told,) = desk.told
    assert (told.who, told.action, told.reason) == ("caller-key", "code", "function_signer")
    assert "function work sha3-256:" in told.object


def test_an_empty_list_of_signers_allows_no_code() -> None:
    desk = Desk([])
    desk.define(double, 1)
    with pytest.raises(PermissionDenied):
        desk.call(1)


def test_a_signature_of_other_code_is_no_signature() -> None:
    desk = Desk()
    blob = cloudpickle.dumps(Opened())
    desk.code.define(Define(b"f", "work", blob, signed(blob + b".", 1)))
    with pytest.raises(PermissionDenied):
        desk.call()
    desk.define(Opened(), 1, purpose=Purpose.CLASS)
    with pytest.raises(PermissionDenied):
        desk.call()
    assert not opened
    assert desk.told.reasons() == ["bad_signature", "bad_signature"]


def test_code_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from guactors.security import code

    judged = []
    judge = code.judge_code
    monkeypatch.setattr(code, "judge_code", lambda *given: judged.append(1) or judge(*given))
    desk = Desk()
    for fn in (b"f", b"g"):
        desk.define(double, 1, fn=fn)
        desk.call(1, fn=fn)
        desk.call(1, fn=fn)
    assert len(judged) == 1


def test_a_later_definition_does_not_replace_what_was_opened() -> None:
    desk = Desk()
    desk.define(double, 1)
    assert desk.call(1) == [1, 1]
    desk.define(Opened())
    assert desk.call(1) == [1, 1]
    assert not opened


def test_a_signer_who_is_taken_off_the_list_counts_no_more() -> None:
    desk = Desk([SIGNER, OTHER])
    desk.define(double, 1)
    desk.define(double, 2, fn=b"g")
    assert desk.call(1) == [1, 1]
    desk.bind([OTHER])
    with pytest.raises(PermissionDenied):
        desk.call(1)
    assert desk.call(1, fn=b"g") == [1, 1]
    desk.bind(None)
    assert unsigned_call(desk) == [1, 1]
    desk.bind([SIGNER])
    with pytest.raises(PermissionDenied):
        unsigned_call(desk)


def test_a_flood_of_refusals_is_told_in_part() -> None:
    desk = Desk()
    desk.define(double)
    for _ in range(100):
        with pytest.raises(PermissionDenied):
            desk.call(1)
    assert 0 < len(desk.told) < 20


def test_what_came_signed_leaves_signed() -> None:
    desk = Desk()
    desk.define(double, 1)
    blob = cloudpickle.dumps(double)
    assert code_signing.signatures_for(object, [], "function", blob) == b""
    desk.call(1)
    assert code_signing.signatures_for(object, [], "function", blob) == signed(blob, 1)


# --- arguments and values ------------------------------------------------------------------------


def test_arguments_are_data() -> None:
    desk = Desk()
    desk.define(double, 1)
    for bad in (Opened(), Opened, [Opened()]):
        with pytest.raises(PermissionDenied, match="no plain data"):
            desk.call(bad)
    assert not opened
    assert desk.told.reasons() == ["function_signer"] * 3


def test_a_refused_argument_is_named_with_its_place() -> None:
    desk = Desk()
    desk.define(double, 1)
    with pytest.raises(PermissionDenied, match=r"ProtocolError at args\[1\]\['x'\]"):
        desk.call(1, {"x": ProtocolError("version")})
    with pytest.raises(PermissionDenied, match=r"ProtocolError at kwargs\['value'\]\[0\]"):
        desk.call(value=[ProtocolError("version")])


@pytest.mark.parametrize("arguments", [1, ((), 1), ([], {}), ((), {1: 2}), ((), {}, 1)])
def test_arguments_are_a_tuple_and_a_dict(arguments: Any) -> None:
    desk = Desk()
    desk.define(double, 1)
    call = Call(1, b"f", "", pickle.dumps(arguments, 5))
    with pytest.raises(pickle.UnpicklingError):
        execution.start(desk.code, Item("k-1", call))


def with_dependency(value: Value) -> Item:
    args = pickle.dumps(((values.Placeholder(0),), {}), 5)
    return Item("k-1", Call(1, b"f", "", args, 0, [value]))


def test_dependencies_are_data() -> None:
    desk = Desk()
    desk.define(double, 1)
    good = Value(pickle.dumps([1, 2], 5))
    assert execution.start(desk.code, with_dependency(good)) == [[1, 2], [1, 2]]
    with pytest.raises(PermissionDenied):
        execution.start(desk.code, with_dependency(Value(pickle.dumps(Opened(), 5))))
    assert not opened


def test_errors_of_dependencies_are_data() -> None:
    desk = Desk()
    desk.define(double, 1)
    own = Value(pickle.dumps(ProtocolError("version", "old"), 5), 0, True)
    with pytest.raises(ProtocolError, match="old"):
        execution.start(desk.code, with_dependency(own))
    with pytest.raises(PermissionDenied):
        execution.start(desk.code, with_dependency(Value(pickle.dumps(Opened(), 5), 0, True)))
    hidden = values.RemoteFailure(pickle.dumps(Opened(), 5), "its text", "there")
    with pytest.raises(TaskError, match="its text"):
        execution.start(desk.code, with_dependency(Value(pickle.dumps(hidden, 5), 0, True)))
    user = Value(values.pack_error(KeyError("k"), "there"), 0, True)
    with pytest.raises(KeyError, match="there raised"):
        execution.start(desk.code, with_dependency(user))
    assert not opened


def test_values_that_nested_calls_fetch_are_data() -> None:
    Desk()
    assert values.unpack(pickle.dumps({"a": 1}, 5)) == {"a": 1}
    with pytest.raises(PermissionDenied, match="a value"):
        values.unpack(pickle.dumps(Opened(), 5))
    assert isinstance(values.unpack_error(pickle.dumps(Opened(), 5)), PermissionDenied)
    assert values.retriable(pickle.dumps(Opened(), 5), True) is False
    assert not opened


def test_references_to_objects_and_actors_are_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from guactors import refs, remote_actor

    made: list[Any] = []

    def rebuild(kind: str) -> Callable[..., Any]:
        def make(*parts: Any) -> str:
            made.append((kind, parts))
            return kind

        return make

    class Reference:
        def __init__(self, function: Any, *parts: Any) -> None:
            self.made = function, parts

        def __reduce__(self) -> Any:
            return self.made

    real = refs._rebuild_ref, remote_actor._rebuild_handle
    data = pickle.dumps([Reference(real[0], "c-1", 7), Reference(real[1], "a-1", b"i")], 5)
    bad = [
        pickle.dumps(Reference(real[0], b"c-1", 7), 5),
        pickle.dumps(Reference(real[1], 1, 2), 5),
    ]
    monkeypatch.setattr(refs, "_rebuild_ref", rebuild("ref"))
    monkeypatch.setattr(remote_actor, "_rebuild_handle", rebuild("handle"))
    Desk()
    assert values.unpack(data) == ["ref", "handle"]
    assert made == [("ref", ("c-1", 7)), ("handle", ("a-1", b"i"))]
    for one in bad:
        with pytest.raises(PermissionDenied):
            values.unpack(one)
    assert len(made) == 2


# --- actors --------------------------------------------------------------------------------------


class Thing:
    title = "a title"

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self.run = opened.append

    def public(self) -> Any:
        return self.parts

    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__

    @property
    def value(self) -> Any:
        return opened.append

    def _private(self) -> None:
        opened.append("x")

    def __call__(self) -> str:
        return "called"


def test_a_signed_class_becomes_an_actor() -> None:
    desk = Desk()
    assert desk.load(Thing, 1, args=((1, "a"), {})).parts == (1, "a")
    assert desk.call(fn=b"", method="public") == (1, "a")
    assert not desk.told


@pytest.mark.parametrize("signers", [(), (2,)])
def test_another_class_is_not_even_opened(signers: Sequence[int]) -> None:
    desk = Desk()
    with pytest.raises(PermissionDenied, match="class Thing"):
        desk.load(Opened(), *signers)
    assert not opened
    assert desk.told.reasons() == ["function_signer"]


def test_the_arguments_of_a_constructor_are_data() -> None:
    desk = Desk()
    with pytest.raises(PermissionDenied, match=r"args\[0\]"):
        desk.load(Thing, 1, args=((Opened,), {}))
    assert desk.code.instance is None


@pytest.mark.parametrize("method", ["public", "static", "of_class", "__call__"])
def test_public_methods_may_be_called(method: str) -> None:
    desk = Desk()
    desk.load(Thing, 1)
    desk.call(fn=b"", method=method)
    assert not desk.told


@pytest.mark.parametrize(
    "method",
    [
        "_private", "run", "value", "title", "parts", "missing", "__init__", "__reduce__",
        "__setattr__", "__class__", "__getattribute__", "__dir__", "mro", "",
    ],
)  # fmt: skip
def test_nothing_else_of_an_actor_may_be_called(method: str) -> None:
    desk = Desk()
    desk.load(Thing, 1)
    with pytest.raises((PermissionDenied, AttributeError)):
        desk.call("x", fn=b"", method=method)
    assert not opened


def test_a_worker_for_functions_has_no_methods() -> None:
    desk = Desk()
    with pytest.raises(PermissionDenied, match="worker for functions"):
        desk.call(fn=b"", method="__class__")


def test_without_signers_methods_are_found_as_python_finds_them() -> None:
    desk = Desk(None)
    desk.load(Thing)
    desk.call(fn=b"", method="_private")
    assert opened == ["x"]


# --- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["native", "docker", "something new"])
@pytest.mark.parametrize("signers", [None, (SIGNER,)])
def test_no_python_runs_in_another_runtime(runtime: str, signers: Sequence[str] | None) -> None:
    desk = Desk(signers, runtime=runtime, root="/image")
    desk.define(Opened(), 1)
    with pytest.raises(PermissionDenied, match=runtime):
        desk.call()
    with pytest.raises(PermissionDenied, match=runtime):
        desk.load(Opened(), 1)
    with pytest.raises(PermissionDenied):
        desk.call(fn=b"", method="__class__")
    with pytest.raises(PermissionDenied):
        values.unpack(pickle.dumps(Opened(), 5))
    assert not opened
    assert desk.told.reasons() == ["runtime", "runtime", "action", "function_signer"]


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"runtime": "native"},
        {"root": "/x"},
        {"runtime": "docker"},
        {"runtime": "native", "root": "/x"},
    ],
)
def test_programs_need_the_runtime_and_an_image(place: dict[str, str]) -> None:
    desk = Desk(None, **place)
    with pytest.raises(PermissionDenied, match="native"):
        desk.call(["x"], {}, "", fn=PROGRAM)
    assert desk.told.reasons() == ["runtime"]


def test_a_refused_program_is_told(tmp_path: Any) -> None:
    desk = Desk(None, runtime="native", root=str(tmp_path), image="sha3-256:" + "6" * 64)
    with pytest.raises(PermissionDenied, match="leads out of"):
        desk.call(["../../bin/sh"], {}, "", fn=PROGRAM)
    assert desk.told.reasons() == ["image"]
    assert "/bin/sh" in desk.told[0].object


def test_a_call_of_an_unknown_function_says_so() -> None:
    with pytest.raises(GuactorsError, match="never sent"):
        Desk().call(fn=b"unknown")


def test_the_python_runtime_has_two_names() -> None:
    assert unsigned_call(Desk(None, runtime="python")) == [1, 1]
    assert unsigned_call(Desk(None, runtime="")) == [1, 1]
