"""The public Python API, with Ray core's names and meanings.

Owns: the process's one session, and the argument checks of the public functions. Must never: hold
logic that another room could hold.
"""

from __future__ import annotations

import atexit
import difflib
import inspect
import json
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from guactors.context import RuntimeContext, runtime_context
from guactors.errors import AlreadyInitialized, NotInitialized, UnknownOption, UsageError
from guactors.options import check_terms
from guactors.refs import (
    ObjectRef,
    ObjectRefGenerator,
    check_session,
    current_session,
    set_current_session,
)
from guactors.remote_actor import ActorClass, ActorHandle, find_actor, method
from guactors.remote_function import RemoteFunction

if TYPE_CHECKING:
    from guactors.session import Session

_lock = threading.Lock()


def init(
    address: str | None = None,
    *,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    object_store_memory: int | None = None,
    namespace: str | None = None,
    key: str | None = None,
    signer: str | Sequence[str] = (),
    log_to_driver: bool = True,
    log_dedup: bool | None = None,
    ignore_reinit_error: bool = False,
    logging_level: int | str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    priority: int | None = None,
    preemption: Sequence[str] | None = None,
    min_runtime: float | None = None,
    max_suspended: float | None = None,
    grace: float | None = None,
    timeout: float = 10.0,
    **others: Any,
) -> GridContext:
    """Join a grid, or start one inside this process's life.

    ``address``: ``gu://HOST:PORT?hub=...`` as ``gu hub`` prints it, ``auto`` for the grid that ``gu
    up`` started here, None for GU_ADDRESS and, where that is unset (or with ``local``), an embedded
    grid with ``num_cpus`` (default: all), ``num_gpus``, further ``resources``, the ``labels`` of
    its provider and ``object_store_memory`` bytes for large values (default: 30 % of memory),
    removed at exit or at the end of ``with init():``. ``key``: the key file, or the name of the app
    key, that says who you are to a hub elsewhere (default: GU_KEY, then an app key ``default`` that
    is made at first and must be approved there). ``signer``: key files, or names of signer keys,
    that sign the functions and classes you send. ``log_to_driver``: show what workers print.
    ``log_dedup`` (default: on, unless GU_DEDUP_LOGS=0): fold equal lines. ``logging_level``: of the
    logger ``guactors`` in this process. ``runtime_env``: what all calls run in, see
    docs/runtime-env.md. ``priority``, ``preemption``, ``min_runtime``, ``max_suspended``,
    ``grace``: of all that is called, also by what is called, unless it says otherwise
    (docs/priorities.md). ``timeout``: seconds to reach the hub. Raises HubUnreachable, AuthFailed
    (PendingApproval while the grid's owner has not approved the key), VersionMismatch, UsageError
    (UnknownOption, AlreadyInitialized).
    """
    _check(others, logging_level, runtime_env)
    terms = check_terms(priority, preemption, min_runtime, max_suspended, grace)
    with _lock:
        if is_initialized():
            if ignore_reinit_error:
                return GridContext()
            raise AlreadyInitialized("init() was called before; call shutdown() first")
        offer = (num_cpus, num_gpus, resources or {}, labels or {}, object_store_memory)
        session = _open(
            address, offer, signer, log_dedup, namespace=namespace, key=key, echo=log_to_driver,
            timeout=timeout,
        )  # fmt: skip
        return _enter(session, runtime_env, terms)


def _open(
    address: str | None,
    offer: tuple[Any, ...],
    signer: str | Sequence[str],
    dedup: bool | None,
    **how: Any,
) -> Session:
    """As ``open_session``, where the environment may say what is not said."""
    from guactors.embedding import Offer, open_session

    return open_session(
        None if address == "local" else address or os.environ.get("GU_ADDRESS") or None,
        Offer(*offer),
        signers=[signer] if isinstance(signer, str) else signer,
        fold=os.environ.get("GU_DEDUP_LOGS") != "0" if dedup is None else dedup,
        **how,
    )


def _enter(
    session: Session, runtime_env: Mapping[str, Any] | None, terms: dict[str, Any]
) -> GridContext:
    """From here on this process is in the grid, until it ends."""
    session.terms = terms
    if runtime_env:
        _inherit(session, runtime_env)
    set_current_session(session)
    atexit.register(shutdown)
    return GridContext()


def _check(
    others: dict[str, Any], level: int | str | None, runtime_env: Mapping[str, Any] | None
) -> None:
    """Raise UnknownOption for what is impossible; take the ``level`` for our loggers here."""
    from guactors.runtime_env.options import check_given

    _refuse(others)
    check_given(runtime_env)
    if level is not None:
        import logging

        logging.getLogger("guactors").setLevel(level)


def _refuse(others: dict[str, Any]) -> None:
    """Raise UnknownOption for what ``init`` cannot do. That there be no dashboard can be asked
    for: there is none."""
    if others.pop("include_dashboard", False):
        raise UnknownOption(
            "include_dashboard=True is impossible: there is no dashboard; gu status, gu peers and "
            "gu inf show the grid"
        )
    for name in others:
        names = list(inspect.signature(init).parameters)[:-1]
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise UnknownOption(f"{name!r} is no parameter of init(); {hint}")


class GridContext(RuntimeContext):
    """What ``init`` returns; as a context manager it ends the session."""

    def __init__(self) -> None:
        here = runtime_context()
        super().__init__(here._place, here._host, here._session, here._call)

    @property
    def address_info(self) -> dict[str, str]:
        """Where this process is connected."""
        node = self.get_node_id() or ""
        return {"node_id": node, "address": self.gcs_address, "gcs_address": self.gcs_address}

    def __getitem__(self, name: str) -> str:
        return self.address_info[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        shutdown()


def _inherit(session: Session, runtime_env: Mapping[str, Any]) -> None:
    try:
        session.environments.inherit(runtime_env)
    except BaseException:
        session.close()
        raise


def shutdown() -> None:
    """Leave the grid: everything pending ends with SessionClosed, an embedded grid is removed."""
    with _lock:
        session = current_session()
        set_current_session(None)
        atexit.unregister(shutdown)
        if session is not None:
            session.close()


def is_initialized() -> bool:
    """Whether this process has a session."""
    session = current_session()
    return session is not None and not session.closed


def auto_init() -> Session:
    """The session; started with defaults on first use."""
    session = current_session()
    if session is None or session.closed:
        init()
        session = current_session()
        assert session is not None
    return session


def _need_session(what: str) -> Session:
    session = current_session()
    if session is None or session.closed:
        raise NotInitialized(f"{what} needs a grid: call init() first")
    return session


def remote(*args: Any, **options: Any) -> Any:
    """Decorator: a function or class whose calls run elsewhere. ``@remote`` or
    ``@remote(num_cpus=2, ...)``."""
    if len(args) == 1 and not options and callable(args[0]):
        return _wrap(args[0], {})
    if args:
        raise UsageError("@remote takes options by name, as in @remote(num_cpus=2)")
    return lambda target: _wrap(target, options)


def _wrap(target: Any, options: dict[str, Any]) -> RemoteFunction | ActorClass:
    if isinstance(target, RemoteFunction | ActorClass):
        raise UsageError(f"{target!r} is remote already; use .options() for other options")
    if isinstance(target, type):
        return ActorClass(target, options)
    if callable(target):
        return RemoteFunction(target, options)
    raise UsageError(f"@remote is for functions and classes, not for {type(target).__name__}")


def get(refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a ref, or the values of a list of refs in order.

    Raises the first failed one's error as its own type, GetTimeout after ``timeout`` seconds (0:
    only what is there already)."""
    if type(refs) is ObjectRef:
        session = refs._session
        if session._closed:  # a property would cost as much as all the rest
            check_session(refs, session)
        return session.values.get_one(refs._id, timeout)
    if isinstance(refs, ObjectRefGenerator):
        raise TypeError("get() takes no generator; iterate over it and get() each ref")
    if not isinstance(refs, list | tuple):
        raise TypeError(f"get() takes a ref or a list of refs, not {type(refs).__name__}")
    if not refs:
        return []
    owner: Session | None = getattr(refs[0], "_session", None)
    for ref in refs:
        if type(ref) is not ObjectRef:
            raise TypeError(f"get() takes refs; the list has a {type(ref).__name__}")
        if ref._session is not owner or owner._closed:
            check_session(ref, owner)
    assert owner is not None
    return owner.values.get_many([ref._id for ref in refs], timeout)


def put(value: Any) -> ObjectRef:
    """Store an immutable copy of ``value``; it lives as long as a reference to it."""
    if isinstance(value, ObjectRef):
        raise TypeError("put() of an ObjectRef makes no sense: the value is stored already")
    return auto_init().values.put(value)


def wait(
    refs: Sequence[Any],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[Any], list[Any]]:
    """(ready, not ready) as soon as ``num_returns`` are ready or ``timeout`` seconds are over; the
    order of ``refs`` is kept in both. With ``fetch_local`` a value is ready when it is on this
    machine, without it as soon as it is somewhere. A generator counts as ready when its next item
    is there."""
    if not isinstance(refs, list):
        raise TypeError(f"wait() takes a list of refs, not {type(refs).__name__}")
    if not refs:
        return [], []
    refs = refs[:]  # the caller's may change meanwhile
    session, ids = _waited_for(refs)
    if not 1 <= num_returns <= len(refs):
        raise ValueError(f"num_returns={num_returns} is not between 1 and {len(refs)} refs")
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout={timeout} is negative")
    taken = session.values.wait(ids, num_returns, timeout, local=fetch_local)
    if len(taken) == 1:
        at = taken[0]
        return [refs[at]], refs[:at] + refs[at + 1 :]
    chosen = set(taken)
    return [refs[at] for at in taken], [ref for at, ref in enumerate(refs) if at not in chosen]


def _waited_for(refs: list[Any]) -> tuple[Session, list[int]]:
    """The session and the numbers of refs that are refs, each once; raises TypeError or ValueError.
    A loop waits for what the last round left, whose refs were looked at then."""
    session: Session | None = getattr(refs[0], "_session", None)
    try:
        ids = [ref._id for ref in refs]
        if session is not None and session.values.left == ids and not session.closed:
            return session, ids
    except AttributeError:
        pass  # said below
    for ref in refs:
        if not isinstance(ref, ObjectRef | ObjectRefGenerator):
            raise TypeError(f"wait() takes refs; the list has a {type(ref).__name__}")
        check_session(ref, session)
    if len(set(ids)) < len(refs):
        raise ValueError("wait() takes each ref once")
    assert session is not None
    return session, ids


def cancel(
    ref: ObjectRef | ObjectRefGenerator, *, force: bool = False, recursive: bool = True
) -> None:
    """End the call that makes ``ref``: queued, it never runs; running, a task is interrupted
    (``force``: its worker is killed), an async actor call is cancelled, another actor call is
    flagged. Finished calls stay finished. ``recursive``: the calls it made, too."""
    if not isinstance(ref, ObjectRef | ObjectRefGenerator):
        raise TypeError(f"cancel() takes a ref, not {type(ref).__name__}")
    ref._session.cancel(ref._id, force=force, recursive=recursive)


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor now: calls that run or wait fail with ActorKilled. ``no_restart=False`` lets
    ``max_restarts`` bring it back."""
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"kill() takes an actor handle, not {type(actor).__name__}")
    _need_session("kill()")
    actor.__guactors_kill__(no_restart)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """The live actor of that name. Raises NoSuchActor (a ValueError)."""
    return find_actor(auto_init(), name, namespace)


def get_runtime_context() -> RuntimeContext:
    """Where this code runs: ids of node, worker, task, actor."""
    auto_init()
    return runtime_context()


def get_gpu_ids() -> list[int | str]:
    """The GPUs that the running task or actor may use: numbers, or names where they have some."""
    given = get_runtime_context().get_accelerator_ids()["GPU"]
    return [int(one) if one.isdigit() else one for one in given]


def nodes() -> list[dict[str, Any]]:
    """The providers, as dicts with Ray's keys where they apply."""
    return auto_init().nodes()


def cluster_resources() -> dict[str, float]:
    """What all providers offer together."""
    return _sum("Resources")


def available_resources() -> dict[str, float]:
    """What is free of it now."""
    return _sum("Free")


def timeline(filename: str | None = None) -> list[dict[str, Any]] | None:
    """What ran when in this session, as trace events; or written as JSON to ``filename``, for
    ui.perfetto.dev or chrome://tracing. Calls whose record was dropped are not in it."""
    from guactors import trace
    from guactors.looking import asker, trace_rows

    session = _need_session("timeline()")
    events = trace.events(trace_rows(asker(session), session.id))
    if filename is None:
        return events
    with open(filename, "w", encoding="utf-8") as file:
        json.dump(events, file)
    return None


def _sum(field: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for node in nodes():
        for name, amount in node[field].items():
            total[name] = total.get(name, 0.0) + amount
    return total


__all__ = [
    "ActorClass", "ActorHandle", "ObjectRef", "ObjectRefGenerator", "RemoteFunction",
    "available_resources", "cancel", "cluster_resources", "get", "get_actor",
    "get_gpu_ids", "get_runtime_context", "init", "is_initialized", "kill", "method", "nodes",
    "put", "remote", "shutdown", "timeline", "wait",
]  # fmt: skip
