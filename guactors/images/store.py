"""The images of a machine: a private directory in which everything is named by its hash.

Owns: which images are there, their signatures and local names, who uses them, the quota. Must
never: add an image whose blobs are not all there, remove one in use, or hand out what it did not
verify.

::

    blobs/sha3-256/ab/<hex>    sealed, mode 0444, and <hex>.seal beside it (``blobs.py``)
    images/<hex>/              manifest.json, manifest.sig, meta (local names; its time: last used)
    partial/                   on the way in; what was begun is resumed
    pins/<hex>.*               locked by whoever uses the image
    quarantine/                what was found damaged
    lock                       held for each change of the above, never while data is moved

Several processes may use one directory. A process that is killed leaves no lock, no pin, and no
image with missing blobs; what else it leaves is resumed or collected. The methods block, some for
as long as it takes to hash gigabytes: an event loop calls them in a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from msgspec import Struct

from guactors.errors import ImageRefused, UsageError
from guactors.home import private_directory
from guactors.images import disk
from guactors.images.blobs import Blobs
from guactors.images.collecting import Candidate, victims
from guactors.images.manifest import (
    ID_PREFIX,
    Blob,
    Manifest,
    Media,
    Role,
    image_id,
    merge_signatures,
    parse_image_id,
    parse_manifest,
    signers_of,
)
from guactors.images.partial import Partial
from guactors.images.pins import Pin, Pins
from guactors.images.records import DamagedRecord, Record, Records

STALE: Final = 24 * 3600.0
"""Seconds after which what was left unfinished, or is part of no image, is removed."""

log = logging.getLogger("guactors.images")


class StoredImage(Struct, frozen=True, kw_only=True):
    """An image of the store. ``signatures``: the signature file, empty without one; ``signers``:
    the keys whose signatures count at this moment; ``size``: bytes of its blobs; ``last_used``:
    epoch seconds; ``names``: local ones, for people."""

    id: str
    manifest: Manifest
    manifest_bytes: bytes
    signatures: bytes
    signers: frozenset[str]
    size: int
    last_used: float
    names: list[str]


class ImageStore:
    """The store in the directory ``root``, which is made if it is missing.

    ``quota``: the most bytes it may take; ``now``: returns the time in epoch seconds. All methods
    raise ImageRefused for what is not there, not right, or too much."""

    def __init__(self, root: Path, *, quota: int, now: Callable[[], float]) -> None:
        self._root = private_directory(root)
        self._quota = quota
        self._now = now
        self._records = Records(private_directory(root / "images"))
        self._pins = Pins(private_directory(root / "pins"))
        self._blobs = Blobs(root, self._lock, self._make_room)

    def __repr__(self) -> str:
        return f"<ImageStore {self._root} quota={self._quota}>"

    def _lock(self) -> AbstractContextManager[None]:
        return disk.locked(self._root / "lock")

    # Blobs.

    def ingest(
        self,
        source: Iterable[bytes] | BinaryIO,
        *,
        role: Role = "data",
        media: Media = "raw",
        expect: Blob | None = None,
    ) -> Blob:
        """Read a stream to its end and make a blob of it, which an image must take up within
        STALE seconds.

        ``expect``: what it must be; then ``role`` and ``media`` are not used, a stream that was cut
        short can be tried again and writes only what is missing, and one whose blob is here already
        is not read at all. Errors of the stream pass through."""
        return self._blobs.ingest(source, role, media, expect)

    def open_partial(self, blob: Blob, *, wait: float = 0.0) -> Partial:
        """Begin or resume a blob whose chunks come in any order; one that is here misses none.

        A blob has one writer: another one waits ``wait`` seconds and is refused then."""
        return self._blobs.open_partial(blob, wait=wait)

    def missing_blobs(self, manifest: Manifest) -> list[Blob]:
        """The blobs of an image that are not here, each once."""
        found = {blob.sha3_256: blob for blob in manifest.blobs}
        return [blob for blob in found.values() if not self._blobs.has(blob)]

    def open_blob(self, image: str, role: str, *, paranoid: bool = False) -> BinaryIO:
        """The content of a blob, from its beginning, verified as it is opened. Hand the descriptor
        on, never a path: another file may stand there by the time it is opened.

        ``paranoid``: hash it even if nothing shows that it changed. A blob that is not what it
        should be is put in quarantine."""
        blob = self._read(image).manifest.blob(role)
        file = self._blobs.open(blob, paranoid=paranoid)
        with self._lock():
            self._records.touch(parse_image_id(image), self._now())
        return file

    def blob_path(self, image: str, role: str) -> str:
        """Where a blob is that is open, for who can be given no descriptor. Of use only where a
        system lets nobody replace a file that is open, as Windows does."""
        return str(self._blobs.path(self._read(image).manifest.blob(role).sha3_256))

    # Images.

    def add_image(self, manifest: bytes, signatures: bytes | None = None) -> str:
        """Add the image whose manifest these bytes are; its blobs must be here. Returns its id.

        The signatures must be right; those of an image that is here already are added to it."""
        parsed = parse_manifest(manifest)
        image = image_id(manifest)
        checked = merge_signatures(manifest, None, signatures) if signatures else b""
        missing = self.missing_blobs(parsed)
        with self._lock():
            missing += [blob for blob in parsed.blobs if not self._blobs.there(blob)]
            if missing:
                raise ImageRefused(
                    f"the image {image} cannot be added: its {missing[0].role} blob "
                    f"{missing[0].sha3_256} is not in this store, fetch or import it first"
                )
            if not self._records.path(image).is_dir():
                with disk.refusing(f"the image {image}"):
                    self._records.add(image, manifest, checked)
            elif checked:
                self._add_signature(image, checked)
            self._records.touch(image, self._now())
        return image

    def add_signature(self, image: str, signatures: bytes) -> None:
        """Add the signatures in a signature file, each of which must be right."""
        with self._lock():
            self._add_signature(parse_image_id(image), signatures)

    def _add_signature(self, image: str, signatures: bytes) -> None:
        record = self._read_locked(image)
        # At the time 0 no signature has expired; a file that is damaged is replaced.
        there = record.signatures if self._signers(record, 0) else b""
        merged = merge_signatures(record.manifest_bytes, there, signatures)
        with disk.refusing(f"the signatures of the image {image}"):
            self._records.set_signatures(image, merged)

    def get(self, image: str) -> StoredImage:
        """An image by its id."""
        return self._stored(self._read(image))

    def has(self, image: str) -> bool:
        """Whether the image is here; its blobs are checked when they are opened."""
        return self._records.path(parse_image_id(image)).is_dir()

    def list(self) -> list[StoredImage]:
        """All images, those used last first. What is damaged is put in quarantine."""
        with self._lock():
            records = self._readable()
        return [self._stored(one) for one in sorted(records, key=lambda one: -one.last_used)]

    def remove(self, image: str) -> None:
        """Remove an image and the blobs that no other one has. Refused while it is in use."""
        image = parse_image_id(image)
        with self._lock():
            if image.removeprefix(ID_PREFIX) in self._pins.names():
                raise ImageRefused(
                    f"the image {image} is in use on this machine: end what runs in it first"
                )
            self._remove([self._read_locked(image)])

    def pin(self, image: str) -> Pin:
        """Have the image kept until the block ends: it is in use. Ends with this process, too."""
        image = parse_image_id(image)
        with self._lock():
            self._read_locked(image)
            self._records.touch(image, self._now())
            return self._pins.take(image.removeprefix(ID_PREFIX))

    def set_name(self, name: str, image: str) -> None:
        """Have ``name`` mean that image on this machine; what it meant before is forgotten."""
        image = parse_image_id(image)
        if not name or name.lower().startswith(ID_PREFIX) or not name.isprintable():
            raise UsageError(f"{name!r} cannot be the name of an image")
        with self._lock():
            self._read_locked(image)
            for record in self._readable():
                names = [one for one in record.names if one != name]
                if record.id == image:
                    names.append(name)
                if names != record.names:
                    self._records.set_names(record.id, names, record.last_used)

    def resolve(self, text: str) -> str:
        """The id that a person means by a local name, or by the id itself. Before a job is
        submitted, never after: names are not trusted."""
        with self._lock():
            for record in self._readable():
                if text in record.names:
                    return record.id
        return parse_image_id(text)

    def _read(self, image: str) -> Record:
        image = parse_image_id(image)
        with self._lock():
            return self._read_locked(image)

    def _read_locked(self, image: str) -> Record:
        try:
            return self._records.read(image)
        except DamagedRecord as fault:
            self._records.set_aside(image, self._blobs.quarantine)
            message = f"{fault}. It was put in quarantine: fetch or import it again"
            log.warning("%s", message)
            raise ImageRefused(message) from None

    def _readable(self) -> Sequence[Record]:
        """All images but the damaged ones, which are put in quarantine and logged."""
        found = []
        for image in self._records.ids():
            with suppress(ImageRefused):
                found.append(self._read_locked(image))
        return found

    def _signers(self, record: Record, now: float) -> frozenset[str]:
        """Nobody where the file is damaged: what cannot be verified counts for nothing."""
        try:
            return signers_of(record.manifest_bytes, record.signatures, now)
        except ImageRefused as fault:
            log.warning("the signatures of the image %s do not count: %s", record.id, fault)
            return frozenset()

    def _stored(self, record: Record) -> StoredImage:
        return StoredImage(
            id=record.id,
            manifest=record.manifest,
            manifest_bytes=record.manifest_bytes,
            signatures=record.signatures,
            signers=self._signers(record, self._now()),
            size=record.manifest.size,
            last_used=record.last_used,
            names=record.names,
        )

    # Room.

    def storage_used(self) -> int:
        """Bytes on the disk; a blob of several images counts once, an unfinished one whole."""
        return self._blobs.used() + sum(
            found.st_size for _, found in disk.sizes(self._records.directory)
        )

    def collect(self, *, need: int = 0, stale: float = STALE) -> int:
        """Remove what was left unfinished or belongs to no image for ``stale`` seconds; then, while
        ``need`` more bytes do not fit, images that are not in use, longest unused first.

        Returns the bytes that became free."""
        with self._lock():
            before = self.storage_used()
            self._sweep(stale)
            self._make_room(need, need)
            return before - self.storage_used()

    def _make_room(self, need: int, wish: int) -> int:
        """The lock is held. Nothing is removed for a mere wish."""
        spare = self._quota - self.storage_used()
        if spare < need:
            self._sweep(STALE)
            self._blobs.empty_quarantine()
            spare = self._quota - self.storage_used()
        if spare >= need:
            return min(spare, wish)
        records = self._readable()
        pinned = self._pins.names()
        chosen = victims(
            [
                Candidate(
                    record.id,
                    record.last_used,
                    frozenset(blob.sha3_256 for blob in record.manifest.blobs),
                    record.id.removeprefix(ID_PREFIX) in pinned,
                )
                for record in records
            ],
            self._blobs.sizes(),
            need - spare,
        )
        if chosen is None:
            raise ImageRefused(self._full(need, records, pinned))
        ids = {one.id for one in chosen}
        self._remove([record for record in records if record.id in ids])
        return need

    def _full(self, need: int, records: Sequence[Record], pinned: set[str]) -> str:
        busy = sum(one.id.removeprefix(ID_PREFIX) in pinned for one in records)
        return (
            f"the image store is full: {need} more bytes do not fit, {self.storage_used()} of "
            f"{self._quota} are taken, and removing all images that are not in use would not be "
            f"enough ({busy} of {len(records)} are in use): end what runs in them, wait for the "
            "transfers under way, or give the store a larger quota"
        )

    def _remove(self, records: Sequence[Record]) -> None:
        for record in records:
            self._records.drop(record.id)
        kept = {blob.sha3_256 for one in self._readable() for blob in one.manifest.blobs}
        for name in {blob.sha3_256 for one in records for blob in one.manifest.blobs} - kept:
            self._blobs.remove(name)

    def _sweep(self, stale: float) -> None:
        before = self._now() - stale
        self._pins.names()
        self._records.sweep()
        self._blobs.sweep(before)
        kept = {blob.sha3_256 for one in self._readable() for blob in one.manifest.blobs}
        for name in self._blobs.sizes().keys() - kept:
            if self._blobs.wanted_at(name) < before:
                self._blobs.remove(name)
