"""What makes an actor: its pickled class, constructor arguments, and its methods' defaults.

Owns: the inner encoding of an actor's payload, opaque to hub and provider, and the names of the one
function and the one class that are sent without code. Pure.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

PROGRAM: Final = b"gu:program"
"""The id of the function that workers have themselves: it runs a program of the session's image."""
DEPLOYMENT: Final = b"gu:deployment"
"""Stands for the class of the actor that workers have themselves: it keeps an instance of the
session's image."""


class MethodInfo(Struct, array_like=True, frozen=True):
    """Defaults of one method; ``returns`` -1 streams, ``retries`` None means the actor's.
    ``group``: the concurrency group it runs in. ``retry_errors``: which of the user's own errors
    count as lost calls, exception types by ``module:name``. ``events`` None means the actor's.
    ``window``: unread items before its streams pause, 0 for any number. ``raises``: whether who
    waits is told that a call stands still, None means the actor's; ``counts``: whether its time-out
    counts meanwhile."""

    returns: int = 1
    retries: int | None = None
    timeout: float | None = None
    priority: int = 0
    group: str = ""
    retry_errors: bool | list[str] = False
    events: bool | None = None
    window: int = 0
    raises: bool | None = None
    counts: bool = True
    deadline: float | None = None


class RawValue(Struct, array_like=True, frozen=True):
    """A pickled value with its out-of-band buffers."""

    data: bytes
    buffers: list[bytes]


class Enclosed(Struct, array_like=True, frozen=True):
    """The value of a reference inside the class or the arguments, under the name that the reference
    has there; ``error``: a pickled exception. ``contains``: the names of those inside it."""

    owner: str
    object: int
    data: bytes
    buffers: list[bytes]
    error: bool = False
    contains: list[tuple[str, int]] = []


class ActorPayload(Struct, array_like=True, frozen=True):
    """All that a worker needs to build, or rebuild, the actor. Only ``cls`` is code, and is what
    the signatures that travel with a payload are of. ``groups``: its concurrency groups and how
    many calls of each run at a time. ``enclosed``: the values of references inside, inner ones
    first."""

    cls: bytes
    args: bytes
    buffers: list[bytes]
    deps: list[RawValue]
    groups: dict[str, int] = {}
    enclosed: list[Enclosed] = []


class HandleInfo(Struct, array_like=True, frozen=True):
    """What a handle knows of its class; ``retries`` of calls lost with the actor. ``unordered``: a
    call may overtake one that waits for its arguments. ``most_pending``: unanswered calls that one
    process may have there, -1 for no limit. ``groups``: names of its concurrency groups.
    ``events``: whether records of its calls are kept. ``window``: unread items before any of its
    streams pauses, 0 for any number. ``raises``: as in MethodInfo."""

    class_name: str
    methods: dict[str, MethodInfo]
    retries: int = 0
    unordered: bool = False
    most_pending: int = -1
    groups: list[str] = []
    events: bool = True
    window: int = 0
    raises: bool = False


_values = msgspec.msgpack.Decoder(RawValue)
_payloads = msgspec.msgpack.Decoder(ActorPayload)
_handles = msgspec.msgpack.Decoder(HandleInfo)


def encode(payload: ActorPayload | HandleInfo | RawValue) -> bytes:
    """Any of them as bytes."""
    return msgspec.msgpack.encode(payload)


def decode_payload(data: bytes) -> ActorPayload:
    """Raises msgspec.DecodeError for anything else."""
    return _payloads.decode(data)


def decode_value(data: bytes) -> RawValue:
    """Raises msgspec.DecodeError for anything else."""
    return _values.decode(data)


def decode_handle(data: bytes) -> HandleInfo:
    """Raises msgspec.DecodeError for anything else."""
    return _handles.decode(data)
