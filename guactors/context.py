"""``get_runtime_context()``: where the asking code runs.

Owns: the record of what this process is and what call the asking code belongs to. Must never:
change anything.
"""

from __future__ import annotations

import contextvars
from dataclasses import dataclass
from typing import Protocol

from guactors.refs import current_session


@dataclass(frozen=True)
class Place:
    """What this process is; empty ids in a driver."""

    provider: str = ""
    worker: str = ""
    actor: str = ""
    actor_name: str = ""
    incarnation: int = 0


class Running(Protocol):
    """One call that runs here; ``cancelled`` is set when it should end."""

    name: str
    cancelled: bool
    timed_out: bool

    @property
    def key(self) -> object:
        """Names the call within this process."""


_place = Place()
running: contextvars.ContextVar[Running | None] = contextvars.ContextVar("running", default=None)


def set_place(place: Place) -> None:
    """Called once by the worker, again when it becomes an actor."""
    global _place
    _place = place


class RuntimeContext:
    """Ray's getters. Ids are texts; None where there is none."""

    def __init__(self, place: Place, session: str, namespace: str, call: Running | None) -> None:
        self._place = place
        self._session = session
        self.namespace = namespace
        self._call = call

    def get_job_id(self) -> str:
        """The session."""
        return self._session

    def get_node_id(self) -> str | None:
        """The provider."""
        return self._place.provider or None

    def get_worker_id(self) -> str | None:
        return self._place.worker or None

    def get_task_id(self) -> str | None:
        return str(self._call.key) if self._call is not None else None

    def get_task_name(self) -> str | None:
        return self._call.name if self._call is not None else None

    def get_actor_id(self) -> str | None:
        return self._place.actor or None

    def get_actor_name(self) -> str | None:
        return self._place.actor_name or None

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor was restarted."""
        return self._place.incarnation > 0

    def is_canceled(self) -> bool:
        """Whether somebody cancelled the running call; long sync methods should look."""
        return self._call is not None and self._call.cancelled

    def __repr__(self) -> str:
        return f"<RuntimeContext session={self._session} {self._place}>"


def runtime_context() -> RuntimeContext:
    """The context of the asking code."""
    session = current_session()
    return RuntimeContext(
        _place,
        session.id if session is not None else "",
        session.namespace if session is not None else "",
        running.get(),
    )
