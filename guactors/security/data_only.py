"""Opening a pickle as data: values of types on a fixed list, and nothing that runs code.

Owns: the reading, and what a refusal names. Must never: import, call or change anything that is not
on the list it was given, whatever the pickle asks for.

A pickle is a program; one that names a callable has it called. The interpreter's own reader asks
before it looks up a name, but afterwards it sets any attribute of any object it has made, even of a
class. So it is used only for pickles that name nothing but a few types that cannot be changed. As
soon as another name comes up, the whole pickle is read again by :class:`_Careful`, slower, which
knows few steps and takes none of them on trust.
"""

from __future__ import annotations

import copyreg
import io
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, NoReturn

Name = tuple[str, str]
"""Module and name of a class or function."""


class NotData(Exception):
    """The pickle holds something that is not on the list: ``culprit`` is its dotted name, ``path``
    the way to it from the value, such as ``[1]['model']``, empty where it cannot be told."""

    def __init__(self, culprit: str, path: str = "") -> None:
        super().__init__(culprit, path)
        self.culprit = culprit
        self.path = path


class Parts:
    """A value whose second half, its state, is still to come; ``finish`` makes the value of it."""

    __slots__ = ("finish", "name", "places")

    def __init__(self, name: str, finish: Callable[[Any], Any]) -> None:
        self.name = name
        self.finish = finish
        self.places: list[int] = []


class Maker:
    """Stands in a pickle for a class or function of the list. ``make`` is called with the pickled
    arguments and gives the value or its :class:`Parts`; None where it is only an argument itself.
    ``new``: it is made without arguments, from its state alone. ``amend``: a value may have a state
    besides, and this takes it."""

    __slots__ = ("amend", "make", "name", "new")

    def __init__(
        self,
        name: str,
        make: Callable[..., Any] | None,
        new: Callable[[Any], Any] | None = None,
        amend: Callable[[Any, Any], None] | None = None,
    ) -> None:
        self.name = name
        self.make = make
        self.new = new
        self.amend = amend

    def __repr__(self) -> str:
        return f"<{self.name}>"


_UNCHANGEABLE: Final[dict[Name, Any]] = {
    ("builtins", "complex"): complex,
    ("builtins", "range"): range,
    ("builtins", "slice"): slice,
    ("builtins", "Ellipsis"): ...,
}
"""Types of the interpreter that nobody can set an attribute of, nor of their instances."""


class _Other(Exception):
    """The fast reader met a name that is not in its own short list."""


class _Fast(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _UNCHANGEABLE.get((module, name))
        if found is None:
            raise _Other
        return found


_UNFIT: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a maker raises for content that is not its type's."""


def load(data: bytes, buffers: Iterable[Any], makers: Mapping[Name, Maker]) -> Any:
    """The value in ``data``, of what ``makers`` make and of builtin containers and scalars. Raises
    NotData for anything else, and whatever a damaged pickle raises."""
    given: Sequence[Any] = list(buffers)
    # Names that were looked up earlier by number are handed out again without asking.
    copyreg.clear_extension_cache()
    try:
        return _Fast(io.BytesIO(data), buffers=given).load()
    except _Other:
        pass
    try:
        return _Careful(data, given, makers).load()
    except NotData as refusal:
        culprit, path = _find_culprit(data, given, makers)
        raise NotData(culprit or refusal.culprit, path) from None


class _Careful(pickle._Unpickler):
    """Knows the steps that a pickle of protocol 5 takes, and of these only what data needs.

    ``_open`` counts the makers and parts that are on the stack or inside values: in the end there
    may be none, or a value would hold something that is no data."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {}
    # What the base class has while it reads.
    stack: list[Any]
    memo: dict[int, Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]

    def __init__(self, data: bytes, buffers: Sequence[Any], makers: Mapping[Name, Maker]) -> None:
        super().__init__(io.BytesIO(data), buffers=buffers)
        self._makers = makers
        self._open = 0
        self._amends: dict[int, tuple[Any, Callable[[Any, Any], None]]] = {}

    def load(self) -> Any:
        try:
            value = super().load()
        except KeyError:
            raise NotData("a step that data does not need") from None
        if self._open:
            raise NotData("a class or function by itself")
        return value

    def find_class(self, module: str, name: str) -> Any:
        found = _UNCHANGEABLE.get((module, name))
        if type(found) is type(...):
            return found
        self._open += 1
        if found is not None:
            return Maker(name, found)
        maker = self._makers.get((module, name))
        return maker if maker is not None else self._unknown(f"{module}.{name}")

    def _unknown(self, name: str) -> Maker:
        raise NotData(name)

    def _call(self) -> None:
        args = self.stack.pop()
        maker = self.stack[-1]
        if type(maker) is not Maker or maker.make is None or type(args) is not tuple:
            self._refuse(maker)
        self._open -= 1 + sum(type(arg) is Maker for arg in args)
        value = self._made(maker.name, maker.make, *args)
        if maker.amend is not None:
            self._amends[id(value)] = value, maker.amend
        self._put(value)

    def _new(self) -> None:
        args = self.stack.pop()
        maker = self.stack[-1]
        if type(maker) is not Maker or maker.new is None or args != ():
            self._refuse(maker)
        self._open -= 1
        self._put(Parts(maker.name, maker.new))

    def _put(self, value: Any) -> None:
        self.stack[-1] = value
        if type(value) is Parts:
            self._open += 1

    def _build(self) -> None:
        state = self.stack.pop()
        parts = self.stack[-1]
        if type(parts) is Parts:
            value = self.stack[-1] = self._made(parts.name, parts.finish, state)
            self._open -= 1
            for place in parts.places:
                self.memo[place] = value
        elif id(parts) in self._amends:
            self._made(type(parts).__name__, self._amends[id(parts)][1], parts, state)
        else:
            self._refuse(parts)

    def _made(self, name: str, make: Callable[..., Any], *args: Any) -> Any:
        try:
            return make(*args)
        except _UNFIT as error:
            raise NotData(f"{name} ({error})") from None

    def _memoize(self) -> None:
        value = self.stack[-1]
        if type(value) is Parts:
            value.places.append(len(self.memo))
        self.memo[len(self.memo)] = value

    def _get(self, index: int) -> None:
        value = self.memo[index]
        if type(value) is Parts:
            self._refuse(value)
        self._open += type(value) is Maker
        self.append(value)

    def _get_near(self) -> None:
        self._get(self.read(1)[0])

    def _get_far(self) -> None:
        self._get(int.from_bytes(self.read(4), "little"))

    def _refuse(self, value: Any) -> NoReturn:
        name = value.name if type(value) in {Maker, Parts} else type(value).__name__
        raise NotData(f"a state or call of {name}")


def _steps() -> dict[int, Callable[[Any], None]]:
    """The steps of :class:`_Careful` by their byte. Those that make builtin values are the
    library's own; those that look up, call or change something are ours or are not there."""
    own = {
        pickle.REDUCE: _Careful._call,
        pickle.NEWOBJ: _Careful._new,
        pickle.BUILD: _Careful._build,
        pickle.MEMOIZE: _Careful._memoize,
        pickle.BINGET: _Careful._get_near,
        pickle.LONG_BINGET: _Careful._get_far,
    }
    plain = (
        "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE",
        "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINBYTES",
        "BINBYTES", "BINBYTES8", "BYTEARRAY8", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
        "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE",
        "EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET", "NEXT_BUFFER",
        "READONLY_BUFFER", "STACK_GLOBAL",
    )  # fmt: skip
    steps: dict[int, Any] = {}
    for name in plain:
        code = getattr(pickle, name)[0]
        steps[code] = pickle._Unpickler.dispatch[code]
    return steps | {code[0]: step for code, step in own.items()}


_Careful.dispatch = _steps()


# --- where the culprit is ------------------------------------------------------------------------

_MOST_LOOKED_AT: Final = 100_000


class _Stub:
    """Takes the place of what is not data, takes everything that is done to it, and does nothing.
    ``label``: what it stands for."""

    def __init__(self, label: str) -> None:
        self.label = label

    def extend(self, _items: Any) -> None: ...
    def append(self, _item: Any) -> None: ...
    def add(self, _item: Any) -> None: ...
    def __setitem__(self, _key: Any, _item: Any) -> None: ...


class _Explorer(_Careful):
    """Reads a refused pickle to its end, with stubs for what is not data."""

    def _unknown(self, name: str) -> Maker:
        return Maker(name, lambda *args: _Stub(_label(name, args)))

    def _call(self) -> None:
        if type(self.stack[-2]) is Maker:
            super()._call()
        else:
            self._stub(2)

    def _new(self) -> None:
        maker = self.stack[-2]
        if type(maker) is Maker and maker.new is not None:
            super()._new()
        else:
            self._stub(2)

    def _new_with_names(self) -> None:
        self._stub(3)

    def _stub(self, count: int) -> None:
        """In the place of the last ``count`` things on the stack."""
        self.stack[-count:] = [_Stub(_name_of(self.stack[-count]))]

    def _build(self) -> None:
        if type(self.stack[-2]) is Parts:
            super()._build()
        else:
            self.stack.pop()

    def _made(self, name: str, make: Callable[..., Any], *args: Any) -> Any:
        try:
            return super()._made(name, make, *args)
        except NotData as refusal:
            return _Stub(refusal.culprit)

    def load(self) -> Any:
        return pickle._Unpickler.load(self)


_Explorer.dispatch = {
    **_Careful.dispatch,
    pickle.REDUCE[0]: _Explorer._call,
    pickle.NEWOBJ[0]: _Explorer._new,
    pickle.NEWOBJ_EX[0]: _Explorer._new_with_names,
    pickle.BUILD[0]: _Explorer._build,
}


def _label(name: str, args: tuple[Any, ...]) -> str:
    """What a call of an unlisted function would have made: cloudpickle's own functions make what
    is named in their arguments."""
    if name.startswith("cloudpickle."):
        inner = next((arg for arg in args if type(arg) is str), "")
        return f"{inner or 'code'}, which is sent as code"
    if name == "builtins.getattr" and len(args) == 2:
        # Early releases of Python 3.11 make members of enumerations so.
        return f"{_name_of(args[0])}.{args[1]}"
    return name


def _name_of(value: Any) -> str:
    match value:
        case _Stub():
            return value.label
        case Maker():
            return value.name
    return type(value).__name__


def _find_culprit(
    data: bytes, buffers: Sequence[Any], makers: Mapping[Name, Maker]
) -> tuple[str, str]:
    """What it is and the way to it; empty where they cannot be told."""
    try:
        value = _Explorer(data, buffers, makers).load()
    except Exception:  # noqa: BLE001 - it is refused anyway, only the way stays unknown
        return "", ""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting and len(seen) < _MOST_LOOKED_AT:
        path, part = waiting.pop()
        if type(part) in {_Stub, Maker, Parts}:
            itself = "" if type(part) is _Stub else " by itself"
            return _name_of(part) + itself, path
        if id(part) not in seen:
            seen.add(id(part))
            waiting += reversed([(path + step, inner) for step, inner in _inside(part)])
    return "", ""


def _inside(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        return ((f"[{index}]", part) for index, part in enumerate(value))
    if isinstance(value, dict):
        found = [(" (a key)", key) for key in value]
        return found + [(f"[{key!r:.40}]", part) for key, part in value.items()]
    if isinstance(value, set | frozenset):
        return ((" (in a set)", part) for part in value)
    return ()
