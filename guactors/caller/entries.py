"""One value as a process knows it.

Owns: the record. Must never: decide anything about it (``objects`` does).
"""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from guactors.caller.away import Away
from guactors.caller.tasks import Buffers, Task
from guactors.messages import RefWord
from guactors.objects.base import Held


class Entry(Struct, eq=False):
    """One object. ``data`` is None until it is there, and holds shared memory where the value is
    large, or says on which machine that is; ``error`` marks a pickled exception.

    ``holds`` counts all that keeps it; ``origin`` is set for a borrowed one, whose ``lenders`` are
    the neighbours it was borrowed from; ``watched`` asks that settling be reported, ``wanted``
    that the value come here from wherever it is made; ``task`` is the call that makes it."""

    id: int
    holds: int = 1
    data: bytes | Held | Away | None = None
    buffers: Buffers = ()
    error: bool = False
    contains: list[int] | None = None
    dependents: list[Task] | None = None
    fetchers: list[tuple[str, int]] | None = None
    origin: RefWord | None = None
    lenders: Counter[str] | None = None
    fetching: bool = False
    watched: bool = False
    wanted: bool = False
    task: Task | None = None

    def __repr__(self) -> str:
        state = "error" if self.error else "ready" if self.data is not None else "pending"
        return f"<Entry {self.id} {state} holds={self.holds} origin={self.origin}>"
