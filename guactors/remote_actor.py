"""``@remote`` classes: making actors, handles, and calling their methods.

Owns: the user's view of an actor. Must never: know where it lives or how it is restarted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from guactors import values
from guactors.actor_making import Parts, make_actor
from guactors.assigned import placed
from guactors.caller.tasks import STREAM
from guactors.errors import NameTaken, NoSuchActor, NotInitialized, SessionClosed, UsageError
from guactors.ids import fresh
from guactors.messages import ActorSpec, FindActor
from guactors.options import (
    ACTOR,
    METHOD,
    Concurrency,
    check_group,
    check_options,
    concurrency_of,
    raises_of,
    shape_in,
    tighter,
    window_of,
)
from guactors.payload import (
    DEPLOYMENT,
    HandleInfo,
    MethodInfo,
    decode_handle,
    encode,
)
from guactors.refs import ObjectRef, current_session
from guactors.remote_function import KINDS, numbers, pack_call, returns_of, submit
from guactors.security.code_signing import signatures_for

if TYPE_CHECKING:
    from guactors.caller.actors import RemoteActor
    from guactors.session import Session

_METHOD_OPTIONS = "__guactors_method__"
_STATE_METHODS = ("__checkpoint__", "__restore__")
_BUILT_IN = frozenset({"__ray_call__", "__ray_ready__", "__ray_terminate__"})
"""Methods that every actor has; see ``worker/execution``."""


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
        returns = returns_of(function, options)
        whose = f"{cls.__name__}.{name}"
        methods[name] = MethodInfo(
            returns,
            options.get("max_task_retries"),
            options.get("timeout"),
            options.get("priority", 0),
            options.get("concurrency_group") or "",
            _error_names(options.get("retry_exceptions", False)),
            options.get("enable_task_events"),
            window_of(options, streams=returns == STREAM, whose=whose),
            raises_of(options),
            options.get("count_suspended", True),
            options.get("deadline"),
        )
    return methods


def _error_names(wanted: Any) -> bool | list[str]:
    """Exception types as a handle carries them, which may not bring pickles."""
    return wanted if isinstance(wanted, bool) else [values.error_name(kind) for kind in wanted]


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
        self._captured: Sequence[ObjectRef] = ()
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
        other._blob, other._captured = self._blob, self._captured
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

    def _info(self, concurrency: Concurrency) -> HandleInfo:
        """What every handle of the actor is to know."""
        options = self._options
        return HandleInfo(
            self.__name__,
            self._methods,
            options.get("max_task_retries", 0),
            concurrency.unordered,
            options.get("max_pending_calls", -1),
            list(concurrency.groups),
            options.get("enable_task_events", True),
            max(0, options.get("_actor_generator_backpressure_num_objects", -1)),
            bool(raises_of(options)),
        )

    def _create(
        self, session: Session, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ActorHandle:
        options = self._options
        detached = options.get("lifetime") == "detached"
        if detached and not name:
            raise UsageError(f"a detached {self.__name__} needs name=, or nobody could find it")
        if self._blob is None:
            self._blob, self._captured = values.pack_code(self._cls, self.__qualname__)
        blob = self._blob
        signatures = signatures_for(session, session.code_signers, "class", blob)
        concurrency = concurrency_of(
            options,
            is_async=is_async_class(self._cls),
            used={name: method.group for name, method in self._methods.items()},
        )
        info = self._info(concurrency)
        packed, deps = pack_call(args, kwargs, f"{self.__name__}()", large=0)
        numbers(deps, session)  # which looks whose they are
        shape = placed(shape_in(session.terms, options, 0.0), options)
        shape = session.environments.shape(shape, options.get("runtime_env"))
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
            concurrency.most,
            encode(info),
            checkpoints=_tells_its_state(self._cls, concurrency, options),
        )
        actor = session.actors.add(spec)
        captured = [ref for ref in self._captured if ref._session is session]
        parts = Parts(blob, signatures, packed, deps, captured, concurrency.groups)
        make_actor(session, actor, spec, parts)
        return ActorHandle(session, actor, info, owner=not detached)

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._cls, self._options)

    def __repr__(self) -> str:
        return f"<remote class {self.__name__}>"


def _tells_its_state(cls: type, concurrency: Concurrency, options: Mapping[str, Any]) -> bool:
    """Whether the actor can go on elsewhere with its state: its class has both methods, and it runs
    a call at a time. Raises UsageError where one of the two is missing."""
    there = [name for name in _STATE_METHODS if callable(getattr(cls, name, None))]
    if len(there) == 1:
        (missing,) = set(_STATE_METHODS) - set(there)
        raise UsageError(f"{cls.__name__} has {there[0]}, and no {missing}: it needs both or none")
    apart = concurrency.most > 1 or bool(concurrency.groups)
    python = (options.get("runtime") or "python") == "python"
    return bool(there) and python and not apart


def kept_instance(options: Mapping[str, Any]) -> ActorClass:
    """The actor that workers have themselves, as a class without code: it keeps an instance of the
    ``runtime`` and ``image`` that ``options`` name, see ``worker/deployment``."""
    from guactors.worker.deployment import GROUPS, SHORT, Deployment

    own = {"max_concurrency": SHORT, "concurrency_groups": GROUPS}
    made = ActorClass(Deployment, {**options, **own})
    made._blob = DEPLOYMENT
    return made


class Hold:
    """What keeps an actor alive: the last one of the process that made it ends it, after its queued
    calls. A handle has it, and each of its methods, for ``C.remote().m.remote()`` has a method only
    when the call is made. ``owner``: whether this process made it."""

    __slots__ = ("_actor", "_owner", "_session")

    def __init__(self, session: Session, actor: RemoteActor, *, owner: bool) -> None:
        self._session = session
        self._actor = actor
        self._owner = owner
        actor.handles += 1

    def __del__(self) -> None:
        self._actor.handles -= 1
        if self._owner and self._actor.handles == 0 and not self._session.closed:
            self._session.actors.handle_gone(self._actor)


class ActorHandle:
    """An actor as its users see it; every method of the class has ``.remote(...)``."""

    def __init__(
        self,
        session: Session,
        actor: RemoteActor,
        info: HandleInfo,
        *,
        owner: bool = False,
        hold: Hold | None = None,
    ) -> None:
        self._session = session
        self._actor = actor
        self._info = info
        self._hold = hold or Hold(session, actor, owner=owner)
        self._again = partial(ActorHandle, session, actor, info, hold=self._hold)
        """Another one like it, for a method that outlives it."""
        actor.unordered = info.unordered
        actor.most_pending = info.most_pending

    def __getattr__(self, name: str) -> ActorMethod:
        info = self._info.methods.get(name)
        if info is None and name in _BUILT_IN:
            info = MethodInfo()
        if info is None:
            raise AttributeError(f"actor {self._info.class_name} has no method {name!r}")
        made = ActorMethod(self, name, info, {})
        # Found as a plain attribute from the next call on.
        self.__dict__[name] = made
        return made

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

    __slots__ = (
        "_actor", "_handle", "_how", "_info", "_label", "_name", "_options", "_plain", "_revive",
        "_session",
    )  # fmt: skip

    def __init__(
        self, handle: ActorHandle, name: str, info: MethodInfo, options: Mapping[str, Any]
    ) -> None:
        import weakref

        # Weak, because the handle keeps its methods: a cycle would delay the handle's end.
        self._handle: Any = weakref.ref(handle)
        self._revive = handle._again
        self._session = handle._session
        self._actor = handle._actor
        self._name = name
        self._info = info
        self._options = options
        self._label = options.get("name") or f"{handle._info.class_name}.{name}"
        self._how = how = _how(handle._info, info, options, self._label)
        special = how["timeout"] or how["deadline"] or how["group"] or how["raises"]
        self._plain = how["returns"] == 1 and how["events"] and not special

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self._label} runs elsewhere: call {self._label}.remote(...)")

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options."""
        handle = self._handle() or self._revive()
        checked = check_options({**self._options, **options}, METHOD)
        group = checked.get("concurrency_group")
        if group:
            check_group(group, handle._info.groups, self._label)
        made = ActorMethod(handle, self._name, self._info, checked)
        # A copy is not kept by the handle, so it may keep the handle.
        made._handle = lambda: handle
        return made

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Submit a call; calls of one caller run in order unless the actor is concurrent. Raises
        TooManyPending beyond the actor's ``max_pending_calls``."""
        session = current_session()
        if session is None:
            raise NotInitialized(f"{self._label}: the session has ended; call init() again")
        if session is not self._session:
            raise SessionClosed(
                f"{self._label}: the handle is of a session that has ended; get a new one"
            )
        how = self._how
        if self._plain and not (args or kwargs):
            id = session.submit_plain(
                self._actor, b"", self._name, self._label, how["priority"], how["retries"],
                how["retry_errors"],
            )  # fmt: skip
            return ObjectRef(id, session)
        return submit(
            session, self._actor, args, kwargs, name=self._label, method=self._name, **how
        )

    def submit(self, *args: Any) -> Any:
        """As ``remote``, for a process that has several sessions, of which none is its own."""
        return submit(
            self._session, self._actor, args, {}, name=self._label, method=self._name, **self._how
        )

    def __repr__(self) -> str:
        return f"<method {self._label}>"


def _how(
    actor: HandleInfo, method: MethodInfo, options: Mapping[str, Any], label: str
) -> dict[str, Any]:
    """How to call a method: the call's own options, then the method's, then the actor's."""
    returns = options.get("num_returns", method.returns)
    returns = KINDS.get(returns, returns)
    streams = returns == STREAM
    window = window_of(options, streams=streams, whose=label)
    if "_generator_backpressure_num_objects" not in options:
        window = method.window
    retries = options.get("max_task_retries", method.retries)
    events = options.get("enable_task_events", method.events)
    raises = raises_of(options)
    if raises is None:
        raises = actor.raises if method.raises is None else method.raises
    return {
        "returns": returns,
        "window": tighter(window, actor.window) if streams else 0,
        "priority": options.get("priority", method.priority),
        "timeout": options.get("timeout", method.timeout),
        "deadline": options.get("deadline", method.deadline),
        "retries": actor.retries if retries is None else retries,
        "retry_errors": options.get("retry_exceptions", method.retry_errors) or None,
        "group": options.get("concurrency_group") or method.group,
        "events": actor.events if events is None else events,
        "raises": raises,
        "counts": options.get("count_suspended", method.counts),
    }


def find_actor(session: Session, name: str, namespace: str | None) -> ActorHandle:
    """The live actor of that name. Raises NoSuchActor."""
    where = namespace or session.namespace
    try:
        found = session.ask(lambda request: FindActor(request, name, where))
    except UsageError as error:
        raise NoSuchActor(str(error)) from None
    actor = session.actors.watch(found.spec.actor, found.spec.class_name)
    return ActorHandle(session, actor, decode_handle(found.spec.handle), owner=False)
