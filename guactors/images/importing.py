"""Images of other systems made images of ours.

Owns: telling by the content what a file is, and the way of each kind into the store. Must never:
store anything of an import that failed, or go by the name of a file.

| kind | what it is | kept as |
|---|---|---|
| ``directory`` | a root file system | as asked for |
| ``tar`` | one in an archive, of ``docker export``, say | as asked for |
| ``oci`` | an OCI layout, a directory or an archive | as asked for, layers flattened |
| ``docker`` | an archive of ``docker save`` | as asked for, layers flattened |
| ``squashfs`` | a file system of mksquashfs | as it is, without what follows it |
| ``gvmi`` | an image of Golem | as it is, without its trailer |

What is made anew goes through the rules of archives (``members``, ``tree``): owners, modes and
times stay (those of a directory do not, see ``build``); setuid bits and extended attributes are
dropped. What stays as it is may have them, and devices: only virtual machines mount it, and whoever
unpacks it checks it then.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, Literal, TypeAlias, get_args

from guactors.errors import ImageRefused, UsageError
from guactors.images.archive import is_zip, read_archive
from guactors.images.build import NO_TIME, add_rootfs, arch_word, build_image, python_of, report
from guactors.images.compression import PlainStream
from guactors.images.docker import find_saved, flatten_saved
from guactors.images.docker_config import ContainerConfig, ImageConfig, image_config
from guactors.images.gvmi import has_trailer, read_trailer
from guactors.images.layers import add_archive
from guactors.images.manifest import Config, Source
from guactors.images.members import Budget, Gate
from guactors.images.oci import find_image, flatten
from guactors.images.rootfs import RootMedia, check_media, write_rootfs
from guactors.images.shelf import open_shelf
from guactors.images.spool import Spool
from guactors.images.squashfs import MAGIC, read_squashfs, read_superblock, squashfs_pieces
from guactors.images.store import ImageStore
from guactors.images.tar_reader import read_tar
from guactors.images.tree import Tree
from guactors.images.users import FILE_MOST

ImageKind: TypeAlias = Literal["auto", "directory", "tar", "oci", "docker", "squashfs", "gvmi"]
_KINDS: Final = get_args(ImageKind)
_SAVED_NAME: Final = re.compile(
    r"blobs(/.*)?|oci-layout|index\.json|manifest\.json|repositories|layer\.tar"
    r"|[0-9a-f]{64}(\.json|/.*)?",
    re.ASCII,
)
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", re.ASCII)
_HEAD: Final = 4


def import_image(
    path: Path,
    store: ImageStore,
    *,
    kind: ImageKind = "auto",
    name: str,
    select: str = "",
    media: RootMedia = "auto",
    arch: str = "",
) -> str:
    """Make an image of what is at ``path`` and add it to the store; returns its id.

    ``name``: what the image is called; ``select``: which one is meant of an archive with several,
    by its tag; ``media``: see :func:`build_image`; ``arch``: which one of several, and what is
    noted of one that does not say, this machine's if empty. Raises ImageRefused for what may not
    be in an image or is not what it says, UsageError for what is no image."""
    path = Path(path)
    if kind not in _KINDS:
        raise UsageError(f"{kind!r} is no kind of image: {', '.join(_KINDS)} are")
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if not (path.is_dir() or path.is_file()):
        raise UsageError(f"{path} is neither a file nor a directory")
    try:
        return _import(path, store, kind, name, select, media, arch)
    except OSError as error:
        raise UsageError(f"{path} cannot be imported: {error}") from error


def _import(
    path: Path,
    store: ImageStore,
    kind: ImageKind,
    name: str,
    select: str,
    media: RootMedia,
    arch: str,
) -> str:
    found = detect_kind(path) if kind == "auto" else kind
    if path.is_dir() and found in {"tar", "squashfs", "gvmi"}:
        raise UsageError(f"{path} is a directory, not a file of the kind {found}")
    if found == "directory":
        return build_image(path, store, name=name, media=media, arch=arch)
    arch = arch_word(arch or platform.machine())
    if found in {"squashfs", "gvmi"}:
        return _import_squashfs(path, store, name, arch, trailer=found == "gvmi")
    return _import_tree(path, store, name, arch, found, select, media)


def detect_kind(path: Path) -> ImageKind:
    """What is at ``path``, by its content. Raises UsageError when it is nothing of ours."""
    if path.is_dir():
        layout = (path / "oci-layout").is_file() and (path / "index.json").is_file()
        return "oci" if layout else "directory"
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if head == MAGIC:
            size = file.seek(0, 2)
            superblock = read_superblock(file, size, str(path))
            return "gvmi" if has_trailer(file, size, superblock.used) else "squashfs"
        file.seek(0)
        if is_zip(head):
            return "tar"
        return _detect_archive(file, path)


def _detect_archive(file: BinaryIO, path: Path) -> ImageKind:
    """A root file system shows itself by its first name that no saved image has."""
    seen: set[str] = set()
    gate = Gate(Budget(), str(path))
    try:
        for member, _ in read_tar(PlainStream(file, gate.budget, str(path)), gate):
            if member.parts and not _SAVED_NAME.fullmatch(member.name):
                return "tar"
            seen.add(member.name)
    except ImageRefused as fault:
        if seen:
            raise
        raise UsageError(
            f"{path} is no image: neither a tar or zip archive nor a squashfs ({fault})"
        ) from None
    if {"oci-layout", "index.json"} <= seen:
        return "oci"
    return "docker" if {"manifest.json", "repositories"} & seen else "tar"


def _import_tree(
    path: Path,
    store: ImageStore,
    name: str,
    arch: str,
    kind: ImageKind,
    select: str,
    media: RootMedia,
) -> str:
    wanted = check_media(media)
    with Spool() as spool:
        tree, found, source = _read_tree(path, kind, select, arch, spool)
        if found.os != "linux":
            raise ImageRefused(f"{path} is an image for {found.os!r}, only Linux runs here")
        report(tree)
        config = image_config(found.config, reader_of(tree), str(path))
        python = python_of(tree, config.env.get("PATH", ""))
        config = Config(
            entrypoint=config.entrypoint,
            env=config.env,
            workdir=config.workdir,
            user=config.user,
            python=python,
        )
        blob = write_rootfs(tree, store, wanted, str(path))
    return add_rootfs(
        store,
        blob,
        name=name,
        config=config,
        arch=found.architecture or arch,
        created=_time(found.created),
        source=source,
    )


def _read_tree(
    path: Path, kind: ImageKind, select: str, arch: str, spool: Spool
) -> tuple[Tree, ImageConfig, Source]:
    if kind == "tar":
        gate = Gate(Budget(), str(path))
        tree = Tree()
        with path.open("rb") as file:
            add_archive(tree, read_archive(file, gate), gate, spool)
        tree.check(str(path))
        return tree, ImageConfig(), Source()
    with open_shelf(path, spool) as shelf:
        if kind == "oci":
            image = find_image(shelf, arch=arch, select=select)
            digest = image.digest if image.digest.startswith("sha256:") else ""
            return flatten(shelf, image, spool), image.config, Source(oci=digest)
        saved = find_saved(shelf, select=select)
        return flatten_saved(shelf, saved, spool), saved.config, Source()


def _import_squashfs(path: Path, store: ImageStore, name: str, arch: str, *, trailer: bool) -> str:
    what = str(path)
    with path.open("rb") as file:
        size = file.seek(0, 2)
        superblock = read_superblock(file, size, what)
        found = read_trailer(file, size, superblock, what) if trailer else ContainerConfig()
        config = image_config(found, lambda inside: _squashfs_file(file, inside, what), what)
        pieces = squashfs_pieces(file, superblock, what)
        blob = store.ingest(pieces, role="rootfs", media="squashfs")
    return add_rootfs(store, blob, name=name, config=config, arch=arch)


def reader_of(tree: Tree) -> Callable[[str], bytes | None]:
    """What reads a small file of a tree."""

    def read(path: str) -> bytes | None:
        node = tree.find(path)
        if node is None or node.content is None or node.size > FILE_MOST:
            return None
        return b"".join(node.content.pieces())

    return read


def _squashfs_file(file: BinaryIO, path: str, what: str) -> bytes | None:
    """A small file of a squashfs."""
    gate = Gate(Budget(), what)
    with read_squashfs(file, gate) as entries:
        for member, content in entries:
            if member.name == path and member.size <= FILE_MOST:
                data = b""
                while more := content.read(FILE_MOST):
                    data += more
                return data
    return None


def _time(created: str | None) -> str:
    found = _TIME.fullmatch(created or "")
    return f"{found[1]}Z" if found else NO_TIME
