"""Pickles opened as data: what comes through whole, and that nothing else does anything."""

from __future__ import annotations

import collections
import contextlib
import copyreg
import datetime
import decimal
import enum
import fractions
import functools
import io
import os
import pathlib
import pickle
import uuid
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors import errors
from guactors.security.data_only import Maker, NotData, load
from guactors.security.data_types import DATA, ERRORS
from guactors.values import Placeholder, RemoteFailure

UTC = datetime.UTC


def through(value: Any, makers: Any = DATA, *, in_band: bool = True) -> Any:
    buffers: list[Any] = []
    keep = None if in_band else lambda buffer: bool(buffers.append(buffer.raw()))
    data = cloudpickle.dumps(value, protocol=5, buffer_callback=keep)
    return load(data, [memoryview(b).toreadonly() for b in buffers], makers)


# --- what is data --------------------------------------------------------------------------------

scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False) | st.uuids() | st.decimals(allow_nan=False)
    | st.fractions() | st.dates() | st.datetimes(timezones=st.just(UTC)) | st.timedeltas()
)  # fmt: skip
keys = st.integers() | st.text() | st.binary() | st.tuples(st.integers(), st.text()) | st.uuids()
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner)
        | st.dictionaries(keys, inner).map(collections.OrderedDict)
        | st.lists(inner).map(collections.deque)
        | st.sets(keys)
        | st.frozensets(keys)
    ),
    max_leaves=20,
)


@given(nested)
def test_builtin_values_come_through(value: Any) -> None:
    found = through(((value,), {"again": value}))
    assert found == ((value,), {"again": value})
    assert type(found[0][0]) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        range(3), slice(1, 2), ..., bytearray(b"x"), -(10**50), "ü" * 70_000, b"x" * 70_000,
        pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("c:/a"), pathlib.Path("a/b"),
        collections.deque([1, 2], 3), collections.defaultdict(list, a=[1]),
        collections.defaultdict(None, a=1), datetime.time(1, 2, tzinfo=UTC),
        datetime.timezone(datetime.timedelta(hours=1), "here"), decimal.Decimal("NaN").is_nan(),
        fractions.Fraction(-1, 3), uuid.UUID(int=5),
    ],
    ids=repr,
)  # fmt: skip
def test_values_with_a_name_come_through(value: Any) -> None:
    found = through([value, value])
    assert found == [value, value]
    assert type(found[0]) is type(value)


def test_what_a_default_makes_comes_through() -> None:
    assert through(collections.defaultdict(list, a=[1]))["new"] == []


def test_sharing_and_cycles_are_kept() -> None:
    inner: list[Any] = [uuid.UUID(int=1)]
    inner.append(inner)
    found = through({"a": inner, "b": inner})
    assert found["a"] is found["b"]
    assert found["a"][1] is found["a"]


RECORD = np.dtype([("name", "U3"), ("count", ">i4"), ("at", "f4", (2,))])
ARRAYS = [
    np.arange(6), np.arange(6).reshape(2, 3).T, np.arange(20)[::2], np.array(3.5),
    np.ones((2, 3, 4)).transpose(1, 0, 2), np.zeros(0), np.zeros((0, 3))[:, ::2],
    np.arange(3).astype(">i4"), np.array([b"ab", b"c"]), np.array(["ü", "abc"]),
    np.array([True, False]), np.array([1 + 2j]), np.array(["2020-01-01"], "M8[D]"),
    np.array([1, 2], "m8[25ns]"), np.array([1], "m8"), np.array([("ab", 1, (2, 3))], RECORD),
    np.zeros(2, [(("title", "x"), "i4"), ("y", "u1")]), np.zeros(2, np.float16),
    np.array([[1.0, 2.0], [3.0, 4.0]], order="F")[:, :1],
]  # fmt: skip


@pytest.mark.parametrize("in_band", [True, False])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_come_through(array: np.ndarray[Any, Any], in_band: bool) -> None:
    found = through({"a": [array]}, in_band=in_band)["a"][0]
    assert type(found) is np.ndarray
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()
    assert found.dtype.isnative == array.dtype.isnative


@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.5), np.bool_(1), np.datetime64("2020"), np.str_("x"), np.int8(-1),
        np.dtype(">f8"), np.dtype("M8[ns]"), RECORD, np.dtype(("i4", (2,))),
    ],
    ids=repr,
)  # fmt: skip
def test_scalars_and_dtypes_of_numpy_come_through(value: Any) -> None:
    found = through((value, value))
    assert found == (value, value)
    assert type(found[0]) is type(value)


def test_arrays_of_objects_hold_data_only() -> None:
    value = np.array([["a", None], [[1], 2.5]], object)
    found = through(value)
    assert found.dtype == object
    assert found.tolist() == value.tolist()
    with pytest.raises(NotData):
        through(np.array([os.getcwd], object))


def test_large_arrays_are_not_copied() -> None:
    array = np.arange(100_000)
    data = pickle.dumps(array, 5, buffer_callback=(kept := []).append)
    found = load(data, kept, DATA)
    assert np.shares_memory(found, array)


def test_placeholders_are_data() -> None:
    assert through(Placeholder(3)).index == 3
    for index in (-1, "0", None):
        with pytest.raises(NotData):
            through(Placeholder(index))  # type: ignore[arg-type]


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        errors.ProtocolError("version", "old"), errors.PermissionDenied("no"),
        errors.WorkerDied("gone", errors.Death("killed", exit_code=3, worker="w-1")),
        errors.UnknownOption("x"), ValueError("x", 1), OSError(2, "no", "file"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "why"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_errors_come_through_where_errors_are_expected(error: Exception) -> None:
    found = through(error, ERRORS)
    assert (type(found), str(found), found.args) == (type(error), str(error), error.args)
    assert vars(found) == vars(error)
    with pytest.raises(NotData):
        through(error, DATA)


def test_a_failure_comes_through_with_its_cause_unopened() -> None:
    found = through(RemoteFailure(b"cause", "text", "where"), ERRORS)
    assert (found.cause, found.text, found.where) == (b"cause", "text", "where")


def test_the_state_of_an_error_does_not_reach_what_python_uses() -> None:
    error = ValueError("x")
    error.note = "kept"  # type: ignore[attr-defined]
    error.__dict__["__class__"] = "not kept"
    assert vars(through(error, ERRORS)) == {"note": "kept"}


# --- what is not ---------------------------------------------------------------------------------


RECARRAY = np.zeros(1, [("a", "i4")]).view(np.recarray)


class Plain:
    pass


class Color(enum.Enum):
    RED = 1


Point = collections.namedtuple("Point", "x")  # noqa: PYI024


class Ordered(collections.OrderedDict):  # type: ignore[type-arg]
    pass


@pytest.mark.parametrize(
    "value",
    [
        Plain(), Plain, len, os.getcwd, lambda: 1, functools.partial(int, "1"), Color.RED,
        Point(1), int, datetime.date, np.float64, np.ndarray, np.dtype, ValueError("x"),
        collections.Counter("a"), collections.OrderedDict, Ordered(a=1), RECARRAY,
        np.ma.array([1]), np.random.default_rng(1), collections.defaultdict(Plain),
        io.BytesIO(b""), os.environ, {1: 2}.items(), type(None),
    ],
    ids=lambda value: str(getattr(value, "__name__", type(value).__name__)),
)  # fmt: skip
def test_everything_else_is_refused_with_the_way_to_it(value: Any) -> None:
    with pytest.raises(NotData) as refusal:
        through((["x", value], {}))
    assert refusal.value.path == "[0][1]"
    with pytest.raises(NotData) as refusal:
        through(((), {"name": {"k": (uuid.UUID(int=1), np.arange(2), value)}}))
    assert refusal.value.path == "[1]['name']['k'][2]"
    assert refusal.value.culprit


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Plain(), "Plain"), (Plain, "Plain"), (os.getcwd, "getcwd"),
        (collections.Counter(), "Counter"),
        (Color.RED, "Color"), (int, "int"), (RECARRAY, "_reconstruct"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_culprit(value: Any, name: str) -> None:
    with pytest.raises(NotData) as refusal:
        through([value])
    assert name in refusal.value.culprit


class Bomb:
    """Pickles as a call of ``target``."""

    def __init__(self, target: Callable[..., Any], *args: Any, state: Any = None) -> None:
        self.made = (target, args) if state is None else (target, args, state)

    def __reduce__(self) -> Any:
        return self.made


fallen: list[str] = []


def fall(*args: Any) -> list[Any]:
    fallen.append("x")
    return list(args)


def text(name: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(name)]) + name.encode()


def named(module: str, name: str) -> bytes:
    return text(module) + text(name) + pickle.STACK_GLOBAL


START = pickle.PROTO + b"\x05"
HERE = named(__name__, "fall")
FRACTION = named("fractions", "Fraction")
ORDERED = named("collections", "OrderedDict")
EMPTY = pickle.EMPTY_TUPLE

ATTACKS = {
    "call": HERE + EMPTY + pickle.REDUCE,
    "call by an old name": b"c" + __name__.encode() + b"\nfall\n" + EMPTY + pickle.REDUCE,
    "instance": b"(i" + __name__.encode() + b"\nfall\n",
    "object": pickle.MARK + HERE + pickle.OBJ,
    "new": HERE + EMPTY + pickle.NEWOBJ,
    "new with names": HERE + EMPTY + pickle.EMPTY_DICT + pickle.NEWOBJ_EX,
    "dotted": named("collections", "OrderedDict.fromkeys") + EMPTY + pickle.REDUCE,
    "getattr": named("builtins", "getattr") + EMPTY + pickle.REDUCE,
    "eval": named("builtins", "eval") + text("fall()") + pickle.TUPLE1 + pickle.REDUCE,
    "exec": named("builtins", "exec") + text("fall()") + pickle.TUPLE1 + pickle.REDUCE,
    "import": named("builtins", "__import__") + text("os") + pickle.TUPLE1 + pickle.REDUCE,
    "reconstructor": named("copyreg", "_reconstructor") + EMPTY + pickle.REDUCE,
    "newobj": named("copyreg", "__newobj__") + EMPTY + pickle.REDUCE,
    "cloudpickle": named("cloudpickle.cloudpickle", "_builtin_type") + EMPTY + pickle.REDUCE,
    "a class of the list is changed": FRACTION + pickle.NONE + pickle.EMPTY_DICT
    + text("__add__") + text("x") + pickle.SETITEM + pickle.TUPLE2 + pickle.BUILD,
    "a value of the list is changed": FRACTION + text("1/3") + pickle.TUPLE1 + pickle.REDUCE
    + pickle.NONE + pickle.EMPTY_DICT + text("_numerator") + text("x") + pickle.SETITEM
    + pickle.TUPLE2 + pickle.BUILD,
    "a method is shadowed": ORDERED + EMPTY + pickle.REDUCE + pickle.EMPTY_DICT + text("items")
    + text("x") + pickle.SETITEM + pickle.BUILD,
    "a path lies": named("pathlib", "PurePosixPath") + text("a") + pickle.TUPLE1 + pickle.REDUCE
    + pickle.NONE + pickle.EMPTY_DICT + text("_str") + text("/etc") + pickle.SETITEM
    + pickle.TUPLE2 + pickle.BUILD,
    "a factory": named("collections", "defaultdict") + HERE + pickle.TUPLE1 + pickle.REDUCE,
    "a factory of the list": named("collections", "defaultdict") + FRACTION + pickle.TUPLE1
    + pickle.REDUCE,
    "a persistent id": pickle.PERSID + b"1\n",
    "a binary persistent id": pickle.NONE + pickle.BINPERSID,
    "a huge fraction": FRACTION + text("1e999999999") + pickle.TUPLE1 + pickle.REDUCE,
    "a half-made value is copied": named("uuid", "UUID") + EMPTY + pickle.NEWOBJ + pickle.MEMOIZE
    + pickle.BINGET + b"\0" + pickle.TUPLE2,
    "a half-made value": named("uuid", "UUID") + EMPTY + pickle.NEWOBJ,
    "a half-made array": named("numpy._core.multiarray", "_reconstruct")
    + named("numpy", "ndarray") + pickle.TUPLE1 + pickle.REDUCE,
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_fails_and_nothing_happens(attack: bytes) -> None:
    before = dict(vars(fractions.Fraction))
    with pytest.raises((NotData, pickle.UnpicklingError, AttributeError)):
        load(START + attack + pickle.STOP, (), DATA)
    assert not fallen
    assert dict(vars(fractions.Fraction)) == before


def test_the_attacks_would_work_on_an_open_reader() -> None:
    pickle.loads(START + ATTACKS["call"] + pickle.STOP)
    assert fallen
    fallen.clear()


def test_a_name_known_by_number_is_asked_for_again() -> None:
    copyreg.add_extension(__name__, "fall", 77)
    data = START + pickle.EXT1 + bytes([77]) + EMPTY + pickle.REDUCE + pickle.STOP
    try:
        pickle.loads(data)  # now it is in the cache, where nobody asks
        fallen.clear()
        with pytest.raises(NotData):
            load(data, (), DATA)
        assert not fallen
    finally:
        copyreg.remove_extension(__name__, "fall", 77)


@pytest.mark.parametrize(
    "state",
    [
        (3, "|", None, None, None, -1, -1, 0),  # flags that deny that it holds objects
        (3, "|", None, ("o",), {"o": (np.dtype("O"), 0)}, 8, 1, 0),
        (3, "|", (np.dtype("O"), (1,)), None, None, 8, 1, 0),
    ],
)
def test_bytes_never_become_objects(state: Any) -> None:
    """numpy's own reader of a dtype's state believes its flags, and then takes the bytes of the
    array for addresses."""
    kind = Bomb(
        np.dtype, "O8" if state[3] is None and state[2] is None else "V8", False, True, state=state
    )
    rebuild = np._core.multiarray._reconstruct
    frombuffer = np._core.numeric._frombuffer
    for bomb in (
        Bomb(rebuild, np.ndarray, (0,), b"b", state=(1, (1,), kind, False, b"\1" * 8)),
        Bomb(frombuffer, b"\1" * 8, kind, (1,), "C"),
        Bomb(np._core.multiarray.scalar, kind, b"\1" * 8),
    ):
        with pytest.raises(NotData):
            through(bomb)


@pytest.mark.parametrize(
    "state",
    [
        (3, "<", None, None, None, 1, 1, 0),  # smaller than its kind: would be read past its end
        (3, "<", None, None, None, 2**31, 1, 0),
    ],
)
def test_the_size_of_an_item_is_that_of_its_kind(state: Any) -> None:
    kind = Bomb(np.dtype, "f8", False, True, state=state)
    array = Bomb(
        np._core.multiarray._reconstruct,
        np.ndarray,
        (0,),
        b"b",
        state=(1, (8,), kind, False, b"\0" * 8),
    )
    with pytest.raises(NotData):
        through(array)
    assert through(kind) == np.dtype("f8")


@pytest.mark.parametrize(
    ("names", "fields", "size"),
    [
        (("a",), {"a": (np.dtype("i4"), 8)}, 8),
        (("a",), {"a": (np.dtype("i4"), -4)}, 8),
        (("a",), {"b": (np.dtype("i4"), 0)}, 8),
        (("a",), {"a": ("i4", 0)}, 8),
        (("a",), {"a": (np.dtype("i4"), 0)}, -1),
    ],
)
def test_a_record_lies_within_its_size(names: Any, fields: Any, size: int) -> None:
    with pytest.raises(NotData):
        through(Bomb(np.dtype, "V8", False, True, state=(3, "|", None, names, fields, size, 1, 0)))


@given(st.binary(max_size=60), st.sampled_from(sorted(ATTACKS)), st.integers(0, 200))
def test_damaged_pickles_do_nothing(noise: bytes, attack: str, place: int) -> None:
    data = START + ATTACKS[attack] + pickle.STOP
    data = data[:place] + noise + data[place:]
    with contextlib.suppress(Exception):
        load(data, (), DATA)
    assert not fallen


def test_makers_are_the_only_way_in() -> None:
    seen: list[Any] = []
    makers = {("somewhere", "thing"): Maker("thing", lambda *args: seen.append(args))}
    load(START + named("somewhere", "thing") + EMPTY + pickle.REDUCE + pickle.STOP, (), makers)
    assert seen == [()]
    with pytest.raises(NotData):
        load(START + named("somewhere", "else") + EMPTY + pickle.REDUCE + pickle.STOP, (), makers)
