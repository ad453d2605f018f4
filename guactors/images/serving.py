"""The disk work of the hub's images: one method a job, called in threads.

Owns: the hub's store and its list of uploads on the disk, the files that are open for uploads and
fetches. Must never: decide who may do what (``image_state`` does), or remove an image of the hub to
make room for another one: what somebody uploaded stays until it is removed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from guactors.errors import ImageRefused, UsageError
from guactors.home import private_directory
from guactors.image_state.jobs import (
    AddSignatures,
    Breathe,
    Close,
    Examine,
    Examined,
    Facts,
    Job,
    LetGo,
    ListAll,
    Load,
    Loaded,
    Look,
    Looked,
    Open,
    Put,
    Read,
    Remove,
    Save,
    Seal,
    Sweep,
)
from guactors.images import disk
from guactors.images.manifest import Blob, Manifest, image_id, parse_manifest, signers_of
from guactors.images.partial import Partial
from guactors.images.pins import Pin
from guactors.images.store import ImageStore, StoredImage

UPLOADS: Final = "uploads.json"


class _Fetched:
    """The open files of an image that is fetched. ``users``: threads that read."""

    def __init__(self, pin: Pin) -> None:
        self.pin = pin
        self.files: dict[str, BinaryIO] = {}
        self.users = 0
        self.left = False

    def close(self) -> None:
        """Nobody reads any more."""
        for file in self.files.values():
            file.close()
        self.pin.close()


class ImageServing:
    """``directory``: where the hub keeps what it must not forget; ``quota``: bytes of images;
    ``now`` returns epoch seconds. ``do`` may be called by several threads at a time."""

    def __init__(self, directory: Path, *, quota: int, now: Callable[[], float]) -> None:
        root = private_directory(directory)
        self._uploads = root / UPLOADS
        self._root = root / "images"
        self._store = ImageStore(self._root, quota=quota, now=now)
        self._quota = quota
        self._now = now
        self._guard = threading.Lock()
        self._opening = threading.Lock()
        self._sealing = threading.Lock()
        self._saving = threading.Lock()
        self._saved = 0
        self._partials: dict[str, Partial] = {}
        self._fetched: dict[str, _Fetched] = {}
        self._does: dict[type[Job], Callable[[Any], Any]] = {
            Load: self._load,
            Save: self._save,
            Examine: self._examine,
            Open: self._open,
            Put: self._put,
            Seal: self._seal,
            AddSignatures: lambda job: self._store.add_signature(job.image, job.signatures),
            Close: self._close,
            Look: self._look,
            ListAll: lambda _: [_facts(one) for one in self._store.list()],
            Read: self._read,
            LetGo: self._let_go,
            Remove: self._remove,
            Breathe: lambda _: None,
            Sweep: lambda _: self._store.collect(),
        }

    def do(self, job: Job) -> Any:
        """Do it, as ``image_state.jobs`` says. Raises ImageRefused for what cannot be done."""
        return self._does[type(job)](job)

    def close(self) -> None:
        """Close what is open, when no job runs any more; unfinished uploads are kept."""
        with self._guard:
            while self._partials:
                self._partials.popitem()[1].close()
            while self._fetched:
                self._fetched.popitem()[1].close()

    # --- the list of uploads --------------------------------------------------------------------

    def _load(self, _job: Load) -> Loaded:
        try:
            uploads = self._uploads.read_bytes()
        except FileNotFoundError:
            uploads = b""
        return Loaded(uploads, [image.id for image in self._store.list()])

    def _save(self, job: Save) -> None:
        with self._saving:
            if job.number > self._saved:
                with disk.refusing("the hub's list of uploads"):
                    disk.write_durable(self._uploads, job.uploads)
                self._saved = job.number

    # --- uploads --------------------------------------------------------------------------------

    def _examine(self, job: Examine) -> Examined:
        manifest = parse_manifest(job.manifest)
        signers = signers_of(job.manifest, job.signatures, self._now())
        image = image_id(job.manifest)
        there = None
        # One whose blobs were found damaged is mended by another upload.
        if self._store.has(image) and not self._store.missing_blobs(manifest):
            there = self._store.get(image).signers
        return Examined(image, manifest, signers, there)

    def _open(self, job: Open) -> dict[str, list[int]]:
        with self._opening:
            self._check_space(job.manifest)
            return {blob.sha3_256: self._begin(blob).missing() for blob in job.manifest.blobs}

    def _check_space(self, manifest: Manifest) -> None:
        blobs = self._store.missing_blobs(manifest)
        # An unfinished blob takes its whole length from the beginning, so it counts as used.
        need = sum(x.size for x in blobs if not (self._root / "partial" / x.sha3_256).exists())
        if not need or need <= self._quota - self._store.storage_used():
            return
        self._store.collect()
        used = self._store.storage_used()
        if need > self._quota - used:
            raise ImageRefused(
                f"the hub's image store is full: {need} more bytes do not fit, {used} of "
                f"{self._quota} are taken; remove images with gu image remove ID --hub, or ask "
                "the hub's owner for a larger one"
            )

    def _begin(self, blob: Blob) -> Partial:
        """The blob's file, opened unless it is. One that is sealed already takes nothing any more,
        and may have been removed since then."""
        with self._guard:
            partial = self._partials.get(blob.sha3_256)
        if partial is None or partial.sealed:
            partial = self._store.open_partial(blob)
            with self._guard:
                self._partials[blob.sha3_256] = partial
        return partial

    def _partial(self, blob: Blob) -> Partial:
        with self._guard:
            partial = self._partials.get(blob.sha3_256)
        if partial is not None:
            return partial
        with self._opening:
            return self._begin(blob)

    def _put(self, job: Put) -> None:
        partial = self._partial(job.blob)
        if _write(partial, job):
            return
        # Another upload is sealing it, or could not, or it was closed a moment ago.
        with self._sealing:
            if not partial.sealed:
                self._forget(partial)
                if not _write(self._partial(job.blob), job):
                    raise ImageRefused(f"the blob {job.blob.sha3_256} is being changed: try again")

    def _seal(self, job: Seal) -> None:
        with self._sealing:
            for blob in job.parsed.blobs:
                partial = self._partial(blob)
                if not partial.sealed:
                    try:
                        partial.seal()
                    except ImageRefused:
                        self._forget(partial)
                        raise
            self._store.add_image(job.manifest, job.signatures or None)

    def _forget(self, partial: Partial) -> None:
        with self._guard:
            if self._partials.get(partial.blob.sha3_256) is partial:
                del self._partials[partial.blob.sha3_256]
        partial.close()

    def _close(self, job: Close) -> None:
        for blob in job.blobs:
            with self._guard:
                partial = self._partials.pop(blob, None)
            if partial is not None:
                partial.close()

    # --- fetches --------------------------------------------------------------------------------

    def _remove(self, job: Remove) -> bool:
        if not self._store.has(job.image):
            return False
        self._store.remove(job.image)
        return True

    def _look(self, job: Look) -> Looked | None:
        if not self._store.has(job.image):
            return None
        found = self._store.get(job.image)
        return Looked(found.manifest, found.manifest_bytes, found.signatures, found.signers)

    def _read(self, job: Read) -> bytes:
        fetched = self._enter(job.image)
        try:
            file = self._file(fetched, job.image, job.blob)
            data = bytearray(job.blob.length(job.index))
            offset = job.index * job.blob.chunk
            with disk.refusing(f"chunk {job.index} of the blob {job.blob.sha3_256}"):
                count = disk.read_at(file.fileno(), memoryview(data), offset)
            if count != len(data):
                raise ImageRefused(f"the blob {job.blob.sha3_256} ends too early: fetch it again")
            return bytes(data)
        finally:
            self._exit(fetched)

    def _enter(self, image: str) -> _Fetched:
        with self._guard:
            fetched = self._fetched.get(image)
            if fetched is None:
                fetched = self._fetched[image] = _Fetched(self._store.pin(image))
            fetched.users += 1
            return fetched

    def _exit(self, fetched: _Fetched) -> None:
        with self._guard:
            fetched.users -= 1
            if fetched.left and not fetched.users:
                fetched.close()

    def _file(self, fetched: _Fetched, image: str, blob: Blob) -> BinaryIO:
        with self._guard:
            file = fetched.files.get(blob.sha3_256)
        if file is not None:
            return file
        # Outside of the guard, for a blob without a record of its check is hashed first.
        opened = self._store.open_blob(image, blob.role)
        with self._guard:
            file = fetched.files.setdefault(blob.sha3_256, opened)
        if file is not opened:
            opened.close()
        return file

    def _let_go(self, job: LetGo) -> None:
        with self._guard:
            fetched = self._fetched.pop(job.image, None)
            if fetched is None:
                return
            fetched.left = True
            if not fetched.users:
                fetched.close()


def _write(partial: Partial, job: Put) -> bool:
    """Whether the chunk is right, and there. Raises ImageRefused for one that is wrong."""
    try:
        partial.write(job.index, job.data)
    except UsageError:  # it takes nothing more; the chunk was found right before
        return partial.sealed
    return True


def _facts(image: StoredImage) -> Facts:
    manifest = image.manifest
    return Facts(
        image.id, manifest.name, image.size, manifest.created, image.signers, image.last_used
    )
