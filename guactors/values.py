"""User values to bytes and back, and user errors on their way.

Owns: when plain pickle is enough and when cloudpickle is needed, out-of-band buffers, the
collection of references inside a value, and what a remote exception looks like when it is raised
again. Only processes that run or own user code import this; the hub and the provider never do.

Opening a pickle runs what it says. A worker whose session asks for signed code replaces the
functions in :data:`openers`: there, only signed code is opened as a pickle (``unpack_code``), and
everything else that comes from outside as data.
"""

from __future__ import annotations

import pickle
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from guactors.arrays import is_plain, without_bytes
from guactors.errors import GuactorsError, NotSerializable, PermissionDenied, TaskError
from guactors.objects import process
from guactors.objects.base import LARGE, Held

OUT_OF_BAND = 32 * 1024
"""Smaller buffers are cheaper inside the pickle than as frames of their own."""

SIMPLE = frozenset({int, float, str, bytes, bool, type(None), complex})
NO_ARGUMENTS = b""
"""Stands for ``((), {})``, by far the most common arguments of tiny calls."""


class Packed(NamedTuple):
    """A serialized value: pickle, out-of-band buffers, and the references found inside it. A large
    one is in shared memory, pickle and buffers."""

    data: bytes | Held
    buffers: Sequence[bytes | memoryview]
    refs: Sequence[Any]


class Openers:
    """How this process opens what comes from outside, each as ``pickle.loads``: values, the
    arguments of calls, and errors."""

    def __init__(self) -> None:
        self.value: Callable[..., Any] = pickle.loads
        self.arguments: Callable[..., Any] = pickle.loads
        self.error: Callable[..., Any] = pickle.loads


openers = Openers()


class Placeholder:
    """Stands in pickled arguments for the value of dependency number ``index``."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        return Placeholder, (self.index,)


class _Collector(threading.local):
    refs: list[Any] | None = None


_collector = _Collector()


def note_reference(ref: Any) -> None:
    """Called by references while they are pickled."""
    if _collector.refs is not None:
        _collector.refs.append(ref)


def _copied(
    data: bytes, buffers: Sequence[memoryview], refs: Sequence[Any], *, large: int
) -> Packed:
    """The value apart from what it was made of: the user may change an array before it has left."""
    if large and len(data) + sum(buffer.nbytes for buffer in buffers) >= large:
        return Packed(process.store().write([data, *buffers]), (), refs)
    return Packed(data, [bytes(buffer) for buffer in buffers] if buffers else (), refs)


def pack(value: Any, what: Callable[[], str], *, large: int = 0) -> Packed:
    """Serialize any value, from ``large`` bytes (0: never) into shared memory. ``what`` names it
    for the error. Raises NotSerializable, StoreFull."""
    kind = type(value)
    if kind in SIMPLE:
        data = pickle.dumps(value, 5)
        return Packed(data, (), ()) if len(data) < LARGE else _copied(data, (), (), large=large)
    buffers: list[memoryview] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND:
            return True
        buffers.append(raw)
        return False

    if is_plain(value):
        if value.nbytes >= OUT_OF_BAND and (known := without_bytes(value)) is not None:
            return _copied(known, (pickle.PickleBuffer(value).raw(),), (), large=large)
        data = pickle.dumps(value, 5, buffer_callback=keep)
        return _copied(data, buffers, (), large=large)
    refs: list[Any] = []
    outer, _collector.refs = _collector.refs, refs
    try:
        import cloudpickle

        data = cloudpickle.dumps(value, protocol=5, buffer_callback=keep)
    except GuactorsError:
        raise
    except Exception as error:
        raise NotSerializable(_complaint(value, what(), error)) from error
    finally:
        _collector.refs = outer
    return _copied(data, buffers, refs, large=large)


def pack_code(target: Any, name: str) -> tuple[bytes, Sequence[Any]]:
    """A function or class by value, and the references it captured. Raises NotSerializable."""
    import cloudpickle

    refs: list[Any] = []
    outer, _collector.refs = _collector.refs, refs
    try:
        data: bytes = cloudpickle.dumps(target, protocol=5)
    except Exception as error:
        raise NotSerializable(_complaint(target, name, error)) from error
    finally:
        _collector.refs = outer
    if outer is not None:
        outer.extend(refs)
    return data, refs


def pack_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], what: Callable[[], str], *, large: int = 0
) -> Packed:
    """Serialize ``(args, kwargs)``, as ``pack`` does."""
    if not kwargs:
        if not args:
            return Packed(NO_ARGUMENTS, (), ())
        for arg in args:
            if type(arg) not in SIMPLE:
                break
        else:
            return _copied(pickle.dumps((args, kwargs), 5), (), (), large=large)
    return pack((args, kwargs), what, large=large)


def gathered(data: bytes | Held, buffers: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
    """The pickle and its buffers, wherever they are: see ``messages.Value``."""
    if not isinstance(data, bytes):
        buffers = data.parts()
    elif data or not buffers:
        return data, buffers
    return buffers[0], buffers[1:]


def unpack(data: bytes | Held, buffers: Sequence[Any] = ()) -> Any:
    """The value; arrays come back read-only and without a copy."""
    if not data or type(data) is not bytes:
        data, buffers = gathered(data, buffers)
    if not buffers:
        return openers.value(data)
    return openers.value(data, buffers=_read_only(buffers))


def unpack_code(blob: bytes) -> Any:
    """A function or class, whose maker is trusted: opening it runs what it says."""
    return pickle.loads(blob)


def unpack_arguments(
    data: bytes | Held, buffers: Sequence[Any], deps: Sequence[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``(args, kwargs)`` with each placeholder replaced by its value."""
    if data == NO_ARGUMENTS and not buffers:
        return (), {}
    if not data or type(data) is not bytes:
        data, buffers = gathered(data, buffers)
    if buffers:
        args, kwargs = openers.arguments(data, buffers=_read_only(buffers))
    else:
        args, kwargs = openers.arguments(data)
    if deps:
        args = tuple(deps[a.index] if type(a) is Placeholder else a for a in args)
        kwargs = {k: deps[v.index] if type(v) is Placeholder else v for k, v in kwargs.items()}
    return args, kwargs


def _read_only(buffers: Sequence[Any]) -> list[memoryview]:
    return [memoryview(buffer).toreadonly() for buffer in buffers]


# --- errors --------------------------------------------------------------------------------------


class RemoteFailure:
    """A user's exception on its way: the exception if it can be pickled, and its traceback text."""

    __slots__ = ("cause", "text", "where")

    def __init__(self, cause: bytes, text: str, where: str) -> None:
        self.cause = cause
        self.text = text
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFailure, (self.cause, self.text, self.where)

    def original(self) -> BaseException | None:
        """The exception itself, or None where this side cannot rebuild it."""
        if not self.cause:
            return None
        try:
            error = openers.error(self.cause)
        except Exception:
            # Its module may be missing here; the text still tells everything.
            return None
        return error if isinstance(error, BaseException) else None


def pack_error(error: BaseException, where: str) -> bytes:
    """Any exception as bytes. Our own errors travel as they are, the user's as RemoteFailure."""
    if isinstance(error, GuactorsError) and not isinstance(error, TaskError):
        return pickle.dumps(error, 5)
    if isinstance(error, TaskError) and error.cause is not None:
        text = f"{error.remote_traceback}\n\nwhich reached {where}"
        error = error.cause
    else:
        trace = error.__traceback__
        # The first frame is the worker's own call of the user's code.
        if trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    try:
        import cloudpickle

        cause = cloudpickle.dumps(error, protocol=5)
        pickle.loads(cause)
    except Exception:
        # An exception that cannot travel is described instead of replaced by another one.
        cause = b""
    return pickle.dumps(RemoteFailure(cause, text, where), 5)


def unpack_error(data: bytes | Held) -> BaseException:
    """The exception to raise for an error value."""
    try:
        error = openers.error(gathered(data, ())[0])
    except PermissionDenied as refusal:
        return refusal
    if isinstance(error, RemoteFailure):
        return _as_task_error(error)
    if isinstance(error, BaseException):
        return error
    return TaskError(f"unreadable error of type {type(error).__name__}")


def _as_task_error(failure: RemoteFailure) -> TaskError:
    """A TaskError that is also an instance of the original type, where that can be subclassed."""
    cause = failure.original()
    message = f"{failure.where} raised\n\n{failure.text}"
    if cause is None or not isinstance(cause, Exception):
        error: TaskError = TaskError(message)
    else:
        kind = _dual(type(cause))
        error = kind.__new__(kind)
        error.__dict__.update(vars(cause))
        error.args = cause.args
    error.cause = cause
    error.remote_traceback = failure.text
    error.__dict__["_message"] = message
    return error


_duals: dict[type, type[TaskError]] = {}


def _dual(kind: type[BaseException]) -> type[TaskError]:
    made = _duals.get(kind)
    if made is None:
        body = {
            "__module__": kind.__module__,
            "__str__": lambda self: self._message,
            "__reduce__": lambda self: (_rebuild, (self.cause, self.remote_traceback)),
        }
        try:
            made = type(kind.__name__, (TaskError, kind), body)
            made.__new__(made)
        except TypeError:
            made = type("TaskError", (TaskError,), body)
        _duals[kind] = made
    return made


def _rebuild(cause: BaseException, text: str) -> BaseException:
    import cloudpickle

    return _as_task_error(RemoteFailure(cloudpickle.dumps(cause), text, "it"))


def error_name(kind: type[BaseException]) -> str:
    """An exception type as a text."""
    return f"{kind.__module__}:{kind.__qualname__}"


def retriable(data: bytes, wanted: bool | Iterable[type[BaseException] | str]) -> bool:
    """Whether a user's error is one of ``wanted`` (True: any), types or their names."""
    try:
        error = openers.error(data)
    except PermissionDenied:
        return False
    if not isinstance(error, RemoteFailure):
        return False
    if wanted is True:
        return True
    cause = error.original()
    if cause is None or wanted is False:
        return False
    names = {error_name(kind) for kind in type(cause).__mro__ if issubclass(kind, BaseException)}
    return any(one in names if isinstance(one, str) else isinstance(cause, one) for one in wanted)


# --- complaints ----------------------------------------------------------------------------------


def _complaint(value: Any, what: str, error: Exception) -> str:
    path, culprit = _find_culprit(value, what, 0)
    return (
        f"{path} cannot be pickled: {type(culprit).__name__} object "
        f"({type(error).__name__}: {error}). Create it inside the function, or leave it out."
    )


def _find_culprit(value: Any, path: str, depth: int) -> tuple[str, Any]:
    """The innermost part that does not pickle, and the way to it."""
    if depth < 8:
        for name, part in _parts(value):
            if not _pickles(part):
                return _find_culprit(part, path + name, depth + 1)
    return path, value


def _pickles(value: Any) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value, protocol=5)
    except Exception:
        return False
    return True


def _parts(value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield f"[{i}]", part
    elif isinstance(value, dict):
        for key, part in value.items():
            yield f"[{key!r}]", part
    elif callable(value) and getattr(value, "__closure__", None):
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__, strict=True):
            yield f" closes over {name}", cell.cell_contents
    if callable(value) and hasattr(value, "__code__"):
        for name in value.__code__.co_names:
            if name in value.__globals__:
                yield f" uses global {name}", value.__globals__[name]
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        for name, part in vars(value).items():
            yield f".{name}", part
