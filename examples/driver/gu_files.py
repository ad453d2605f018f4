"""Files of an instance in a directory: written and read by callers, changed by programs meanwhile.

Every part of a path is opened from the one above it, and no link is followed: whoever swaps a
directory for a link gains nothing by it.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from typing import IO, TYPE_CHECKING, BinaryIO, cast

assert sys.platform != "win32", "needs POSIX"

from gu_programs import Refused

if TYPE_CHECKING:
    import tarfile

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


class Transfer:
    """One under way. ``directory``: where ``name`` appears at the end, if that is a file; where an
    archive is unpacked, if ``name`` is empty; -1 for one that is read."""

    def __init__(
        self, file: IO[bytes], directory: int = -1, name: str = "", part: str = ""
    ) -> None:
        self.file = file
        self.directory = directory
        self.name = name
        self.part = part
        """What it is called until then."""


class Files:
    """Below ``root``, which exists."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._transfers: dict[int, Transfer] = {}

    def put(self, number: int, path: str, tar: bool) -> None:
        parts = split(path)
        if tar:
            self._transfers[number] = Transfer(self._spool(), self._enter(parts, path, make=True))
            return
        if not parts or path.endswith("/"):
            raise Refused("usage", f"{path!r} is the name of no file")
        directory = self._enter(parts[:-1], path, make=True)
        part = f".{parts[-1][:64]}.{number}.gu-part"
        try:
            fd = os.open(part, WRITE, 0o644, dir_fd=directory)
        except OSError:
            os.close(directory)
            raise
        self._transfers[number] = Transfer(os.fdopen(fd, "wb"), directory, parts[-1], part)

    def put_data(self, number: int, data: bytes) -> None:
        self._known(number).file.write(data)

    def put_end(self, number: int) -> None:
        found = self._known(number)
        try:
            if found.name:
                found.file.close()
                os.rename(
                    found.part, found.name, src_dir_fd=found.directory, dst_dir_fd=found.directory
                )
                found.part = ""
            else:
                found.file.seek(0)
                unpack(cast("BinaryIO", found.file), found.directory)
        finally:
            self.drop(number)

    def get(self, number: int, path: str, tar: bool) -> None:
        parts = split(path)
        above = self._enter(parts[:-1], path)
        try:
            if tar:
                # Imported where they are used: most instances never see an archive, and all of them
                # wait for their driver to start.
                import tarfile

                file = self._spool()
                with tarfile.open(fileobj=file, mode="w|") as archive:
                    pack(archive, above, parts[-1] if parts else "", path)
                file.seek(0)
            else:
                file = os.fdopen(open_file(parts[-1] if parts else "", above, path), "rb")
        finally:
            os.close(above)
        self._transfers[number] = Transfer(file)

    def get_data(self, number: int, most: int) -> bytes:
        return self._known(number).file.read(most)

    def drop(self, number: int) -> None:
        """Nothing of it is left; nothing happens where there is none."""
        found = self._transfers.pop(number, None)
        if found is None:
            return
        found.file.close()
        if found.directory >= 0:
            if found.part:
                os.unlink(found.part, dir_fd=found.directory)
            os.close(found.directory)

    def close(self) -> None:
        for number in list(self._transfers):
            self.drop(number)

    # --- helpers --------------------------------------------------------------------------------

    def _spool(self) -> IO[bytes]:
        import tempfile

        return tempfile.TemporaryFile(dir=os.path.dirname(self.root))

    def _known(self, number: int) -> Transfer:
        if number not in self._transfers:
            raise Refused("usage", f"there is no transfer {number}")
        return self._transfers[number]

    def _enter(self, parts: list[str], path: str, *, make: bool = False) -> int:
        here = os.open(self.root, DIRECTORY)
        return walk(here, parts, path, make=make)


def split(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts or "\0" in path:
        raise Refused("usage", f"{path!r} leads out of the instance")
    return parts


def walk(here: int, parts: list[str], path: str, *, make: bool) -> int:
    """The directory that is so far below ``here``, which is closed."""
    for part in parts:
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
            deeper = os.open(part, DIRECTORY, dir_fd=here)
        except OSError as error:
            raise Refused("usage", f"{path!r}: {part!r}: {error.strerror}") from None
        finally:
            os.close(here)
        here = deeper
    return here


def open_file(name: str, above: int, path: str) -> int:
    try:
        fd = os.open(name, READ, dir_fd=above)
    except OSError as error:
        raise Refused("usage", f"{path!r} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Refused("usage", f"{path!r} is no file")
    return fd


def pack(archive: tarfile.TarFile, above: int, name: str, path: str) -> None:
    """A file, or all that is in a directory."""
    try:
        top = os.open(name or ".", DIRECTORY, dir_fd=above)
    except OSError:
        with os.fdopen(open_file(name, above, path), "rb") as file:
            archive.addfile(archive.gettarinfo(arcname=name, fileobj=file), file)
        return
    try:
        for here, folders, names, fd in os.fwalk(".", dir_fd=top):
            inside = here.removeprefix(".").lstrip("/")
            for one in sorted(folders) + sorted(names):
                add(archive, fd, one, f"{inside}/{one}" if inside else one)
    finally:
        os.close(top)


def add(archive: tarfile.TarFile, above: int, name: str, inside: str) -> None:
    import tarfile

    found = os.lstat(name, dir_fd=above)
    member = tarfile.TarInfo(inside)
    member.mode, member.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
    if stat.S_ISREG(found.st_mode):
        with os.fdopen(open_file(name, above, inside), "rb") as file:
            member.size = os.fstat(file.fileno()).st_size
            archive.addfile(member, file)
    elif stat.S_ISDIR(found.st_mode):
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
    elif stat.S_ISLNK(found.st_mode):
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=above)
        archive.addfile(member)


def unpack(file: BinaryIO, root: int) -> None:
    """An archive below an open directory: directories, files and links; anything else is refused.
    A member whose name leads out spoils all of it, so names are looked at first."""
    import tarfile

    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            members = archive.getmembers()
            names = [split(member.name) for member in members]
            for member, parts in zip(members, names, strict=True):
                if parts:
                    place(archive, member, parts, root)
    except tarfile.TarError as error:
        raise Refused("usage", f"this is no archive: {error}") from None


def place(archive: tarfile.TarFile, member: tarfile.TarInfo, parts: list[str], root: int) -> None:
    above = walk(os.dup(root), parts[:-1], member.name, make=True)
    name = parts[-1]
    try:
        if member.isdir():
            os.close(walk(os.dup(above), [name], member.name, make=True))
            return
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=above)
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=above)
        elif member.isreg():
            data = archive.extractfile(member)
            assert data is not None
            mode = member.mode & 0o755 or 0o644
            with os.fdopen(os.open(name, WRITE, mode, dir_fd=above), "wb") as file:
                while piece := data.read(1 << 20):
                    file.write(piece)
        else:
            raise Refused("usage", f"{member.name!r} is no directory, file or link")
    finally:
        os.close(above)
