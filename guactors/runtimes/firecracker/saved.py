"""A machine in one file: its state, its memory, the disk that it wrote.

Owns: the form of the file, and what must be as it was for the machine to go on. Must never: trust a
length in it, or write what was a hole.

``guactors.firecracker/1``, a line of JSON, and the parts one behind the other, each from a multiple
of 4096 bytes on.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

assert sys.platform == "linux", "Firecracker is for Linux"

import msgspec
from msgspec import Meta, Struct

from guactors.errors import RuntimeMissing, UsageError

MAGIC: Final = b"guactors.firecracker/1\n"
_HEAD: Final = 65536
_BLOCK: Final = 4096
_COPY: Final = 1 << 20
_Size = Annotated[int, Meta(ge=0, le=2**46)]
_Name = Annotated[str, Meta(pattern=r"^[a-z][a-z.]{0,30}$")]


class Key(Struct, frozen=True, forbid_unknown_fields=True):
    """What must be the same. ``firecracker``: its release, without the patch; ``cpu``: the model of
    the processor; ``kernel``: its hash."""

    firecracker: str
    cpu: str
    image: str
    kernel: str
    cpus: int
    memory_mib: int
    network: bool = False

    def differences(self, other: Key) -> list[str]:
        """Names of fields that are not the same."""
        mine, theirs = _plain(self), _plain(other)
        return [name for name, value in mine.items() if value != theirs[name]]


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """The line of JSON: what it needs, and the sizes of its parts in their order."""

    key: Key
    parts: Annotated[list[tuple[_Name, _Size]], Meta(max_length=8)]


def check(found: Key, here: Key, path: str) -> None:
    """Raise RuntimeMissing where a machine saved so cannot go on here."""
    different = found.differences(here)
    if different:
        was, now = _plain(found), _plain(here)
        what = ", ".join(f"{name} was {was[name]!r} and is {now[name]!r}" for name in different)
        raise RuntimeMissing(f"{path}: the machine that is saved there cannot go on here: {what}")


def read_head(path: str) -> Head:
    """What a file says of itself. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            data = file.read(_HEAD)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    line, end, _ = data.removeprefix(MAGIC).partition(b"\n")
    if not data.startswith(MAGIC) or not end:
        raise UsageError(f"{path}: no machine of Firecracker is saved there")
    try:
        head = msgspec.json.decode(line, type=Head)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from None
    if size != sum(map(_padded, [_HEAD, *(length for _, length in head.parts)])):
        raise UsageError(f"{path}: it is not as long as it says: it was cut, or not written whole")
    return head


def pack(path: str, key: Key, directory: Path, names: list[str]) -> None:
    """Write the files ``names`` of the directory to the new file ``path``, which appears whole or
    not at all, and is on the disk when this returns. Raises OSError."""
    parts = [(name, (directory / name).stat().st_size) for name in names]
    line = MAGIC + msgspec.json.encode(Head(key, parts)) + b"\n"
    assert len(line) <= _HEAD
    fresh = f"{path}.{os.getpid()}.gu-part"
    try:
        with open(fresh, "xb", buffering=0) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(line)
            at = _HEAD
            for name, size in parts:
                with (directory / name).open("rb", buffering=0) as source:
                    copy_sparse(source.fileno(), 0, file.fileno(), at, size)
                at += _padded(size)
            os.ftruncate(file.fileno(), at)
            os.fsync(file.fileno())
        os.rename(fresh, path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def unpack(path: str, head: Head, directory: Path) -> None:
    """Write its parts as new files of the directory. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        at = _HEAD
        for name, size in head.parts:
            with (directory / name).open("xb", buffering=0) as target:
                copy_sparse(file.fileno(), at, target.fileno(), 0, size)
                os.ftruncate(target.fileno(), size)
            at += _padded(size)


def copy_sparse(source: int, start: int, target: int, to: int, size: int) -> None:
    """Copy so many bytes, but not holes. Raises OSError where there are fewer."""
    at = start
    while (found := _next_data(source, at)) is not None and found < start + size:
        end = min(_next_hole(source, found), start + size)
        at = found
        while at < end:
            data = os.pread(source, min(_COPY, end - at), at)
            if not data:
                raise OSError(errno.EIO, "it became shorter")
            left = memoryview(data)
            while left:
                count = os.pwrite(target, left, to + at - start)
                at, left = at + count, left[count:]


def _next_data(fd: int, at: int) -> int | None:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _next_hole(fd: int, at: int) -> int:
    return os.lseek(fd, at, os.SEEK_HOLE)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _plain(key: Key) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(key)
    return found
