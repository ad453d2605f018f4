"""Actors as the public API makes, finds and ends them.

Owns: the waiting for the hub's word where an actor's maker must have it. Must never: know where an
actor runs (the core does).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from guactors.caller.actors import RemoteActor
from guactors.hub_line import error_of
from guactors.messages import ActorSpec, CreateActor, Fault

if TYPE_CHECKING:
    from guactors.session import Session


class ActorRegistry:
    """The part of a session that deals with actors; one per session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._core = session.core
        self._pump = session.pump
        self._lock = session.lock

    def add(self, spec: ActorSpec) -> RemoteActor:
        """The record of an actor about to be made; calls to it may be queued at once."""
        with self._lock:
            actor = self._core.actors.add(spec.actor, spec.class_name)
            actor.concurrency = spec.max_concurrency
            return actor

    def create(
        self, actor: RemoteActor, spec: ActorSpec, payload: bytes, signatures: bytes, wait: bool
    ) -> None:
        """Have it made; with ``wait`` until the hub has accepted it. ``signatures`` are of the
        class in the payload. Raises NameTaken."""
        questions = self._session.questions
        request = questions.number()
        message = CreateActor(request, spec, payload, signatures)
        with self._lock:
            if wait:
                questions.expect(request)
            self._core.actors.create(actor, message)
            self._session.after_core()
        if not wait:
            return

        def done() -> bool:
            return actor.creation is None or questions.answered(request)

        try:
            if not self._pump.wait(done, 60.0):
                raise self._session.unreachable()
        finally:
            fault = questions.take(request)
        if isinstance(fault, Fault):
            with self._lock:
                self._core.actors.forget(actor)
            raise error_of(fault)

    def watch(self, id: str, name: str) -> RemoteActor:
        """The record of an actor whose handle arrived."""
        with self._lock:
            actor = self._core.actors.watch(id, name)
            self._session.after_core()
        self._pump.kick()
        return actor

    def share(self, actor: RemoteActor) -> None:
        """Its handle leaves this process: the last handle here no longer ends it."""
        actor.shared = True

    def handle_gone(self, actor: RemoteActor) -> None:
        """The maker's last handle is gone. Runs in any thread at any time: leave a note."""
        if not actor.shared:
            self._session.orphans.append(actor)

    def kill(self, actor: RemoteActor, *, no_restart: bool) -> None:
        """End an actor now."""
        with self._lock:
            self._core.kill_actor(actor, no_restart=no_restart, now=time.monotonic())
            self._session.after_core()
