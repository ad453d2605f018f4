"""What the provider's core wants done; the shell does it and thinks nothing of it.

Owns: one small frozen struct per deed. Must never: hold behaviour.
"""

from __future__ import annotations

from msgspec import Struct

from guactors.config import Identity
from guactors.messages import Endpoint, Limits, Message
from guactors.runtime_env.description import Packages


class StartWorker(Struct, frozen=True):
    """Start a process of this id, which dials with this identity. ``python``: its interpreter,
    empty for our own. Answered by on_worker_started and on_worker_ended."""

    worker: str
    identity: Identity = Identity()
    python: str = ""


class LimitWorker(Struct, frozen=True):
    """Hold its process to these limits, before it is told anything else. Not answered."""

    worker: str
    limits: Limits


class KillWorker(Struct, frozen=True):
    """SIGKILL to the worker's whole process group; ``cause`` is for the log."""

    worker: str
    cause: str


class HaltWorker(Struct, frozen=True):
    """Stop all processes of the worker, which keep what they have, or let them go on. Not
    answered."""

    worker: str
    stop: bool


class DropWorker(Struct, frozen=True):
    """Nothing more comes from or goes to this worker: it has ended."""

    worker: str


class SendWorker(Struct, frozen=True):
    """To a worker that has said Hello; a worker that is gone by now needs no message."""

    worker: str
    message: Message


class PrepareRoot(Struct, frozen=True):
    """Unpack the image into a directory for this worker; or (not ``unpack``) have it in the store
    for it. Answered by on_root_ready with the directory, or with that of the store, or by
    on_root_failed, also where the worker has ended meanwhile. The image must stay whole until
    RemoveRoot."""

    worker: str
    image: str
    unpack: bool = True


class RemoveRoot(Struct, frozen=True):
    """The worker is gone, its directory can go; if it is still being unpacked, when that is over.
    Not answered."""

    worker: str
    image: str


class NeedImage(Struct, frozen=True):
    """Have the image whole in the store, and all its signatures that the hub knows. Answered by
    on_image or on_image_failed."""

    image: str


class Part(Struct, frozen=True):
    """A part of an environment. ``kind``: ``files`` (of the archive ``image``), ``pip`` or ``uv``
    (``packages``, for the interpreter ``python``, empty for our own). ``base``: the key of the part
    in whose directory it is built; ``timeout``: seconds."""

    key: str
    kind: str
    image: str = ""
    packages: Packages | None = None
    python: str = ""
    base: str = ""
    timeout: float = 600.0


class BuildPart(Struct, frozen=True):
    """Build it, in a directory of its own; ``cwd``: that of its base. Answered by on_part_built or
    on_part_failed."""

    part: Part
    cwd: str = ""


class RemovePart(Struct, frozen=True):
    """Nobody uses it: remove its directory. Not answered."""

    key: str
    path: str


class MeasureMemory(Struct, frozen=True):
    """How much memory is in use, and how much by these workers, by their pids, if that is more than
    the share ``threshold``. Answered by on_memory."""

    pids: dict[str, int]
    threshold: float


class SendHub(Struct, frozen=True):
    """To the hub, on the link of the last on_hub_up. If the link cannot take it: on_hub_down."""

    message: Message


class Dial(Struct, frozen=True):
    """Dial the hub there. Answered by on_hub_up or on_hub_down."""

    endpoint: Endpoint


class DropHub(Struct, frozen=True):
    """Close the link to the hub; not answered, the core counts it as down already."""

    reason: str


class TakeStack(Struct, frozen=True):
    """Have the worker's process write down its threads on a signal, or (``native``) look at it with
    py-spy. Answered by on_stack_taken, unless there is no such signal here."""

    worker: str
    pid: int
    number: int
    native: bool = False


class TakeSample(Struct, frozen=True):
    """Measure the machine. Answered by on_sample."""


class ReadIdle(Struct, frozen=True):
    """Read the sources that say whether the machine is used. Answered by on_readings."""


class Ready(Struct, frozen=True):
    """Once in life: the hub has welcomed us, and the first worker waits (or none is wanted)."""


class GiveUp(Struct, frozen=True):
    """The hub will never take us as we are; ``kind`` names the error class of guactors.errors."""

    kind: str
    detail: str


class Note(Struct, frozen=True):
    """A line for the provider's log; ``level`` is ``info``, ``warning`` or ``error``."""

    level: str
    text: str


Effect = (
    StartWorker | LimitWorker | KillWorker | HaltWorker | DropWorker | SendWorker
    | PrepareRoot | RemoveRoot | NeedImage | BuildPart | RemovePart | SendHub | Dial | DropHub
    | TakeSample | TakeStack | ReadIdle | Ready | GiveUp | MeasureMemory | Note
)  # fmt: skip
