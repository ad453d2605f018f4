"""The identifiers every room uses, and how fresh ones are drawn.

Owns: the distinct id types and their text form. Must never: read a clock, or draw randomness
anywhere but in :func:`fresh`, which shells call and hand to the thinking rooms as an argument.

Text form: a one-letter kind, a dash, and 16 hex digits (``c-9f86d081884c7d65``). The letter makes a
mixed-up id visible in logs; 64 random bits make accidental collision within one grid negligible.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final, NewType

PeerId = NewType("PeerId", str)
"""A process linked to the hub: hub ``h-``, provider ``p-``, caller ``c-``, worker ``w-``."""
SessionId = NewType("SessionId", str)
"""One ``init()`` and everything made under it: ``s-``."""
LeaseId = NewType("LeaseId", str)
"""The right to run tasks on one worker: ``l-``, drawn by the hub."""
ActorId = NewType("ActorId", str)
"""A user actor over all its restarts: ``a-``, drawn by its creator."""
LinkKey = NewType("LinkKey", str)
"""One dialled link, from dial to loss; a redial has a new one: ``k-``."""
ObjectId = NewType("ObjectId", int)
"""A result or put value; unique within its owner, which counts upwards."""
FunctionId = NewType("FunctionId", bytes)
"""BLAKE2b-128 of a pickled function or class."""

KINDS = {
    "hub": "h",
    "provider": "p",
    "caller": "c",
    "worker": "w",
    "session": "s",
    "lease": "l",
    "actor": "a",
    "link": "k",
    "group": "g",
    "instance": "i",
}


def fresh(kind: str) -> str:
    """A new random id of ``kind`` (a key of :data:`KINDS`)."""
    return f"{KINDS[kind]}-{os.urandom(8).hex()}"


def demand_id(caller: str, key: str) -> str:
    """The grid-wide name of what a caller wants under a key of its own: ``d-``."""
    return f"d-{hashlib.blake2b(f'{caller}/{key}'.encode(), digest_size=8).hexdigest()}"


RESERVED: Final = "reservation-"
"""The beginning of the ids of placement groups that hold the room of reservations."""


def reservation_id(name: str) -> str:
    """The id of the group in which its room is."""
    return RESERVED + name
