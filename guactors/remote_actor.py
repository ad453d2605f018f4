"""``@remote`` classes: making actors, handles, and calling their methods.

Owns: the user's view of an actor. Must never: know where it lives or how it is restarted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from guactors import values
from guactors.caller.tasks import STREAM
from guactors.errors import NameTaken, NoSuchActor, NotInitialized, UsageError
from guactors.ids import fresh
from guactors.messages import ActorSpec, FindActor
from guactors.options import ACTOR, METHOD, check_options, shape_of
from guactors.payload import (
    ActorPayload,
    HandleInfo,
    MethodInfo,
    RawValue,
    decode_handle,
    encode,
)
from guactors.refs import current_session
from guactors.remote_function import pack_call, returns_of, submit
from guactors.security.code_signing import signatures_for

if TYPE_CHECKING:
    from guactors.caller.actors import RemoteActor
    from guactors.session import Session

DEFAULT_ASYNC_CONCURRENCY = 1000
_METHOD_OPTIONS = "__guactors_method__"


def method(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Default options of one method: ``@method(num_returns=2)``."""
    checked = check_options(options, METHOD)

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        setattr(function, _METHOD_OPTIONS, checked)
        return function

    return mark


def _methods_of(cls: type) -> dict[str, MethodInfo]:
    methods = {}
    for name, function in inspect.getmembers(cls, callable):
        if name.startswith("__") and name != "__call__":
            continue
        options = getattr(function, _METHOD_OPTIONS, {})
        methods[name] = MethodInfo(
            returns_of(function, options),
            options.get("max_task_retries"),
            options.get("timeout"),
            options.get("priority", 0),
        )
    return methods


def is_async_class(cls: type) -> bool:
    """Whether any method is a coroutine or async generator: then all run on one event loop."""
    return any(
        inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f)
        for name, f in inspect.getmembers(cls, inspect.isfunction)
    )


class ActorClass:
    """A class whose instances live elsewhere: ``C.remote(...)`` makes one and returns its
    handle."""

    def __init__(self, cls: type, options: Mapping[str, Any]) -> None:
        self._cls = cls
        self._options = check_options(options, ACTOR)
        self._methods = _methods_of(cls)
        self._blob: bytes | None = None
        self.__doc__ = cls.__doc__
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        name = self.__name__
        raise TypeError(f"{name} is a remote class: make an actor with {name}.remote(...)")

    def options(self, **options: Any) -> ActorClass:
        """A copy with other options."""
        other = ActorClass(self._cls, {**self._options, **options})
        other._blob = self._blob
        return other

    def remote(self, /, *args: Any, **kwargs: Any) -> ActorHandle:
        """Make an actor. Raises NameTaken when a live one has its name."""
        from guactors.api import auto_init

        session = auto_init()
        name = self._options.get("name") or ""
        if name and self._options.get("get_if_exists"):
            try:
                return find_actor(session, name, self._options.get("namespace"))
            except NoSuchActor:
                pass  # make it
        try:
            return self._create(session, name, args, kwargs)
        except NameTaken:
            if self._options.get("get_if_exists"):
                return find_actor(session, name, self._options.get("namespace"))
            raise

    def _create(
        self, session: Session, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ActorHandle:
        options = self._options
        detached = options.get("lifetime") == "detached"
        if detached and not name:
            raise UsageError(f"a detached {self.__name__} needs name=, or nobody could find it")
        if self._blob is None:
            self._blob = values.pack_code(self._cls, self.__qualname__)
        blob = self._blob
        signatures = signatures_for(session, session.code_signers, "class", blob)
        info = HandleInfo(self.__name__, self._methods, options.get("max_task_retries", 0))
        concurrency = options.get("max_concurrency") or (
            DEFAULT_ASYNC_CONCURRENCY if is_async_class(self._cls) else 1
        )
        packed, deps = pack_call(args, kwargs, f"{self.__name__}()", large=0)
        if packed.refs:
            raise UsageError(
                f"{self.__name__}(): a reference inside a container cannot be a constructor "
                "argument, because the actor may be restarted without this process; pass it as "
                "an argument of its own, or to a method"
            )
        shape = shape_of(options, 0.0)
        spec = ActorSpec(
            fresh("actor"),
            session.id,
            session.peer,
            self.__name__[:256],
            shape,
            {} if "num_cpus" in options else {"CPU": 1.0},
            name,
            options.get("namespace") or session.namespace,
            detached,
            options.get("max_restarts", 0),
            concurrency,
            encode(info),
        )
        actor = session.actors.add(spec)

        def create() -> None:
            # Values, not references: a restart must find them in the payload.
            deps_raw = [RawValue(*session.values.raw(ref.id)) for ref in deps]
            buffers = [bytes(buffer) for buffer in packed.buffers]
            data, _ = values.gathered(packed.data, ())
            payload = encode(ActorPayload(blob, bytes(data), buffers, deps_raw))
            session.actors.create(actor, spec, payload, signatures, wait=bool(name))

        session.values.when_ready([ref.id for ref in deps], create)
        return ActorHandle(session, actor, info, owner=not detached)

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._cls, self._options)

    def __repr__(self) -> str:
        return f"<remote class {self.__name__}>"


class ActorHandle:
    """An actor as its users see it; every method of the class has ``.remote(...)``."""

    def __init__(
        self, session: Session, actor: RemoteActor, info: HandleInfo, *, owner: bool
    ) -> None:
        self._session = session
        self._actor = actor
        self._info = info
        self._owner = owner
        actor.handles += 1

    def __getattr__(self, name: str) -> ActorMethod:
        info = self._info.methods.get(name)
        if info is None and name == "__ray_terminate__":
            info = MethodInfo(1, None, None, 0)
        if info is None:
            raise AttributeError(f"actor {self._info.class_name} has no method {name!r}")
        made = ActorMethod(self, name, info, {})
        # Found as a plain attribute from the next call on.
        self.__dict__[name] = made
        return made

    def __del__(self) -> None:
        # The last handle of the process that made the actor ends it, after its queued calls.
        self._actor.handles -= 1
        if self._owner and self._actor.handles == 0 and not self._session.closed:
            self._session.actors.handle_gone(self._actor)

    def __reduce__(self) -> tuple[Any, ...]:
        self._session.actors.share(self._actor)
        return _rebuild_handle, (self._actor.id, encode(self._info))

    def __guactors_kill__(self, no_restart: bool) -> None:
        self._session.actors.kill(self._actor, no_restart=no_restart)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._actor.id == self._actor.id

    def __hash__(self) -> int:
        return hash(self._actor.id)

    def __repr__(self) -> str:
        return f"Actor({self._info.class_name}, {self._actor.id})"


def _rebuild_handle(id: str, info: bytes) -> ActorHandle:
    session = current_session()
    if session is None:
        raise NotInitialized("an actor handle can only be unpickled where init() was called")
    known = decode_handle(info)
    actor = session.actors.watch(id, known.class_name)
    return ActorHandle(session, actor, known, owner=False)


class ActorMethod:
    """One method of one actor: ``handle.method.remote(...)``."""

    __slots__ = ("_actor", "_handle", "_info", "_label", "_name", "_options", "_retries")

    def __init__(
        self, handle: ActorHandle, name: str, info: MethodInfo, options: Mapping[str, Any]
    ) -> None:
        import weakref

        # Weak, because the handle keeps its methods: a cycle would delay the handle's end.
        self._handle: Any = weakref.ref(handle)
        self._actor = handle._actor
        self._name = name
        self._info = info
        self._options = options
        self._label = options.get("name") or f"{handle._info.class_name}.{name}"
        retries = options.get("max_task_retries", info.retries)
        self._retries = handle._info.retries if retries is None else retries

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self._label} runs elsewhere: call {self._label}.remote(...)")

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options."""
        handle = self._handle()
        checked = check_options({**self._options, **options}, METHOD)
        made = ActorMethod(handle, self._name, self._info, checked)
        # A copy is not kept by the handle, so it may keep the handle.
        made._handle = lambda: handle
        return made

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Submit a call; calls of one caller run in order unless the actor is concurrent."""
        info, options = self._info, self._options
        session = current_session()
        if session is None:
            raise NotInitialized(f"{self._label}: the session has ended; call init() again")
        if not options:
            return submit(
                session,
                self._actor,
                args,
                kwargs,
                returns=info.returns,
                name=self._label,
                method=self._name,
                priority=info.priority,
                timeout=info.timeout,
                retries=self._retries,
            )
        given = options.get("num_returns", info.returns)
        return submit(
            session,
            self._actor,
            args,
            kwargs,
            returns=STREAM if given == "streaming" else given,
            name=self._label,
            method=self._name,
            priority=options.get("priority", info.priority),
            timeout=options.get("timeout", info.timeout),
            retries=self._retries,
            retry_errors=options.get("retry_exceptions") or None,
        )

    def __repr__(self) -> str:
        return f"<method {self._label}>"


def find_actor(session: Session, name: str, namespace: str | None) -> ActorHandle:
    """The live actor of that name. Raises NoSuchActor."""
    where = namespace or session.namespace
    try:
        found = session.ask(lambda request: FindActor(request, name, where))
    except UsageError as error:
        raise NoSuchActor(str(error)) from None
    actor = session.actors.watch(found.spec.actor, found.spec.class_name)
    return ActorHandle(session, actor, decode_handle(found.spec.handle), owner=False)
