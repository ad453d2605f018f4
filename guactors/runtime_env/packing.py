"""Directories, modules and functions as archives that travel: the same content, the same id.

Owns: reading them on the caller's machine, what is left out, the limit on their size. Must never:
follow a link out of a directory, or keep a time, an owner or a path of this machine in an archive.

An archive has the form of an image (``images/manifest.py``) with one plain tar, so that it is
stored, fetched in checked chunks and unpacked by what does that for images.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Final

from msgspec import Struct

from guactors.errors import ImageRefused, UsageError
from guactors.images.archive import read_archive
from guactors.images.directory import Skip, scan_directory
from guactors.images.manifest import (
    CHUNK,
    Manifest,
    chunk_hash,
    encode_manifest,
    image_id,
    new_blob,
)
from guactors.images.members import Budget, Gate, Kind
from guactors.images.tar_writer import END, file_header, padding, tar_of
from guactors.images.tree import Node, Tree
from guactors.images.unpack import unpack
from guactors.runtime_env.description import ARCHIVE

HOOK_FILE: Final = "hook.pickle"
_CREATED: Final = "1970-01-01T00:00:00Z"
LEFT_OUT: Final = (".git", "__pycache__", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache")
"""Names that are never packed."""
_SHOWN: Final = 5
_ARCHIVES: Final = (".zip", ".whl", ".tar", ".gz", ".tgz")
_MIB: Final = 2**20


class Archive(Struct, frozen=True):
    """``chunks``: the content of the one blob ``blob``."""

    id: str
    manifest: bytes
    blob: str
    chunks: list[bytes]


def pack_directory(path: str, excludes: Sequence[str], most: int) -> Archive:
    """A working directory, or what a zip of one holds. Raises UsageError for what cannot travel:
    more than ``most`` bytes, links that lead out, sockets, files that cannot be read."""
    return _pack(path, excludes, most, "")


def pack_module(given: str | ModuleType, excludes: Sequence[str], most: int) -> Archive:
    """Something to import: a package or module, the path of one, or a wheel or zip of several."""
    path = given if isinstance(given, str) else _path_of(given)
    found = Path(path).expanduser()
    if found.is_file() and found.suffix not in _ARCHIVES:
        data = found.read_bytes()
        _check_size(path, [(found.name, len(data))], most)
        return pack_file(found.name, data)
    return _pack(path, excludes, most, "" if found.is_file() else found.resolve().name)


def pack_file(name: str, data: bytes) -> Archive:
    """One file."""
    return _archive([file_header(name, len(data)), data, padding(len(data)), END])


def lines_of(path: str) -> list[str]:
    """The lines of a requirements file, without those that say nothing. Raises UsageError."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the requirements {path!r} cannot be read: {error}") from None
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _path_of(module: ModuleType) -> str:
    where = getattr(module, "__path__", None)
    found = next(iter(where), "") if where is not None else module.__file__ or ""
    if not found:
        raise UsageError(f"the module {module.__name__} has no file that could be sent")
    return str(found)


def _pack(path: str, excludes: Sequence[str], most: int, top: str) -> Archive:
    with _directory(Path(path).expanduser()) as directory:
        try:
            tree = scan_directory(directory, skip=_skip(excludes))
        except UsageError as fault:
            hint = "excludes= leaves it out"
            raise UsageError(f"runtime_env cannot send {path}: {fault}; {hint}") from None
        sizes = [("/".join(at), node.itself.size) for at, node in tree.walk()]
        _check_size(path, sizes, most)
        if top:
            below = Tree()
            below.root.children[top] = Node(Kind.DIRECTORY, children=tree.root.children)
            tree = below
        return _archive(list(tar_of(tree)))


@contextmanager
def _directory(found: Path) -> Iterator[Path]:
    """The directory itself, or a passing one with what the archive holds."""
    if found.is_dir():
        yield found
        return
    if not found.is_file():
        raise UsageError(f"runtime_env: {found} is no directory and no archive")
    with tempfile.TemporaryDirectory(prefix="gu-env-") as scratch, found.open("rb") as file:
        gate = Gate(Budget(), str(found))
        try:
            unpack(read_archive(file, gate), gate, Path(scratch, "all"))
        except ImageRefused as fault:
            raise UsageError(f"runtime_env cannot send {fault}") from None
        yield Path(scratch, "all")


def _skip(excludes: Sequence[str]) -> Skip:
    """Patterns as in .gitignore: one without a slash inside is of a name at any depth, one that
    ends in a slash of directories only."""

    def skip(path: str, directory: bool) -> bool:
        name = path.rpartition("/")[2]
        if name in LEFT_OUT or name.endswith(".pyc"):
            return True
        for pattern in excludes:
            if pattern.endswith("/") and not directory:
                continue
            wanted = pattern.rstrip("/").removeprefix("./")
            if "/" not in wanted:
                if fnmatch(name, wanted):
                    return True
            elif fnmatch(path, wanted.removeprefix("/")):
                return True
        return False

    return skip


def _check_size(path: str, sizes: Sequence[tuple[str, int]], most: int) -> None:
    total = sum(size for _, size in sizes)
    if total <= most:
        return
    largest = sorted(sizes, key=lambda one: -one[1])[:_SHOWN]
    shown = ", ".join(f"{name} ({size / _MIB:.1f} MiB)" for name, size in largest)
    raise UsageError(
        f"runtime_env: {path} has {total / _MIB:.1f} MiB, at most {most / _MIB:.1f} may travel; "
        f"the largest: {shown}. Leave some out with excludes=, put data where the providers find "
        'it, or allow more with config={"max_bytes": ...}'
    )


def _archive(pieces: Sequence[bytes]) -> Archive:
    data = b"".join(pieces)
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    blob = new_blob("rootfs", "tar", len(data), map(chunk_hash, chunks))
    manifest = encode_manifest(
        Manifest(name=ARCHIVE, arch="any", created=_CREATED, blobs=[blob], runtimes=["python"])
    )
    return Archive(image_id(manifest), manifest, blob.sha3_256, chunks)


def key_of(path: str | os.PathLike[str] | ModuleType) -> str | ModuleType:
    """By what one is known again within a session."""
    return path if isinstance(path, ModuleType) else os.path.abspath(os.fspath(path))
