"""The shell of one session in the hub process.

Owns: nothing but its room, :class:`guactors.session_state.SessionState`. Must never: decide.
"""

from __future__ import annotations

from guactors.actors import ActorRef
from guactors.config import Timing
from guactors.room_actor import RoomActor
from guactors.session_state import SessionState


class SessionActor(RoomActor):
    """One session's members and output."""

    def __init__(self, hub: ActorRef, session: str, timing: Timing) -> None:
        super().__init__()
        self.hub = hub
        self.room = SessionState(session, timing, self.context.now())
