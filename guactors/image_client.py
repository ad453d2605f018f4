"""Images between the store of this machine and the hub: push, pull, list, remove.

Owns: what is sent and asked in which order, and going on after a broken connection. Must never:
send or keep what was not verified: the store does that, on both ways.

``push`` and ``pull`` use a client that is there and end with its link; ``push_patiently`` and
``pull_patiently`` dial by themselves, as often as it takes while chunks still get through. What was
sent is never sent again, on either way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, Final, TypeVar

from guactors.errors import HubUnreachable, ImageRefused, MailboxFull
from guactors.grid_client import GridClient
from guactors.images.manifest import Blob, Manifest, image_id, parse_manifest
from guactors.images.partial import Partial
from guactors.images.store import ImageStore, StoredImage
from guactors.messages import (
    AskChunk,
    AskImage,
    AskImages,
    ChunkIs,
    Done,
    ImageIs,
    ImageList,
    ImageRow,
    OfferImage,
    PutChunk,
    RemoveImage,
    SealImage,
    WantChunks,
)

WINDOW: Final = 4
"""Chunks under way at a time."""
CHUNK_WITHIN: Final = 120.0
"""Seconds for the next answer while chunks are under way: slow lines are fine, dead ones not."""
DISK_WITHIN: Final = 600.0
"""Seconds for an answer that may wait for gigabytes on the hub's disk."""
FAILURES: Final = 5
"""Connections in a row that may break before a single chunk got through."""
PAUSE: Final = 1.0
"""Seconds until the second of them, doubled for each further one."""

Progress = Callable[[int, int], None]
"""Called with the bytes that got through so far and all bytes of the image."""
Dial = Callable[[], GridClient]
T = TypeVar("T")


def _silent(_done: int, _total: int) -> None:
    """Nobody looks."""


def list_images(client: GridClient) -> list[ImageRow]:
    """The images at the hub that this user may use."""
    answer = client.ask(AskImages(request=0), timeout=DISK_WITHIN)
    assert isinstance(answer, ImageList)
    return answer.images


def fetch_manifest(client: GridClient, image: str) -> tuple[bytes, bytes]:
    """The manifest of an image at the hub, and its signature file, empty without one. Raises
    ImageRefused unless it is the manifest of that image."""
    answer = client.ask(AskImage(request=0, image=image), timeout=DISK_WITHIN)
    assert isinstance(answer, ImageIs)
    found = image_id(answer.manifest)
    if found != image:
        raise ImageRefused(f"the hub sent the manifest of {found} for that of {image}")
    return answer.manifest, answer.signatures


def remove(client: GridClient, image: str) -> str:
    """Remove an image at the hub; what it says about that."""
    answer = client.ask(RemoveImage(request=0, image=image), timeout=DISK_WITHIN)
    assert isinstance(answer, Done)
    return answer.text


# --- push ----------------------------------------------------------------------------------------


def push(client: GridClient, store: ImageStore, image: str, progress: Progress = _silent) -> str:
    """Upload an image with its signatures; what the hub says at the end."""
    with _opened(store, image) as source:
        return source.send(client, progress)


def push_patiently(dial: Dial, store: ImageStore, image: str, progress: Progress = _silent) -> str:
    """As ``push``, going on after a connection broke."""
    with _opened(store, image) as source:
        return _patiently(dial, source.send, progress)


class _Source:
    """An image of the store whose files are open."""

    def __init__(self, image: StoredImage, files: dict[str, BinaryIO]) -> None:
        self._image = image
        self._files = files
        self._blobs = {blob.sha3_256: blob for blob in image.manifest.blobs}

    def send(self, client: GridClient, progress: Progress) -> str:
        """Offer, the chunks that the hub wants, seal."""
        image = self._image
        offer = OfferImage(0, image.manifest_bytes, image.signatures)
        answer = client.ask(offer, timeout=DISK_WITHIN)
        if isinstance(answer, Done):
            progress(image.size, image.size)
            return answer.text
        assert isinstance(answer, WantChunks)
        wanted = [
            (self._blobs[part.blob], index) for part in answer.missing for index in part.chunks
        ]
        done = image.size - sum(blob.length(index) for blob, index in wanted)
        progress(done, image.size)
        questions = (
            PutChunk(0, image.id, blob.sha3_256, index, self._read(blob, index))
            for blob, index in wanted
        )
        for question, _ in client.ask_many(questions, window=WINDOW, timeout=CHUNK_WITHIN):
            assert isinstance(question, PutChunk)
            done += len(question.data)
            progress(done, image.size)
        sealed = client.ask(SealImage(0, image.id), timeout=DISK_WITHIN)
        assert isinstance(sealed, Done)
        return sealed.text

    def _read(self, blob: Blob, index: int) -> bytes:
        file = self._files[blob.sha3_256]
        file.seek(index * blob.chunk)
        data = bytearray()
        while len(data) < blob.length(index):
            more = file.read(blob.length(index) - len(data))
            if not more:
                raise ImageRefused(f"the blob {blob.sha3_256} ends too early: import it again")
            data += more
        return bytes(data)


@contextmanager
def _opened(store: ImageStore, image: str) -> Iterator[_Source]:
    """Opening may hash all of it, and a client that does not answer for so long would be lost to
    the hub: so this comes before the dial."""
    found = store.get(image)
    with ExitStack() as stack:
        stack.enter_context(store.pin(image))
        files = {
            blob.sha3_256: stack.enter_context(store.open_blob(image, blob.role))
            for blob in found.manifest.blobs
        }
        yield _Source(found, files)


# --- pull ----------------------------------------------------------------------------------------


def pull(client: GridClient, store: ImageStore, image: str, progress: Progress = _silent) -> None:
    """Fetch an image with its signatures into the store."""
    manifest, signatures = fetch_manifest(client, image)
    with _Target(store, image, parse_manifest(manifest)) as target:
        target.receive(client, progress)
        target.seal()
    store.add_image(manifest, signatures or None)


def pull_patiently(dial: Dial, store: ImageStore, image: str, progress: Progress = _silent) -> None:
    """As ``pull``, going on after a connection broke."""
    with dial() as client:
        manifest, signatures = fetch_manifest(client, image)
    # Looking at what an earlier try left may take long: the hub is not kept waiting meanwhile.
    with _Target(store, image, parse_manifest(manifest)) as target:
        _patiently(dial, target.receive, progress)
        target.seal()
    store.add_image(manifest, signatures or None)


class _Target(ExitStack):
    """The unfinished blobs of an image."""

    def __init__(self, store: ImageStore, image: str, manifest: Manifest) -> None:
        super().__init__()
        self._image = image
        self._size = manifest.size
        self._blobs: dict[str, Partial] = {}
        try:
            for blob in manifest.blobs:
                if blob.sha3_256 not in self._blobs:
                    partial = self.enter_context(store.open_partial(blob))
                    self._blobs[blob.sha3_256] = partial
        except BaseException:
            self.close()
            raise

    def receive(self, client: GridClient, progress: Progress) -> None:
        """Ask for the chunks that are missing, and write them."""
        questions = [
            AskChunk(0, self._image, name, index)
            for name, partial in self._blobs.items()
            for index in partial.missing()
        ]
        left = sum(self._blobs[one.blob].blob.length(one.index) for one in questions)
        progress(self._size - left, self._size)
        for question, answer in client.ask_many(questions, window=WINDOW, timeout=CHUNK_WITHIN):
            assert isinstance(question, AskChunk)
            assert isinstance(answer, ChunkIs)
            self._blobs[question.blob].write(question.index, answer.data)
            left -= len(answer.data)
            progress(self._size - left, self._size)

    def seal(self) -> None:
        """All chunks are there."""
        for partial in self._blobs.values():
            partial.seal()


# --- patience ------------------------------------------------------------------------------------


def _patiently(dial: Dial, work: Callable[[GridClient, Progress], T], progress: Progress) -> T:
    """Do the work with one client after another. The first that does not get a word through ends
    it: nobody waits for a hub that is not there."""
    most = -1
    failures = 0

    def watch(done: int, total: int) -> None:
        nonlocal most, failures
        if done > most:
            most, failures = done, 0
        progress(done, total)

    while True:
        try:
            with dial() as client:
                return work(client, watch)
        except (HubUnreachable, MailboxFull):
            failures += 1
            if most < 0 or failures >= FAILURES:
                raise
        time.sleep(PAUSE * 2 ** (failures - 1))
