"""``@remote`` functions.

Owns: turning a call's Python arguments into a Task. Must never: know how it is sent.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guactors import values
from guactors.assigned import placed
from guactors.caller.tasks import GATHERED, STREAM, Stillness, Task
from guactors.messages import Define
from guactors.objects.base import LARGE
from guactors.options import (
    TASK,
    check_options,
    max_calls_of,
    raises_of,
    shape_in,
    shape_of,
    window_of,
)
from guactors.payload import PROGRAM
from guactors.refs import ObjectRef, ObjectRefGenerator, check_session
from guactors.security.code_signing import signatures_for
from guactors.values import Packed, Placeholder

if TYPE_CHECKING:
    from guactors.session import Session

DEFAULT_RETRIES = 3
KINDS: Mapping[Any, int] = {"streaming": STREAM, "dynamic": GATHERED}
"""Words that ``num_returns`` may be."""


def function_id(blob: bytes, max_calls: int = 0) -> bytes:
    """The name of a pickled function or class; with another ``max_calls`` it is another one."""
    salt = max_calls.to_bytes(16, "little")
    return hashlib.blake2b(blob, digest_size=16, salt=salt).digest()


def pack_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: str, *, large: int = LARGE
) -> tuple[Packed, list[ObjectRef]]:
    """Serialized arguments, from ``large`` bytes (0: never) in shared memory, and the
    references that are arguments themselves."""
    deps: list[ObjectRef] = []

    def what() -> str:
        return f"arguments of {name}: "

    for arg in args:
        if type(arg) is ObjectRef:
            break
    else:
        if not kwargs or not any(type(v) is ObjectRef for v in kwargs.values()):
            return values.pack_arguments(args, kwargs, what, large=large), deps

    def stand_in(arg: Any) -> Any:
        if type(arg) is not ObjectRef:
            return arg
        deps.append(arg)
        return Placeholder(len(deps) - 1)

    args = tuple(stand_in(arg) for arg in args)
    kwargs = {key: stand_in(arg) for key, arg in kwargs.items()}
    return values.pack_arguments(args, kwargs, what, large=large), deps


def numbers(deps: list[ObjectRef], session: Session) -> list[int]:
    """Of references that are arguments. Raises SessionClosed for those of another session."""
    for ref in deps:
        check_session(ref, session)
    return [ref.id for ref in deps]


def submit(
    session: Session,
    home: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    returns: int,
    name: str,
    fn: bytes = b"",
    method: str = "",
    priority: int = 0,
    timeout: float | None = None,
    deadline: float | None = None,
    retries: int = 0,
    retry_errors: object = None,
    group: str = "",
    events: bool = True,
    window: int = 0,
    raises: bool = False,
    counts: bool = True,
    goes_on: bool = False,
) -> Any:
    """Send one call; its ref, list of refs, generator, or None, by ``returns``. ``raises`` and
    ``counts``: see Stillness."""
    if returns == 1 and events and not (args or kwargs or timeout or deadline or group or raises):
        id = session.submit_plain(home, fn, method, name, priority, retries, retry_errors)
        return ObjectRef(id, session)
    packed, deps = pack_call(args, kwargs, name)
    now = time.monotonic()
    with session.lock:
        id = session.new_ids(returns)
        task = Task(
            id,
            fn=fn,
            method=method,
            name=name,
            args=packed.data,
            buffers=packed.buffers,
            deps=numbers(deps, session) if deps else (),
            lent=[ref.id for ref in packed.refs] if packed.refs else (),
            returns=STREAM if returns == GATHERED else returns,
            gather=returns == GATHERED,
            priority=priority,
            deadline=now + timeout if timeout else 0.0,
            due=now + deadline if deadline else 0.0,
            retries=retries,
            retry_errors=retry_errors,
            group=group,
            events=events,
            window=window,
            stillness=None if counts and not raises else Stillness(raises, counts),
            goes_on=goes_on,
        )
        session.submit(home, task)
    return _given(session, id, returns)


def _given(session: Session, id: int, returns: int) -> Any:
    """What the caller gets for a call."""
    if returns in (1, GATHERED):
        return ObjectRef(id, session)
    if returns == STREAM:
        return ObjectRefGenerator(id, session)
    if returns == 0:
        session.released.append(id)
        return None
    refs = [ObjectRef(id + i, session) for i in range(returns)]
    for ref in refs[1:]:
        ref._call = id
    return refs


def returns_of(target: Callable[..., Any], options: Mapping[str, Any]) -> int:
    """Number of results; generators stream unless told otherwise."""
    given = options.get("num_returns")
    if given is not None:
        return KINDS.get(given, given)
    streams = inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target)
    return STREAM if streams else 1


class RemoteFunction:
    """A function that runs elsewhere: ``f.remote(...)``. ``f.options(...)`` is a copy with other
    options; ``f.local(...)`` runs it here."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self._function = function
        self._options = check_options(options, TASK)
        own = getattr(function, "__qualname__", type(function).__name__)
        self._name = str(self._options.get("name") or own)
        self._returns = returns_of(function, self._options)
        self._window = window_of(self._options, streams=self._returns == STREAM, whose=self._name)
        self._max_calls = max_calls_of(self._options)
        self._shape = shape_of(self._options, 1.0)
        self._timeout = self._options.get("timeout")
        self._raises = bool(raises_of(self._options))
        self._counts = self._options.get("count_suspended", True)
        self._deadline = self._options.get("deadline")
        self._retries = self._options.get("max_retries", DEFAULT_RETRIES)
        self._retry_errors = self._options.get("retry_exceptions") or None
        self._events = self._options.get("enable_task_events", True)
        self._blob: bytes | None = None
        self._captured: Sequence[ObjectRef] = ()
        self._fn = b""
        self._home: tuple[Session, Any] | None = None
        functools.update_wrapper(self, function)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{self._name} is a remote function: call {self._name}.remote(...), or "
            f"{self._name}.local(...) to run it in this process"
        )

    def local(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run it here and now."""
        return self._function(*args, **kwargs)

    def options(self, **options: Any) -> RemoteFunction:
        """A copy with other options."""
        other = RemoteFunction(self._function, {**self._options, **options})
        other._blob, other._captured = self._blob, self._captured
        if self._fn == PROGRAM or other._max_calls == self._max_calls:
            other._fn = self._fn
        return other

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Submit a call; returns its ref (list of refs, generator, or None by num_returns)."""
        from guactors.api import auto_init

        session = auto_init()
        return submit(
            session,
            self._demand(session),
            args,
            kwargs,
            returns=self._returns,
            name=self._name,
            fn=self._fn,
            timeout=self._timeout,
            deadline=self._deadline,
            retries=self._retries,
            retry_errors=self._retry_errors,
            events=self._events,
            window=self._window,
            raises=self._raises,
            counts=self._counts,
            goes_on=self._options.get("_generator_goes_on", False),
        )

    def _demand(self, session: Session) -> Any:
        home = self._home
        if home is not None and home[0] is session:
            return home[1]
        if self._blob is None:
            self._blob, self._captured = values.pack_code(self._function, self._name)
        blob = self._blob
        self._fn = self._fn or function_id(blob, self._max_calls)
        signatures = signatures_for(session, session.code_signers, "function", blob)
        shape = shape_in(session.terms, self._options, 1.0) if session.terms else self._shape
        shape = session.environments.shape(shape, self._options.get("runtime_env"))
        with session.lock:
            session.core.blobs[self._fn] = Define(
                self._fn, self._name[:256], blob, signatures, self._max_calls
            )
            if self._captured:
                session.values.capture(self._fn, self._captured)
            demand = session.core.demand(placed(shape, self._options))
        self._home = (session, demand)
        return demand

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._options)

    def __repr__(self) -> str:
        return f"<remote function {self._name}>"


def image_program(options: Mapping[str, Any]) -> RemoteFunction:
    """A program of an image, as a function without code: ``.remote(argv, env, cwd)`` streams what
    ``runtimes/program.run_program`` yields. ``argv[0]`` and ``cwd`` are paths inside the image that
    ``options`` name with the runtime ``native``; the worker finds and checks them."""
    from guactors.runtimes.program import run_program

    program = RemoteFunction(run_program, {"_generator_goes_on": True, **options})
    program._blob, program._fn = b"", PROGRAM
    return program
