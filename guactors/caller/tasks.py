"""One call from ``.remote()`` to its outcome, and what may be asked of it.

Owns: the record of a call. Must never: send, or look at the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from guactors.messages import Shape
from guactors.objects.base import Held

STREAM = -1
"""``returns`` of a streaming call."""
GATHERED = -2
"""``returns`` of a call whose stream becomes one value when it ends, as the shell asks for it: a
Task has STREAM and ``gather``."""

Buffers = Sequence[bytes | memoryview]


class Stillness(Struct, eq=False):
    """What a caller wants of a call while it stands still. ``raises``: to be told (Suspended)
    rather than to wait; ``counts``: whether such seconds count for its deadline. ``since``: from
    when on its clock stands, 0 while it goes."""

    raises: bool = False
    counts: bool = True
    since: float = 0.0


class Task(Struct, eq=False, gc=False):
    """A call on its way. The garbage collector does not look at it, for there are many: what it is
    in a circle with, a queue of its home, is emptied by :meth:`CallerCore.close`.

    ``id`` is the object id of its first result, ``id .. id+returns-1`` are all. ``deps`` are local
    object ids that replace placeholders in ``args``, ``lent`` those inside it. ``deadline``: when
    its timeout passes, absolute, 0 for none; ``due``: the same of its deadline, by which it goes
    before others of its caller. ``retries`` counts down on lost workers, -1 is endless;
    ``retry_errors`` says whether the user's own errors count too (the predicate lives in the
    shell), ``spared`` counts the lost workers that were not charged to it. ``home`` is the demand
    or the actor it waits for, ``parent`` the call that made it, ``peer`` where it was sent;
    ``missed`` counts the workers that found a value gone which it needs. ``group``: the
    concurrency group of the actor.
    ``made``: when it was submitted; ``fault``: the type of the error it ended with, for listings;
    ``events``: whether it is to be listed once it has ended. ``window``: unread items before its
    stream pauses, 0 for any number. ``gather``: the items of its stream become references in its
    one result. ``goes_on``: as in Stream. ``stillness``: None where it is the usual.
    """

    id: int
    fn: bytes = b""
    method: str = ""
    name: str = ""
    args: bytes | Held = b""
    buffers: Buffers = ()
    deps: Sequence[int] = ()
    lent: Sequence[int] = ()
    returns: int = 1
    priority: int = 0
    deadline: float = 0.0
    retries: int = 0
    retry_errors: Any = None
    group: str = ""
    parent: Any = None
    home: Any = None
    attempt: int = 0
    unmet: int = 0
    sent_at: float = 0.0
    peer: str = ""
    cancelled: bool = False
    made: float = 0.0
    fault: str = ""
    missed: int = 0
    events: bool = True
    window: int = 0
    gather: bool = False
    spared: int = 0
    stillness: Stillness | None = None
    goes_on: bool = False
    due: float = 0.0

    def remaining(self, now: float) -> float:
        """Seconds in which it must end, 0 for any number. Where its time-out does not count
        standstill the worker is not told of that: it does not know of its own."""
        counts = self.stillness is None or self.stillness.counts
        ends = [at for at in (self.deadline if counts else 0.0, self.due) if at]
        return max(min(ends) - now, 1e-3) if ends else 0.0

    def results(self) -> range:
        """Object ids of its results; of a stream, the one that marks its end."""
        return range(self.id, self.id + max(1, self.returns))

    def __repr__(self) -> str:
        return (
            f"<Task {self.id} {self.name or self.method} attempt={self.attempt} at={self.peer!r}>"
        )


def shape_key(shape: Shape) -> str:
    """A name for the demand of this shape, equal for equal shapes."""
    parts = [f"{k}={v:.15g}" for k, v in sorted(shape.resources.items())]
    parts += [f"{k}:{v}" for k, v in sorted(shape.labels.items())]
    key = f"{shape.priority}|{shape.provider}|{','.join(parts)}"
    if shape.runtime or shape.image or shape.preemption:
        key += f"|{shape.runtime}|{shape.image}|{','.join(shape.preemption)}"
    if shape.min_runtime or shape.max_suspended:
        key += f"|{shape.min_runtime:.15g}|{shape.max_suspended:.15g}"
    if shape.limits is not None:
        key += f"|{shape.limits.cpu}|{shape.limits.memory}"
    if shape.env is not None:
        key += "|" + blake2b(shape.env.description, digest_size=16).hexdigest()
    if shape.place is not None:
        key += f"|{shape.place}"
    if shape.grace:
        key += f"|grace {shape.grace:.15g}"
    if shape.terms is not None:
        key += f"|{shape.terms}"
    if shape.alternatives:
        key += f"|{shape.alternatives}"
    if shape.company is not None:
        key += f"|{shape.company}"
    return key if len(key) <= 64 else blake2b(key.encode(), digest_size=16).hexdigest()
