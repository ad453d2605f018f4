"""Files into and out of the image: the work of a child of the agent, which is in the image.

Owns: both ends of a transfer in the guest. Must never: follow a link for the host, leave half a
file where a whole one was, or read the mailbox disk through the page cache, which would be stale.

A file is its bytes. A tree is one after another: :data:`MEMBER`, the name, the target of a link,
and ``size`` bytes of a file's content. What goes wrong is told on stream 2, with the status
WRONG.
"""

from __future__ import annotations

import fcntl
import os
import sys

assert sys.platform == "linux", "runs in guests"

from guactors.runtimes.qemu.agent.stream import (
    ALIGN,
    Sink,
    Source,
    Wrong,
    aligned,
)
from guactors.runtimes.qemu.agent.wire import MEMBER, PIECE, SLOT, WRONG, WireError, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guactors.runtimes.qemu.agent.program import Place

_DIRECT = getattr(os, "O_DIRECT", 0)
_NOFOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
_TYPES = 0o170000
_DIRECTORY, _FILE, _LINK = 0o040000, 0o100000, 0o120000


def transfer(place: Place, home: str, fields: dict[str, object]) -> None:
    """What a question FILES asks for, by a child of the agent; paths begin at ``home``. ``op``:
    ``put``, ``get``, ``put-tree``, ``get-tree``; ``path``; ``slots``: of the box, for ``get``."""
    place.enter()
    if not os.path.isdir(home):
        os.makedirs(home)
    os.chdir(home)
    box = place.box
    operation, path = text(fields, "op"), text(fields, "path")
    if operation.startswith("put"):
        source = Source(box)
        (_put_tree if operation == "put-tree" else _put_file)(path, source)
    else:
        slots = fields.get("slots", [])
        if not isinstance(slots, list) or not all(isinstance(one, int) for one in slots):
            raise WireError("slots are no numbers")
        sink = Sink(box, slots)
        (_get_tree if operation == "get-tree" else _get_file)(path, sink)
        sink.end()


def prepare() -> None:
    """Import what a transfer needs, before it is in the image, where there is none of it."""
    aligned().release()


def guarded(run: Callable[[], None]) -> None:
    """Call it; what goes wrong is said on stream 2, and the process ends with WRONG."""
    try:
        run()
    except (Wrong, WireError) as error:
        _say(str(error))
    except OSError as error:
        name = f"{error.filename!r}: " if isinstance(error.filename, str) else ""
        _say(f"{name}{error.strerror}")
    else:
        return
    os._exit(WRONG)


def _say(said: str) -> None:
    os.write(2, said.encode("utf-8", "surrogateescape")[:PIECE])


# --- one file -------------------------------------------------------------------------------------


def _put_file(path: str, source: Source) -> None:
    above, _, name = path.rpartition("/")
    if not name or name in {".", ".."}:
        raise Wrong(f"{path!r} is the name of no file")
    if path.startswith("/"):
        above = "/" + above
    if above:
        os.makedirs(above, exist_ok=True)
    fresh = os.path.join(above, f".{name[:64]}.{os.getpid()}.gu-part")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o644)
    try:
        size = 0
        for piece in source.pieces():
            _write_file(fd, piece, size)
            size += len(piece)
        os.ftruncate(fd, size)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
    finally:
        os.close(fd)


def _write_file(fd: int, piece: memoryview, at: int) -> None:
    """Large pieces past the page cache where the file system can: an emulated processor copies
    slowly, and the disk does not need it."""
    whole = len(piece) // ALIGN * ALIGN
    if len(piece) == SLOT and not at % ALIGN and _set_direct(fd, on=True):
        at += _write_at(fd, piece[:whole], at)
        piece = piece[whole:]
        _set_direct(fd, on=False)
    _write_at(fd, piece, at)


def _write_at(fd: int, piece: memoryview, at: int | None) -> int:
    """All of it at an offset, None for where the file is at."""
    sent = 0
    while sent < len(piece):
        rest = piece[sent:]
        sent += os.write(fd, rest) if at is None else os.pwritev(fd, [rest], at + sent)
    return sent


def _set_direct(fd: int, *, on: bool) -> bool:
    flags = fcntl.fcntl(fd, 3)
    try:
        fcntl.fcntl(fd, 4, flags | _DIRECT if on else flags & ~_DIRECT)
    except OSError:  # not every file system has it
        return False
    return True


def _get_file(path: str, sink: Sink) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if os.fstat(fd).st_mode & _TYPES != _FILE:
        raise Wrong(f"{path!r} is no file")
    _content(fd, sink, None)


def _content(fd: int, sink: Sink, most: int | None) -> int:
    """``most``: bytes wanted, None for all there are."""
    direct = os.fstat(fd).st_size >= SLOT and _set_direct(fd, on=True)
    got = 0
    while most is None or got < most:
        room = sink.room()
        if most is not None:
            room = room[: most - got]
        if direct and (len(room) % ALIGN or got % ALIGN):
            direct = _set_direct(fd, on=False) and False
        try:
            part = os.preadv(fd, [room], got)
        except OSError:
            if not direct:
                raise
            direct = _set_direct(fd, on=False) and False
            continue
        if not part:
            break
        got += part
        sink.filled(part)
    return got


# --- a tree ---------------------------------------------------------------------------------------


def _put_tree(path: str, source: Source) -> None:
    os.umask(0)
    if path:
        os.makedirs(path, 0o755, exist_ok=True)
        os.chdir(path)
    stream = _Stream(source.pieces())
    times: list[tuple[bytes, int, int]] = []
    while head := stream.take(MEMBER.size, end=True):
        kind, mode, _, _, mtime, size, name_size, target_size = MEMBER.unpack(head)
        name = bytes(stream.take(name_size))
        target = bytes(stream.take(target_size))
        if kind == b"f":
            _make_file(name, mode, mtime, size, stream)
        elif kind == b"d":
            _make_directory(name)
            times.append((name, mode, mtime))
        else:
            _make_link(name, target, hard=kind == b"h")
    for name, mode, mtime in reversed(times):
        os.chmod(name, mode)
        os.utime(name, (mtime, mtime))


class _Stream:
    def __init__(self, pieces: Iterator[memoryview]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def some(self, most: int) -> memoryview:
        """Up to so many bytes, none at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return self._left
            self._left = piece
        found, self._left = self._left[:most], self._left[most:]
        return found

    def take(self, size: int, *, end: bool = False) -> bytes | memoryview:
        """Exactly so many; nothing where it may ``end`` and does."""
        found = self.some(size)
        if len(found) == size or (end and not found):
            return found
        whole = bytes(found)
        while len(whole) < size:
            more = self.some(size - len(whole))
            if not more:
                raise Wrong("the transfer was cut short")
            whole += bytes(more)
        return whole


def _make_file(name: bytes, mode: int, mtime: int, size: int, stream: _Stream) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        fd = os.open(name, flags, mode)
    except OSError:
        _clear(name)
        fd = os.open(name, flags, mode)
    while size:
        piece = stream.some(size)
        if not piece:
            raise Wrong("the transfer was cut short")
        size -= os.write(fd, piece) if len(piece) <= PIECE else _write_at(fd, piece, None)
    if mtime:
        os.utime(fd, (mtime, mtime))
    os.close(fd)


def _make_link(name: bytes, target: bytes, *, hard: bool) -> None:
    make = os.link if hard else os.symlink
    try:
        make(target, name)
    except OSError:
        _clear(name)
        make(target, name)


def _make_directory(name: bytes) -> None:
    try:
        os.mkdir(name, 0o755)
    except OSError:
        if not os.path.isdir(name):
            _clear(name)
            os.mkdir(name, 0o755)


def _clear(name: bytes) -> None:
    """Something is to be made there: its directory may be missing, another thing may be there."""
    above = os.path.dirname(name)
    if above:
        os.makedirs(above, 0o755, exist_ok=True)
    if os.path.isdir(name) and not os.path.islink(name):
        raise Wrong(f"{os.fsdecode(name)!r}: a directory already is there")
    if os.path.lexists(name):
        os.unlink(name)


def _get_tree(path: str, sink: Sink) -> None:
    found = os.lstat(path or ".")
    if found.st_mode & _TYPES == _DIRECTORY or os.path.isdir(path):
        os.chdir(path or ".")
        device = os.stat(".").st_dev
        _send_directory("", device, {}, sink)
    else:
        _send(os.path.basename(path), path, found, {}, sink)


def _send_directory(above: str, device: int, known: dict[tuple[int, int], str], sink: Sink) -> None:
    for name in sorted(os.listdir(above or ".")):
        path = f"{above}/{name}" if above else name
        found = os.lstat(path)
        if found.st_mode & _TYPES == _DIRECTORY:
            if found.st_dev == device:  # else other things are mounted there
                _header(sink, b"d", path, found)
                _send_directory(path, device, known, sink)
        else:
            _send(path, path, found, known, sink)


def _send(
    name: str,
    path: str,
    found: os.stat_result,
    known: dict[tuple[int, int], str],
    sink: Sink,
) -> None:
    kind = found.st_mode & _TYPES
    if kind == _LINK:
        _header(sink, b"l", name, found, target=os.readlink(path))
    elif kind == _FILE:
        if found.st_nlink > 1:
            first = known.setdefault((found.st_dev, found.st_ino), name)
            if first != name:
                _header(sink, b"h", name, found, target=first)
                return
        fd = os.open(path, os.O_RDONLY | _NOFOLLOW | os.O_NONBLOCK)
        _header(sink, b"f", name, found, size=found.st_size)
        # What was cut off meanwhile is missing now: zeros, as other archivers have it.
        left = found.st_size - _content(fd, sink, found.st_size)
        while left > 0:
            sink.add(bytes(min(left, PIECE)))
            left -= min(left, PIECE)
        os.close(fd)
    else:
        raise Wrong(f"{path!r} is neither a file nor a directory nor a link")


def _header(
    sink: Sink, kind: bytes, name: str, found: os.stat_result, *, size: int = 0, target: str = ""
) -> None:
    name_bytes, target_bytes = os.fsencode(name), os.fsencode(target)
    sink.add(
        MEMBER.pack(
            kind, found.st_mode & 0o7777, found.st_uid, found.st_gid, max(0, int(found.st_mtime)),
            size, len(name_bytes), len(target_bytes),
        )
        + name_bytes
        + target_bytes
    )  # fmt: skip
