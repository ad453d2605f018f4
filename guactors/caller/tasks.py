"""One call from ``.remote()`` to its outcome, and what may be asked of it.

Owns: the record of a call. Must never: send, or look at the clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from guactors.messages import Shape

STREAM = -1
"""``returns`` of a streaming call."""

Buffers = Sequence[bytes | memoryview]


class Task:
    """A call on its way.

    ``id`` is the object id of its first result, ``id .. id+returns-1`` are all. ``deps`` are local
    object ids that replace placeholders in ``args``, ``lent`` those inside it. ``deadline`` is
    absolute, 0 for none. ``retries`` counts down on lost workers, -1 is endless; ``retry_errors``
    says whether the user's own errors count too (the predicate lives in the shell). ``home`` is the
    demand or the actor it waits for.
    """

    __slots__ = (
        "args", "attempt", "buffers", "cancelled", "deadline", "deps", "fn", "group", "home", "id",
        "items", "lent", "method", "name", "parent", "peer", "priority", "retries", "retry_errors",
        "returns", "sent_at", "unmet",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        *,
        fn: bytes = b"",
        method: str = "",
        name: str = "",
        args: bytes = b"",
        buffers: Buffers = (),
        deps: Sequence[int] = (),
        lent: Sequence[int] = (),
        returns: int = 1,
        priority: int = 0,
        deadline: float = 0.0,
        retries: int = 0,
        retry_errors: object = None,
        group: str = "",
        parent: object = None,
    ) -> None:
        self.id = id
        self.fn = fn
        self.method = method
        self.name = name
        self.args = args
        self.buffers = buffers
        self.deps = deps
        self.lent = lent
        self.returns = returns
        self.priority = priority
        self.deadline = deadline
        self.retries = retries
        self.retry_errors = retry_errors
        self.group = group
        self.parent = parent
        self.home: Any = None
        self.attempt = 0
        self.unmet = 0
        self.items = 0
        self.sent_at = 0.0
        self.peer = ""
        self.cancelled = False

    def results(self) -> range:
        """Object ids of its results; of a stream, the one that marks its end."""
        return range(self.id, self.id + max(1, self.returns))

    def __repr__(self) -> str:
        return (
            f"<Task {self.id} {self.name or self.method} attempt={self.attempt} at={self.peer!r}>"
        )


def shape_key(shape: Shape) -> str:
    """A name for the demand of this shape, equal for equal shapes."""
    parts = [f"{k}={v:g}" for k, v in sorted(shape.resources.items())]
    parts += [f"{k}:{v}" for k, v in sorted(shape.labels.items())]
    key = f"{shape.priority}|{shape.provider}|{','.join(parts)}"
    return key if len(key) <= 64 else blake2b(key.encode(), digest_size=16).hexdigest()
