"""Values in an instance: opened and made there as everywhere else, by a Python that has no more
than its standard library.

Owns: what user code finds under the name of this package, the form of values and errors. Must
never: be imported out here but by tests, or import more than the standard library (it is sent into
instances).

Values may hold references, which can be handed on but not be fetched in here, for nothing reaches
the grid from there.
"""

from __future__ import annotations

import pickle
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any

OUT_OF_BAND = 32 * 1024
"""Smaller buffers are cheaper inside the pickle (as in ``values``)."""
OURS = "<guactors."
"""Begins the names of our files in there, whose frames are no part of a user's traceback."""


class Placeholder:
    """Stands in arguments for dependency number ``index``."""

    def __init__(self, index: int) -> None:
        self.index = index


class RemoteFailure:
    """An exception on its way: pickled, its traceback as text, and what raised it."""

    def __init__(self, cause: bytes, text: str, where: str) -> None:
        self.cause, self.text, self.where = cause, text, where

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFailure, (self.cause, self.text, self.where)


class ObjectRef:
    """A reference that can be handed on."""

    def __init__(self, owner: str, object: int) -> None:
        self._name = (owner, object)

    def __reduce__(self) -> tuple[Any, ...]:
        _noted.append(self._name)
        return _rebuild_ref, self._name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and self._name == other._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return f"ObjectRef({'/'.join(map(str, self._name))})"


def _rebuild_ref(owner: str, object: int) -> ObjectRef:
    return ObjectRef(owner, object)


_noted: list[tuple[str, int]] = []
"""References met while something is pickled; under ``_pickling``."""
_pickling = threading.Lock()


class NotSerializable(Exception):
    """A result cannot be pickled."""


# --- what stands for the package in here ----------------------------------------------------------


def furnish() -> None:
    """Put into ``sys.modules`` what values are opened and made with."""
    package = sys.modules["guactors"]
    package.__getattr__ = _absent  # type: ignore[method-assign]
    for name, members in (
        ("guactors.values", (Placeholder, RemoteFailure)),
        ("guactors.refs", (ObjectRef, _rebuild_ref)),
    ):
        module = types.ModuleType(name)
        for member in members:
            member.__module__ = name
            setattr(module, member.__name__, member)
        sys.modules[name] = module
    package.ObjectRef = ObjectRef  # type: ignore[attr-defined]


def _absent(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(
        f"guactors.{name} cannot be used inside an image: what runs there does not reach the grid. "
        "Pass values as arguments, and call others from outside"
    )


# --- values ---------------------------------------------------------------------------------------


def pack(value: Any, what: str) -> tuple[bytes, list[Any], list[tuple[str, int]]]:
    """Pickle, its buffers, and the references inside. Raises NotSerializable."""
    buffers: list[Any] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND:
            return True
        buffers.append(raw)
        return False

    with _pickling:
        _noted.clear()
        try:
            data = _dumps(value, keep)
        except Exception as error:
            kind = f"{type(error).__name__}: {error}"
            raise NotSerializable(f"{what} cannot be pickled ({kind})") from error
        return data, buffers, list(_noted)


def _dumps(value: Any, keep: Callable[[pickle.PickleBuffer], bool]) -> bytes:
    if type(value) in (int, float, str, bytes, bool, type(None)):
        return pickle.dumps(value, 5)
    import cloudpickle

    data: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=keep)
    return data


def pack_error(error: BaseException, where: str) -> bytes:
    """As ``values.pack_error`` does."""
    trace = error.__traceback__
    # The first frames are the calls of the user's code in here.
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OURS):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    try:
        import cloudpickle

        cause = cloudpickle.dumps(error, protocol=5)
        pickle.loads(cause)
    except Exception:  # noqa: BLE001 - one that cannot travel is described
        cause = b""
    return pickle.dumps(RemoteFailure(cause, text, where), 5)


def open_arguments(
    header: dict[str, Any], parts: list[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``args`` and ``kwargs``, dependencies in their places. ``counts`` in the header: buffers of
    the arguments, then of each dependency; each has its pickle before its buffers."""
    values, at = [], 0
    for count in header["counts"]:
        data, buffers = parts[at], parts[at + 1 : at + 1 + count]
        at += 1 + count
        values.append(pickle.loads(data, buffers=buffers) if data else ((), {}))
    (args, kwargs), deps = values[0], values[1:]
    if deps:
        args = tuple(deps[a.index] if isinstance(a, Placeholder) else a for a in args)
        kwargs = {k: deps[v.index] if isinstance(v, Placeholder) else v for k, v in kwargs.items()}
    return args, kwargs
