"""The types that are data: what a worker opens although nobody signed it.

Owns: the list, and for each type what it may be made from. Must never: list a type that does more
than hold its content, whoever makes it and from whatever; pass on an attribute that the type's own
constructor would not set.
"""

from __future__ import annotations

import builtins
import datetime
import decimal
import fractions
import pathlib
import re
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any, Final

from guactors import errors
from guactors.errors import Death
from guactors.security.data_arrays import ARRAYS
from guactors.security.data_only import Maker, Name
from guactors.values import Placeholder, RemoteFailure

_FRACTION: Final = re.compile(r"-?\d+(/\d+)?", re.ASCII)
_FACTORIES: Final = {
    kind.__name__: kind
    for kind in (bool, bytes, dict, float, frozenset, int, list, set, str, tuple)
}


def _ordered(*args: Any) -> OrderedDict[Any, Any]:
    if args:
        raise TypeError("an OrderedDict is pickled empty, its items follow")
    return OrderedDict()


def _with_default(factory: Any = None) -> defaultdict[Any, Any]:
    """The default of a missing key is an empty builtin, or an error."""
    if factory is None:
        return defaultdict(None)
    if type(factory) is not Maker or factory.name not in _FACTORIES:
        raise TypeError("a defaultdict may make builtin containers and scalars only")
    return defaultdict(_FACTORIES[factory.name])


def _fraction(*args: Any) -> fractions.Fraction:
    """Of a text (Python 3.11) or of two integers. A text such as ``1e999999999`` would not fit into
    any memory."""
    if len(args) == 2 and all(type(arg) is int for arg in args):
        return fractions.Fraction(*args)
    if len(args) == 1 and type(args[0]) is str and _FRACTION.fullmatch(args[0]):
        return fractions.Fraction(args[0])
    raise TypeError("a Fraction is pickled as two whole numbers")


def _uuid(state: Any) -> uuid.UUID:
    return uuid.UUID(int=state["int"])


def _placeholder(index: Any) -> Placeholder:
    if type(index) is not int or index < 0:
        raise TypeError("a placeholder has a number")
    return Placeholder(index)


def _path(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make(*parts: Any) -> Any:
        if not all(type(part) is str for part in parts):
            raise TypeError("a path is pickled as texts")
        return kind(*parts)

    return make


def _listed() -> dict[Name, Maker]:
    makers: dict[Name, Maker] = dict(ARRAYS)
    for name in _FACTORIES:
        makers["builtins", name] = Maker(name, None)
    simple: dict[Name, Callable[..., Any]] = {
        ("collections", "OrderedDict"): _ordered,
        ("collections", "defaultdict"): _with_default,
        ("collections", "deque"): deque,
        ("decimal", "Decimal"): decimal.Decimal,
        ("fractions", "Fraction"): _fraction,
        ("guactors.values", "Placeholder"): _placeholder,
    }
    for kind in (
        datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone,
    ):  # fmt: skip
        simple["datetime", kind.__name__] = kind
    # An absolute or local path is a text until somebody uses it, which a pure one does not prevent.
    paths = (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))
    for module in ("pathlib", "pathlib._local"):
        simple.update({(module, kind.__name__): _path(kind) for kind in paths})
    makers.update({name: Maker(name[1], make) for name, make in simple.items()})
    makers["uuid", "UUID"] = Maker("UUID", None, _uuid)
    return makers


DATA: Final = _listed()
"""What arguments and values may hold besides what a pickle has steps of its own for."""


# --- errors --------------------------------------------------------------------------------------


def _amend(error: BaseException, state: Any) -> None:
    for name, value in state.items():
        if not name.startswith("__"):
            error.__dict__[name] = value


def _death(state: Any) -> Death:
    if not all(value is None or type(value) in {str, int} for value in state.values()):
        raise TypeError("a Death holds texts and numbers")
    return Death(**state)


def _failure(cause: Any, text: Any, where: Any) -> RemoteFailure:
    if type(cause) is not bytes or type(text) is not str or type(where) is not str:
        raise TypeError("a failure is a pickle and two texts")
    return RemoteFailure(cause, text, where)


def _error_kinds() -> dict[Name, Maker]:
    kinds: list[tuple[str, Any]] = [("guactors.errors", kind) for kind in vars(errors).values()]
    kinds += [("builtins", kind) for kind in vars(builtins).values()]
    makers = {
        (module, kind.__name__): Maker(kind.__name__, kind, amend=_amend)
        for module, kind in kinds
        if isinstance(kind, type) and issubclass(kind, Exception)
    }
    makers["guactors.errors", "Death"] = Maker("Death", None, _death)
    makers["guactors.values", "RemoteFailure"] = Maker("RemoteFailure", _failure)
    return makers


ERRORS: Final = DATA | _error_kinds()
"""What errors of other processes may hold: our own, Python's, and data in them."""
