"""What the store keeps of each image besides its blobs.

Owns: ``images/``: manifest, signatures, local names, and when it was last used. Must never: believe
a manifest that does not hash to its directory's name. The caller holds the store's lock.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from guactors.errors import ImageRefused
from guactors.images import disk
from guactors.images.manifest import ID_PREFIX, Manifest, image_id, parse_manifest

MANIFEST: Final = "manifest.json"
SIGNATURES: Final = "manifest.sig"
META: Final = "meta"
_UNFINISHED: Final = "."
"""What the names of directories begin with that are being made or removed."""
_REMEMBERED: Final = 256


class Meta(Struct, frozen=True):
    """``names``: by which it is known on this machine; nobody else trusts them."""

    names: list[str] = []


class Record(Struct, frozen=True):
    """An image as it is on the disk. ``signatures``: the bytes of the file, empty without one;
    ``last_used``: epoch seconds."""

    id: str
    manifest: Manifest
    manifest_bytes: bytes
    signatures: bytes
    names: list[str]
    last_used: float


class DamagedRecord(ImageRefused):
    """The manifest on the disk is not the one of that image."""


class Records:
    """The directory of all images."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._parsed: dict[str, Manifest] = {}

    def path(self, image: str) -> Path:
        """Where that image is, if it is there."""
        return self.directory / image.removeprefix(ID_PREFIX)

    def ids(self) -> list[str]:
        """All images, by id."""
        names = sorted(os.listdir(self.directory))
        return [ID_PREFIX + name for name in names if not name.startswith(_UNFINISHED)]

    def read(self, image: str) -> Record:
        """Raises ImageRefused when it is not there, DamagedRecord when it is not what it was."""
        path = self.path(image)
        try:
            data = (path / MANIFEST).read_bytes()
            last_used = (path / META).stat().st_mtime
            meta = (path / META).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if path.exists():
                raise DamagedRecord(f"files of the image {image} are missing") from None
            raise ImageRefused(
                f"the image {image} is not in this store: fetch or import it first"
            ) from None
        if image_id(data) != image:
            raise DamagedRecord(f"the manifest of the image {image} is damaged")
        try:
            signatures = (path / SIGNATURES).read_bytes()
        except FileNotFoundError:
            signatures = b""
        try:
            names = msgspec.json.decode(meta, type=Meta).names
        except (msgspec.MsgspecError, UnicodeError):
            raise DamagedRecord(f"the local names of the image {image} are damaged") from None
        return Record(image, self._manifest(image, data), data, signatures, names, last_used)

    def _manifest(self, image: str, data: bytes) -> Manifest:
        manifest = self._parsed.get(image)
        if manifest is None:
            try:
                manifest = parse_manifest(data)
            except ImageRefused as fault:  # of another release
                raise DamagedRecord(f"the image {image} cannot be used: {fault}") from None
            if len(self._parsed) >= _REMEMBERED:
                self._parsed.clear()
            self._parsed[image] = manifest
        return manifest

    def add(self, image: str, manifest: bytes, signatures: bytes) -> None:
        """Make the image appear, whole and durable."""
        path = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}new-", dir=self.directory))
        try:
            disk.write_durable(path / MANIFEST, manifest)
            disk.write_durable(path / META, msgspec.json.encode(Meta()))
            if signatures:
                disk.write_durable(path / SIGNATURES, signatures)
            os.replace(path, self.path(image))
        except BaseException:
            shutil.rmtree(path)
            raise
        disk.sync_directory(self.directory)

    def set_signatures(self, image: str, signatures: bytes) -> None:
        """Replace the signature file."""
        disk.write_durable(self.path(image) / SIGNATURES, signatures)

    def set_names(self, image: str, names: list[str], last_used: float) -> None:
        """Replace the local names."""
        path = self.path(image) / META
        disk.write_durable(path, msgspec.json.encode(Meta(names)))
        os.utime(path, (last_used, last_used))

    def touch(self, image: str, now: float) -> None:
        """It is used at this moment, epoch seconds; nothing when it is gone by then."""
        with suppress(FileNotFoundError):
            os.utime(self.path(image) / META, (now, now))

    def drop(self, image: str) -> None:
        """Make the image disappear at once, and then its files."""
        gone = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}gone-", dir=self.directory))
        os.replace(self.path(image), gone / "image")
        shutil.rmtree(gone)

    def set_aside(self, image: str, quarantine: Path) -> None:
        """Move what is damaged out of the way, unless somebody did so before."""
        path = self.path(image)
        if path.exists():
            aside = Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=quarantine))
            os.replace(path, aside / "image")

    def sweep(self) -> None:
        """Remove what a killed process left half made or half removed."""
        for name in os.listdir(self.directory):
            if name.startswith(_UNFINISHED):
                shutil.rmtree(self.directory / name)
