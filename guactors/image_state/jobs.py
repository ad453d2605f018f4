"""What the room of images asks of the disk, and the answers.

Owns: these words. Must never: cross a process border, or hold behaviour. ``images.serving`` does
the jobs, in threads; ``image_actor`` carries them.

A job that cannot be done is answered by the error itself, one of ``guactors.errors``.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from guactors.images.manifest import Blob, Manifest
from guactors.scheduling.events import Effect, Event


class Job(Struct, frozen=True):
    """Base of all jobs. Answered by None, unless it says otherwise."""


class Load(Job, frozen=True):
    """What is there already. Answered by Loaded."""


class Save(Job, frozen=True):
    """Keep the list of uploads. A smaller ``number`` than that of a later one is ignored."""

    number: int
    uploads: bytes


class Examine(Job, frozen=True):
    """Is that an image, and is it here? Answered by Examined."""

    manifest: bytes
    signatures: bytes


class Open(Job, frozen=True):
    """Make room for an image, and begin or resume its blobs. Answered by the chunks that are not
    on the disk, ``dict[str, list[int]]`` by the names of the blobs."""

    manifest: Manifest


class Put(Job, frozen=True):
    """Check a chunk, and write it unless it is there."""

    blob: Blob
    index: int
    data: bytes


class Seal(Job, frozen=True):
    """All chunks are there: add the image."""

    parsed: Manifest
    manifest: bytes
    signatures: bytes


class AddSignatures(Job, frozen=True):
    """To an image that is there."""

    image: str
    signatures: bytes


class Close(Job, frozen=True):
    """Nobody uploads these blobs now; what is there is kept for later."""

    blobs: list[str]


class Look(Job, frozen=True):
    """An image. Answered by Looked, None where there is none."""

    image: str


class ListAll(Job, frozen=True):
    """All images, those used last first. Answered by ``list[Facts]``."""


class Read(Job, frozen=True):
    """A chunk of a blob, whose image is kept from removal until LetGo. Answered by ``bytes``."""

    image: str
    blob: Blob
    index: int


class LetGo(Job, frozen=True):
    """Nobody fetches the image now."""

    image: str


class Remove(Job, frozen=True):
    """Remove an image and what only it has. Answered by whether it was there."""

    image: str


class Sweep(Job, frozen=True):
    """Remove what was left unfinished long ago."""


class Breathe(Job, frozen=True):
    """Nothing: the others have their turn, in the middle of something long."""


class Loaded(Struct, frozen=True):
    """``uploads``: what was saved last, empty at first. ``images``: the ids of those there are."""

    uploads: bytes
    images: list[str]


class Examined(Struct, frozen=True):
    """``signers``: who signed as the offer shows it. ``there``: the signers by which the image is
    known here, None if it is not here."""

    image: str
    manifest: Manifest
    signers: frozenset[str]
    there: frozenset[str] | None


class Facts(Struct, frozen=True):
    """A stored image, as listings show it. ``size`` in bytes, ``last_used`` in epoch seconds."""

    image: str
    name: str
    size: int
    created: str
    signers: frozenset[str]
    last_used: float


class Looked(Struct, frozen=True):
    """A stored image, as those who fetch it need it."""

    manifest: Manifest
    data: bytes
    signatures: bytes
    signers: frozenset[str]


class Do(Effect, frozen=True):
    """Do a job, in whatever order suits; answer with Did of the same ``ticket``."""

    ticket: int
    job: Job


class Did(Event, frozen=True):
    """``outcome``: the answer to the job, or a GuactorsError."""

    ticket: int
    outcome: Any
