"""One call from bytes to bytes: find the code, open the arguments, run it, close the result.

Owns: the function table and the translation of user exceptions. Must never: touch a socket or a
lock, let an exception out of ``run`` other than those that end a process, or open code before
:class:`~guactors.worker.trust.Trust` was asked.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from guactors import values
from guactors.context import ActorExit, Running, running
from guactors.errors import CallTimeout, GuactorsError, ObjectLost, TaskCancelled, VersionMismatch
from guactors.messages import Bind, Call, Define, LoadActor, RefWord, Reply, Stored, Value
from guactors.objects import process
from guactors.objects.base import Held
from guactors.payload import DEPLOYMENT, PROGRAM
from guactors.transport.base import Frame
from guactors.values import Packed
from guactors.worker.intake import Item
from guactors.worker.trust import CLASS, FUNCTION, Trust

if TYPE_CHECKING:
    from guactors.worker.enclosed import Enclosed
    from guactors.worker.sharing import Sharing

Outcome = tuple[Reply, Sequence[Frame]]
Borrow = Callable[[str, Sequence[RefWord]], None]
"""Takes over what the caller behind a link has lent."""


def _terminate(_instance: Any) -> None:
    raise ActorExit(0)


def _ready(_instance: Any) -> bool:
    return True


def _call(instance: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(instance, *args, **kwargs)


BUILT_IN: dict[str, Callable[..., Any]] = {
    "__ray_call__": _call,
    "__ray_ready__": _ready,
    "__ray_terminate__": _terminate,
}
"""Methods that every actor has."""


class Lender(Protocol):
    """What a result needs on its way to its caller; the worker has it."""

    sharing: Sharing

    def lend(self, link: str, refs: Sequence[Any]) -> list[RefWord]:
        """Lend the references inside the result."""


class Interrupted(KeyboardInterrupt):
    """Raised in the running call when it is cancelled."""


class Code:
    """Functions by id, checked and opened at their first call; or the methods of one actor.

    ``expelled``: links whose calls run no more."""

    def __init__(
        self, trust: Trust, expelled: Collection[str] = (), borrow: Borrow = lambda _, __: None
    ) -> None:
        self.trust = trust
        self._borrow = borrow
        self._lenders: dict[bytes, str] = {}
        self.expelled = expelled
        self._blobs: dict[bytes, Define] = {}
        self._functions: dict[bytes, Callable[..., Any]] = {}
        self._names: dict[bytes | str, str] = {}
        self.runs_left: dict[bytes, int] = {}
        """Of functions that may run only so often in one process."""
        self.instance: Any = None
        self.enclosed: Enclosed | None = None
        """Where it runs when that is not this process."""
        self.label = ""
        """The class of an actor that is not in this process."""
        self.prepare: Callable[[], None] = lambda: None
        """Called before code is opened. Raises RuntimeEnvSetupError."""

    def define(self, message: Define, link: str = "") -> None:
        """A function as the caller behind the link sent it."""
        self._blobs[message.fn] = message
        if message.refs:
            # Those of an earlier caller may be worth nothing when that has gone.
            self._lenders[message.fn] = link
            self._functions.pop(message.fn, None)
        if message.max_calls:
            self.runs_left.setdefault(message.fn, message.max_calls)
        self._names[message.fn] = message.name

    def bind(self, message: Bind) -> None:
        """The session and its rules; functions that were opened are checked again."""
        self.trust.bind(message)
        self._functions.clear()

    def name(self, call: Call) -> str:
        """What to call it in logs and errors."""
        name = self._names.get(call.fn or call.method)
        if name is None:
            if call.fn:
                return call.fn.hex()
            name = self._names[call.method] = (
                f"{self.label or type(self.instance).__name__}.{call.method}"
            )
        return name

    def wear(self, fn: bytes) -> bool:
        """The function has run once more; whether that was the last time."""
        left = self.runs_left.get(fn)
        if left is None:
            return False
        self.runs_left[fn] = left - 1
        return left <= 1

    def find(self, call: Call) -> Callable[..., Any]:
        """The function or bound method. Raises PermissionDenied where it is not allowed, and what
        opening it raises."""
        if not call.fn:
            if self.trust.strict and call.method not in BUILT_IN:
                self.trust.check_method(self.instance, call.method)
            try:
                return getattr(self.instance, call.method)  # type: ignore[no-any-return]
            except AttributeError:
                if call.method not in BUILT_IN:
                    raise
            return partial(BUILT_IN[call.method], self.instance)
        function = self._functions.get(call.fn)
        if function is None:
            function = self._functions[call.fn] = self._open(call.fn)
        return function

    def _open(self, fn: bytes) -> Callable[..., Any]:
        if fn == PROGRAM:
            return self.trust.program()
        self.prepare()
        found = self.blob(fn)
        self.trust.check_code(FUNCTION, found.name, found.blob, found.signatures)
        if found.refs:
            self.borrow(fn)
        return open_code(found.blob, found.name)  # type: ignore[no-any-return]

    def blob(self, fn: bytes) -> Define:
        """A function as it was sent, unopened. Raises GuactorsError."""
        found = self._blobs.get(fn)
        if found is None:
            raise GuactorsError(f"function {fn.hex()} was never sent to this worker")
        return found

    def borrow(self, fn: bytes) -> None:
        """Take over the references that the function captured."""
        self._borrow(self._lenders[fn], self._blobs[fn].refs)

    def open_class(self, message: LoadActor, blob: bytes) -> Any:
        """The class of an actor, checked and opened. Raises as ``find`` does."""
        if blob == DEPLOYMENT:
            return self.trust.deployment()
        self.prepare()
        name = message.spec.class_name
        self.trust.check_code(CLASS, name, blob, message.signatures)
        return open_code(blob, f"{name}()")


def open_code(blob: bytes, name: str) -> Any:
    """Unpickle a function or class. Raises VersionMismatch or ImportError that name the cause."""
    try:
        return values.unpack_code(blob)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name} needs module {error.name!r}, which this provider does not have: install it "
            "there, or import it where both sides find it",
            name=error.name,
        ) from error
    except (TypeError, ValueError, SystemError) as error:
        raise VersionMismatch(
            f"{name} cannot be opened here ({error}); caller and provider may run different "
            "Python versions"
        ) from error


def arguments(item: Item) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call's arguments, dependencies in their places; raises a failed dependency's error, and
    ObjectLost."""
    call = item.call
    if not (call.deps or call.stored):
        return values.unpack_arguments(call.args, item.buffers, ())
    position = call.buffers
    deps = []
    for dep in call.deps:
        end = position + dep.buffers
        if dep.error:
            raise values.unpack_error(dep.data)
        deps.append(values.unpack(found(dep.data, dep.stored, item), item.buffers[position:end]))
        position = end
    args = found(call.args, call.stored, item)
    return values.unpack_arguments(args, item.buffers[: call.buffers], deps)


def found(data: bytes, stored: Stored | None, item: Item) -> bytes | Held:
    """A value that came with the call, wherever it is. Raises ObjectLost."""
    if stored is None:
        return data
    try:
        return process.store().attach(stored)
    except ObjectLost:
        item.missing = True
        raise


def split(result: Any, returns: int, name: str) -> Sequence[Any]:
    """The results of a call with several. Raises ValueError when their number is wrong."""
    if returns == 1:
        return (result,)
    if returns == 0:
        return (None,)
    if is_stream(result):
        # One more than asked for is enough to know that there are too many.
        result = list(islice(result, returns + 1))
    if not isinstance(result, tuple | list) or len(result) != returns:
        got = f"{len(result)} values" if isinstance(result, tuple | list) else repr(type(result))
        raise ValueError(f"{name} has num_returns={returns} but returned {got}")
    return result


def success(item: Item, result: Any, name: str, lender: Lender) -> Outcome:
    """A finished call's reply; results that do not pickle make it a failed one."""
    call = item.call
    if type(result) in values.SIMPLE and call.returns == 1 and type(result) is not bytes:
        return Reply(call.id, [Value(pickle.dumps(result, 5))], call.attempt), ()
    large = lender.sharing.from_size(item.link)
    packed: list[Packed] = []
    try:
        for i, part in enumerate(split(result, call.returns, name)):
            which = f" [{i}]" if call.returns > 1 else ""
            what = f"the result of {name}{which}"
            packed.append(values.pack(part, lambda: what, large=large))  # noqa: B023
    except Exception as error:
        return failure(item, error, name)
    buffers: list[Frame] = []
    for one in packed:
        buffers.extend(one.buffers)
    return Reply(
        call.id, [to_value(one, item.link, lender) for one in packed], call.attempt
    ), buffers


def to_value(packed: Packed, link: str, lender: Lender) -> Value:
    """A packed value on its way to ``link``, its references lent."""
    refs = lender.lend(link, packed.refs) if packed.refs else []
    data = packed.data
    if isinstance(data, bytes):
        return Value(data, len(packed.buffers), False, refs)
    return Value(b"", 0, False, refs, lender.sharing.give(data, link))


def failure(item: Item, error: BaseException, name: str) -> Outcome:
    """A failed call's reply."""
    if isinstance(error, KeyboardInterrupt) and item.cancelled:
        error = ended_early(item, name)
    data = values.pack_error(error, name)
    fault = type(error).__name__[:256]
    value = Value(data, 0, True)
    return Reply(item.call.id, [value], item.call.attempt, fault, item.missing), ()


def start(code: Code, item: Item) -> Any:
    """Call the user's code; what it returns or raises."""
    if code.expelled and item.link in code.expelled:
        raise TaskCancelled("its caller may call here no more")
    function = code.find(item.call)
    args, kwargs = arguments(item)
    return function(*args, **kwargs)


def too_late(item: Item, name: str) -> Outcome:
    """The reply of a call whose time was over before it could start."""
    error = CallTimeout(f"{name} was still queued when its timeout passed; it never ran")
    return failure(item, error, name)


def ended_early(call: Running, name: str) -> GuactorsError:
    """Why a call that was told to end did."""
    if call.timed_out:
        return CallTimeout(f"{name} did not finish within its timeout")
    return TaskCancelled(f"{name} was cancelled")


def enter(item: Item, name: str) -> None:
    """The call becomes the running one of this thread or task."""
    item.name = name
    running.set(item)


def is_stream(result: Any) -> bool:
    """Whether a streaming call gave something to iterate over."""
    return inspect.isgenerator(result) or hasattr(result, "__next__")
