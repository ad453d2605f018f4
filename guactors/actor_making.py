"""From a constructor's arguments to the payload that an actor is made of.

Owns: the wait for the values an actor is made with, and their way into its payload. Must never:
leave an actor unmade without its calls learning why.

Values travel, not references: an actor may be restarted when the process that made it is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from guactors import values
from guactors.messages import ActorSpec, RefWord
from guactors.payload import ActorPayload, Enclosed, RawValue, encode
from guactors.refs import ObjectRef
from guactors.values import Packed

if TYPE_CHECKING:
    from guactors.caller.actors import RemoteActor
    from guactors.session import Session


class Parts(Struct, frozen=True):
    """What an actor is made of. ``deps``: references that are arguments themselves, ``captured``:
    those that its class refers to."""

    blob: bytes
    signatures: bytes
    packed: Packed
    deps: Sequence[ObjectRef]
    captured: Sequence[ObjectRef]
    groups: dict[str, int]


def make_actor(session: Session, actor: RemoteActor, spec: ActorSpec, parts: Parts) -> None:
    """Have it made when all values it is made with are there; one with a name is waited for, since
    the name may be taken. Raises NameTaken."""
    own = [ref.id for ref in parts.deps]
    inside = [ref.id for ref in (*parts.packed.refs, *parts.captured)]

    def create() -> None:
        failed = session.values.first_error(own)
        if failed is not None:
            with session.lock:
                session.core.fail_actor(actor, failed, time.monotonic())
                session.after_core()
            return
        payload = _payload(session, parts, own, inside)
        session.actors.create(actor, spec, payload, parts.signatures, wait=bool(spec.name))

    if spec.name:
        _wait_for(session, [*own, *inside])
        create()
    else:
        _when_there(session, [*own, *inside], create)


def _wait_for(session: Session, ids: list[int]) -> None:
    while missing := session.values.missing(ids):
        session.values.wait(missing, len(missing), None)


def _when_there(session: Session, ids: list[int], then: Callable[[], None]) -> None:
    """Now or later, when these values and all that they refer to are there."""
    missing = session.values.missing(ids)
    if missing:
        session.values.when_ready(missing, lambda: _when_there(session, ids, then))
    else:
        then()


def _payload(session: Session, parts: Parts, own: list[int], inside: list[int]) -> bytes:
    enclosed = session.values.enclosed([*own, *inside])
    direct = set(own) - set(inside)
    data, _ = values.gathered(parts.packed.data, ())
    return encode(
        ActorPayload(
            parts.blob,
            bytes(data),
            [bytes(buffer) for buffer in parts.packed.buffers],
            [RawValue(*session.values.raw(id)) for id in own],
            parts.groups,
            [one for id, one in enclosed.items() if id not in direct],
        )
    )


def settle_in(session: Session, enclosed: Sequence[Enclosed]) -> list[int]:
    """In the actor's process: these values are here from now on. Local ids, each held once; the
    inner ones come first."""
    objects = session.core.objects
    with session.lock:
        ids = []
        for one in enclosed:
            inner = [objects.find(RefWord(*word)) for word in one.contains]
            known = [id for id in inner if id is not None]
            word = RefWord(one.owner, one.object)
            ids.append(objects.settle_in(word, one.data, one.buffers, known, error=one.error))
        return ids
