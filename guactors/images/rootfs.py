"""The root file system of an image: read as members, and made of a tree.

Owns: which media there are and how each is read and written. Must never: take a blob by a path, or
trust one because it is in the store: whoever signed an image may have packed it badly.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, TypeAlias

from guactors.errors import ImageRefused, UsageError
from guactors.images import disk
from guactors.images.archive import read_archive
from guactors.images.layers import add_archive
from guactors.images.manifest import Blob, Media
from guactors.images.members import COPY, Budget, Entries, Gate
from guactors.images.spool import Spool
from guactors.images.squashfs import read_squashfs
from guactors.images.store import ImageStore
from guactors.images.tar_writer import gzip_of, tar_of
from guactors.images.tree import Tree
from guactors.runtimes.tools import find_tool, squash

RootMedia: TypeAlias = Literal["auto", "squashfs", "tar", "tar+gzip"]
_MEDIA: Final = ("auto", "squashfs", "tar", "tar+gzip")


@contextmanager
def read_rootfs(store: ImageStore, image_id: str, gate: Gate) -> Iterator[Entries]:
    """The members of an image's root file system, from the sealed blob's descriptor, checked.

    Raises ImageRefused, also while they are read; UsageError where unsquashfs is missing."""
    media = store.get(image_id).manifest.blob("rootfs").media
    with store.open_blob(image_id, "rootfs") as file:
        if media == "squashfs":
            with read_squashfs(file, gate) as entries:
                yield entries
        elif media in {"tar", "tar+gzip"}:
            yield read_archive(file, gate)
        else:
            raise ImageRefused(f"{gate.what}: files cannot be read from a root of the kind {media}")


def read_tree(store: ImageStore, image_id: str, spool: Spool) -> Tree:
    """The whole root file system of an image, checked, its contents in ``spool``."""
    what = f"the image {image_id}"
    gate = Gate(Budget(), what)
    tree = Tree()
    with read_rootfs(store, image_id, gate) as entries:
        add_archive(tree, entries, gate, spool)
    tree.check(what)
    return tree


def check_media(media: str) -> Media:
    """What ``auto`` means on this machine, or ``media`` itself. Raises UsageError for unknown ones
    and for what this machine cannot make."""
    if media not in _MEDIA:
        raise UsageError(f"{media!r} is no form of a root file system: {', '.join(_MEDIA)} are")
    if media == "auto":
        return "squashfs" if find_tool("mksquashfs") else "tar+gzip"
    if media == "squashfs":
        return "squashfs"
    return "tar" if media == "tar" else "tar+gzip"


def write_rootfs(tree: Tree, store: ImageStore, media: Media, what: str) -> Blob:
    """Store a checked tree as a blob. The same tree gives the same blob: as ``tar`` everywhere, as
    ``tar+gzip`` and ``squashfs`` with the same releases of zlib and of mksquashfs."""
    if media == "tar":
        return store.ingest(tar_of(tree), role="rootfs", media=media)
    if media == "tar+gzip":
        return store.ingest(gzip_of(tar_of(tree)), role="rootfs", media=media)
    with disk.refusing(what), tempfile.TemporaryDirectory(prefix="gu-squashfs-") as directory:
        packed = Path(directory, "rootfs")
        newest = max((node.itself.mtime for _, node in tree.walk()), default=0)
        squash(tar_of(tree), packed, what, newest)
        return store.ingest(_pieces(packed), role="rootfs", media=media)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(COPY):
            yield data
