"""What the provider's core wants done; the shell does it and thinks nothing of it.

Owns: one small frozen struct per deed. Must never: hold behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass

from guactors.messages import Endpoint, Message


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a process of this id. Answered by on_worker_started and on_worker_ended."""

    worker: str


@dataclass(frozen=True, slots=True)
class KillWorker:
    """SIGKILL to the worker's whole process group; ``cause`` is for the log."""

    worker: str
    cause: str


@dataclass(frozen=True, slots=True)
class DropWorker:
    """Nothing more comes from or goes to this worker: it has ended."""

    worker: str


@dataclass(frozen=True, slots=True)
class SendWorker:
    """To a worker that has said Hello; a worker that is gone by now needs no message."""

    worker: str
    message: Message


@dataclass(frozen=True, slots=True)
class SendHub:
    """To the hub, on the link of the last on_hub_up. If the link cannot take it: on_hub_down."""

    message: Message


@dataclass(frozen=True, slots=True)
class Dial:
    """Dial the hub there. Answered by on_hub_up or on_hub_down."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class DropHub:
    """Close the link to the hub; not answered, the core counts it as down already."""

    reason: str


@dataclass(frozen=True, slots=True)
class TakeSample:
    """Measure the machine. Answered by on_sample."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Once in life: the hub has welcomed us, and the first worker waits (or none is wanted)."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The hub will never take us as we are; ``kind`` names the error class of guactors.errors."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the provider's log; ``level`` is ``info``, ``warning`` or ``error``."""

    level: str
    text: str


Effect = (
    StartWorker | KillWorker | DropWorker | SendWorker | SendHub | Dial | DropHub | TakeSample
    | Ready | GiveUp | Note
)  # fmt: skip
