"""``get_runtime_context()``: where the asking code runs.

Owns: the record of what this process is and what call the asking code belongs to. Must never:
change anything.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from guactors.assigned import assigned
from guactors.refs import current_session

if TYPE_CHECKING:
    from guactors.remote_actor import ActorHandle
    from guactors.session import Session


@dataclass(frozen=True)
class Place:
    """What this process is; empty ids in a driver. ``labels``: of the provider. ``handle``: what a
    handle of the actor is built from; ``asynchronous``: its calls are coroutines."""

    provider: str = ""
    worker: str = ""
    actor: str = ""
    actor_name: str = ""
    incarnation: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    handle: bytes = b""
    asynchronous: bool = False
    runtime_env: Mapping[str, Any] = field(default_factory=dict)


class Running(Protocol):
    """One call that runs here; ``cancelled`` is set when it should end."""

    name: str
    cancelled: bool
    timed_out: bool

    @property
    def key(self) -> object:
        """Names the call within this process."""


class Host(Protocol):
    """The worker around the asking code; any thread."""

    def task_id(self, call: Running) -> str:
        """The call's name, as its caller knows it."""

    def assigned(self, call: Running | None) -> Mapping[str, float]:
        """What the call, or the actor, holds of the provider's resources."""


_place = Place()
_host: Host | None = None
running: contextvars.ContextVar[Running | None] = contextvars.ContextVar("running", default=None)
_leaving = False


def set_leaving() -> None:
    """Called once by the worker."""
    global _leaving
    _leaving = True


def is_leaving() -> bool:
    """Whether this process was asked to end, and is going to be ended."""
    return _leaving


def set_place(place: Place, host: Host | None = None) -> None:
    """Called once by the worker, again when it becomes an actor."""
    global _place, _host
    _place, _host = place, host


def present_place() -> Place:
    """What this process is."""
    return _place


class RuntimeContext:
    """Ray's getters. Ids are texts; None where there is none."""

    def __init__(
        self, place: Place, host: Host | None, session: Session | None, call: Running | None
    ) -> None:
        self._place = place
        self._host = host
        self._session = session
        self._call = call

    @property
    def namespace(self) -> str:
        """Where names of actors are looked up."""
        return self._session.namespace if self._session is not None else ""

    def get_job_id(self) -> str:
        """The session."""
        return self._session.id if self._session is not None else ""

    def get_node_id(self) -> str | None:
        """The provider; in a driver, that of the grid it started itself."""
        started = self._session.provider if self._session is not None else ""
        return self._place.provider or started or None

    def get_worker_id(self) -> str | None:
        return self._place.worker or None

    def get_task_id(self) -> str | None:
        """In hex, as ``ref.task_id()`` gives it to the caller."""
        if self._call is None or self._host is None:
            return None
        return self._host.task_id(self._call)

    def get_task_name(self) -> str | None:
        return self._call.name if self._call is not None else None

    def get_actor_id(self) -> str | None:
        return self._place.actor or None

    def get_actor_name(self) -> str | None:
        return self._place.actor_name or None

    def get_placement_group_id(self) -> str | None:
        """None outside any placement group."""
        return assigned().group or None

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task or actor holds, by name; empty in a driver."""
        if self._host is None:
            return {}
        return {k: v for k, v in self._host.assigned(self._call).items() if v}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """By kind, the devices that the running task or actor may use."""
        return {"GPU": [], **{kind: list(ids) for kind, ids in assigned().devices.items()}}

    def get_node_labels(self) -> dict[str, str]:
        """Of the provider this runs on; empty in a driver."""
        return dict(self._place.labels)

    @property
    def runtime_env(self) -> dict[str, Any]:
        """What the code here was promised to find."""
        return dict(self._place.runtime_env)

    @property
    def gcs_address(self) -> str:
        """The hub's address."""
        return self._session.hub_address if self._session is not None else ""

    @property
    def current_actor(self) -> ActorHandle:
        """A handle of the actor that runs here. Raises RuntimeError elsewhere."""
        from guactors.remote_actor import _rebuild_handle

        if not self._place.actor:
            raise RuntimeError("current_actor is asked for outside an actor")
        return _rebuild_handle(self._place.actor, self._place.handle)

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor was restarted."""
        return self._place.incarnation > 0

    def is_canceled(self) -> bool:
        """Whether somebody cancelled the running call; long sync methods should look. Raises
        RuntimeError in an async actor, where the coroutine itself is cancelled."""
        if self._place.asynchronous:
            raise RuntimeError("calls of an async actor are cancelled by asyncio, not flagged")
        return self._call is not None and self._call.cancelled

    def is_leaving(self) -> bool:
        """Whether what runs here was asked to end, and is going to be ended when its ``grace`` is
        over. What a task returns until then counts; by ``sys.exit()`` it ends before."""
        return _leaving

    def get(self) -> dict[str, Any]:
        """The ids there are, by name."""
        ids = {
            "job_id": self.get_job_id(),
            "node_id": self.get_node_id(),
            "worker_id": self.get_worker_id(),
            "task_id": self.get_task_id(),
            "actor_id": self.get_actor_id(),
            "namespace": self.namespace,
        }
        return {name: id for name, id in ids.items() if id}

    def __repr__(self) -> str:
        return f"<RuntimeContext session={self.get_job_id()} {self._place}>"


def runtime_context() -> RuntimeContext:
    """The context of the asking code."""
    return RuntimeContext(_place, _host, current_session(), running.get())


class ActorExit(SystemExit):
    """The actor that runs here ends, and is not started again."""


def exit_actor() -> None:
    """End the actor that runs here, without a restart: this call and those that wait fail with
    ActorDied, exit hooks run. Raises TypeError outside an actor."""
    if not _place.actor:
        raise TypeError("exit_actor() ends the actor it is called in, and this is no actor")
    raise ActorExit(0)
