"""The thinking half of the gatekeeper: who comes in, and by what right.

Owns: the door to :class:`GatekeeperState`, the room of the hub process that knows keys, grants,
invitations and tokens. Must never: do I/O, read a clock, draw randomness, or see a secret key.
``gatekeeper_actor`` carries its effects out.
"""

from __future__ import annotations

from guactors.gatekeeper_state.keys import approve_listed
from guactors.gatekeeper_state.state import GatekeeperState

__all__ = ["GatekeeperState", "approve_listed"]
