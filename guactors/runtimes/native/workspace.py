"""The files of an instance that lie in a directory of this machine.

Owns: how a path in the instance becomes a file here, and how files are read and written there. Must
never: open what is outside the directory, by ``..``, by an absolute link, or by a link that
somebody puts there meanwhile: every part of a path is opened from the one above it.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

from guactors.errors import ImageRefused, UsageError
from guactors.images.archive import read_archive
from guactors.images.directory import scan_directory
from guactors.images.members import LIMITS, Budget, Gate
from guactors.images.tar_writer import stream_of, tar_of
from guactors.images.unpack import unpack_over

COPY: Final = 1 << 20
_HOPS: Final = 40
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | _CLOEXEC
_DIRECTORY: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NOFOLLOW
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
"""A pipe in the place of a file must not stop us."""


class Workspace:
    """``root``: the directory, which exists. Its programs may change anything in it at any time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """See Driver."""
        if tar:
            with self._directory(_parts(path), path, make=True) as directory:
                gate = Gate(Budget(LIMITS), f"the archive for {path!r}")
                try:
                    unpack_over(read_archive(stream_of(data), gate), gate, directory)
                except ImageRefused as error:
                    raise UsageError(str(error)) from None
            return
        *above, name = _named(path)
        with self._directory(above, path, make=True) as directory:
            fresh = f".{name[:64]}.{os.getpid()}.gu-part"
            fd = os.open(
                fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o644, dir_fd=directory
            )
            try:
                with os.fdopen(fd, "wb", buffering=0) as file:
                    for piece in data:
                        left = memoryview(piece)
                        while left:
                            left = left[file.write(left) :]
                os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(fresh, dir_fd=directory)
                raise

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """See Driver."""
        if tar:
            yield from self._tar(path)
            return
        *above, name = self._followed(_named(path), path)
        with self._directory(above, path) as directory:
            fd = _open_file(name, path, directory)
        with os.fdopen(fd, "rb", buffering=0) as file:
            while piece := file.read(COPY):
                yield piece

    def _tar(self, path: str) -> Iterator[bytes]:
        with self._directory(_parts(path), path) as directory:
            # Through the descriptor: the name may mean another directory by now.
            here = (
                Path(f"/proc/self/fd/{directory}") if _has_proc() else self.root / path.strip("/")
            )
            yield from tar_of(scan_directory(here))

    def inside(self, path: str) -> Path:
        """Where the existing ``path`` is on this machine, links followed. Raises UsageError."""
        return self.root.joinpath(*self._followed(_parts(path), path))

    # --- ways -----------------------------------------------------------------------------------

    @contextmanager
    def _directory(self, parts: list[str], path: str, *, make: bool = False) -> Iterator[int]:
        opened = [os.open(self.root, _DIRECTORY & ~_NOFOLLOW | _CLOEXEC)]
        try:
            for part in self._followed(parts, path, make=make):
                opened.append(_enter(opened[-1], part, path, make=make))
            yield opened[-1]
        finally:
            for fd in opened:
                os.close(fd)

    def _followed(self, parts: list[str], path: str, *, make: bool = False) -> list[str]:
        """The same place without a link on the way. What is missing may only be the last, or all
        from some part on where it is going to be made."""
        found: list[str] = []
        todo = list(reversed(parts))
        hops = 0
        while todo:
            part = todo.pop()
            if part == "..":
                if not found:
                    _refuse(path, "leads out of the instance")
                found.pop()
                continue
            here = self.root.joinpath(*found, part)
            try:
                target = os.readlink(here)
            except FileNotFoundError:
                if todo and not make:
                    raise UsageError(
                        f"{path!r} leads to nothing: there is no {'/'.join([*found, part])!r}"
                    ) from None
                target = ""
            except OSError:
                target = ""
            if not target:
                found.append(part)
                continue
            hops += 1
            if hops > _HOPS:
                _refuse(path, "goes round in links")
            if target.startswith("/"):
                _refuse(path, f"is a link out of the instance, to {target!r}")
            todo += [word for word in reversed(target.split("/")) if word not in {"", "."}]
        return found


def _parts(path: str) -> list[str]:
    if "\0" in path:
        raise UsageError(f"{path!r} is no path")
    if os.path.splitdrive(path)[0]:
        _refuse(path, "is outside the instance")
    parts = path.replace("\\", "/").split("/") if sys.platform == "win32" else path.split("/")
    return [part for part in parts if part not in {"", "."}]


def _named(path: str) -> list[str]:
    parts = _parts(path)
    if not parts or parts[-1] == ".." or path.endswith("/"):
        raise UsageError(f"{path!r} is the name of no file")
    return parts


def _enter(above: int, part: str, path: str, *, make: bool) -> int:
    for _ in range(2):
        try:
            return os.open(part, _DIRECTORY, dir_fd=above)
        except FileNotFoundError:
            if not make:
                raise UsageError(f"{path!r}: there is no directory {part!r}") from None
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=above)
        except OSError as error:
            raise UsageError(f"{path!r}: {part!r} is no directory ({error.strerror})") from None
    raise UsageError(f"{path!r}: {part!r} comes and goes")


def _open_file(name: str, path: str, directory: int) -> int:
    try:
        fd = os.open(name, os.O_RDONLY | _NOFOLLOW | _NONBLOCK, dir_fd=directory)
    except OSError as error:
        raise UsageError(f"{path!r} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{path!r} is no file")
    return fd


def _has_proc() -> bool:
    return os.path.isdir("/proc/self/fd")


def _refuse(path: str, why: str) -> NoReturn:
    raise UsageError(f"{path!r} {why}, and only what is in the instance may be used")


def bytes_below(root: Path) -> int:
    """Bytes on the disk below it; what comes and goes meanwhile may count or not."""
    total = 0
    waiting = [str(root)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    total += getattr(found, "st_blocks", -(-found.st_size // 512)) * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue
    return total
