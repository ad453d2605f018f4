"""Files into and out of the image: the work of a child of the agent, which is in the image.

Owns: both ends of a transfer in the guest. Must never: follow a link for the host, leave half a
file where a whole one was, or read the mailbox disk through the page cache, which would be stale.

A transfer is a stream of bytes, cut into records on the child's input (put) or output (get)::

    D u32 size, and so many bytes           in the line itself
    B u32 slot, u32 size                    in that slot of the mailbox disk
    A u32 slot                              the other way: the slot is free again
    E u32 0                                 the end, and all of it was right

A file is its bytes. A tree is one after another: u32 size of a header, the header (a value), and
``size`` bytes of a file's content. What goes wrong is told on stream 2, with the status WRONG.
"""

from __future__ import annotations

import os
import struct

from guactors.runtimes.qemu.agent.wire import PIECE, WireError, number, pack, text, unpack_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLOT = 2 << 20
WRONG = 3
_ALIGN = 4096
_HEADER_MOST = 65536
_DIRECT = getattr(os, "O_DIRECT", 0)
_NOFOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
_RECORD = struct.Struct("<cI")
_TYPES = 0o170000
_DIRECTORY, _FILE, _LINK = 0o040000, 0o100000, 0o120000


class Wrong(Exception):
    """What the host asked for cannot be done."""


def transfer(fields: dict[str, object], box: int) -> None:
    """What a question FILES asks for; the process is in the image, in its own directory. ``op``:
    ``put``, ``get``, ``put-tree``, ``get-tree``; ``path``; ``slots``: of the box, for ``get``."""
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


# --- the stream -----------------------------------------------------------------------------------


class Source:
    """What the host sends."""

    def __init__(self, box: int) -> None:
        self._box = box
        self._buffer: memoryview | None = None

    def pieces(self) -> Iterator[memoryview]:
        """One after another; each is of use until the next is asked for. Raises Wrong for a stream
        that is cut short."""
        while True:
            head = _exactly(_RECORD.size)
            kind, value = _RECORD.unpack(head)
            if kind == b"D" and value <= SLOT:
                yield memoryview(_exactly(value))
            elif kind == b"B":
                (size,) = struct.unpack("<I", _exactly(4))
                yield self._read(value, size)
                _write_all(1, _RECORD.pack(b"A", value))
            elif kind == b"E":
                return
            else:
                raise WireError("a transfer that is not understood")

    def _read(self, slot: int, size: int) -> memoryview:
        if self._buffer is None:
            self._buffer = aligned()
        if size > SLOT or self._box < 0:
            raise WireError("a slot of another size, or no mailbox disk")
        whole = -(-size // _ALIGN) * _ALIGN
        got = 0
        while got < size:
            part = os.preadv(self._box, [self._buffer[got:whole]], slot * SLOT + got)
            if not part:
                raise Wrong("the mailbox disk ends")
            got += part
        return self._buffer[:size]


class Sink:
    """What goes to the host."""

    def __init__(self, box: int, slots: list[int]) -> None:
        self._box = box
        self._free = slots if box >= 0 else []
        self._slots = len(self._free)
        self._buffer = aligned() if self._slots else memoryview(bytearray(PIECE))
        self._filled = 0

    def add(self, data: bytes | memoryview) -> None:
        """Bytes of the stream."""
        left = memoryview(data)
        while left:
            size = min(len(left), len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + size] = left[:size]
            self._filled += size
            left = left[size:]
            if self._filled == len(self._buffer):
                self.flush()

    def room(self) -> memoryview:
        """Where the next bytes may be put, ahead of ``filled``."""
        return self._buffer[self._filled :]

    def filled(self, size: int) -> None:
        """So many were put into ``room``."""
        self._filled += size
        if self._filled == len(self._buffer):
            self.flush()

    def flush(self) -> None:
        """Send what is held."""
        size, self._filled = self._filled, 0
        if size > PIECE:
            while not self._free:
                kind, slot = _RECORD.unpack(_exactly(_RECORD.size))
                if kind != b"A":
                    raise WireError("a transfer that is not understood")
                self._free.append(slot)
            slot = self._free.pop(0)
            whole = -(-size // _ALIGN) * _ALIGN
            sent = 0
            while sent < whole:
                sent += os.pwritev(self._box, [self._buffer[sent:whole]], slot * SLOT + sent)
            _write_all(1, _RECORD.pack(b"B", slot) + struct.pack("<I", size))
        elif size:
            _write_all(1, _RECORD.pack(b"D", size) + bytes(self._buffer[:size]))

    def end(self) -> None:
        """That was all."""
        self.flush()
        _write_all(1, _RECORD.pack(b"E", 0))


def aligned() -> memoryview:
    """A buffer that a disk may read into without the page cache."""
    import mmap  # not frozen into the interpreter: only who needs it waits for it

    return memoryview(mmap.mmap(-1, SLOT))


def _exactly(size: int) -> bytes:
    got = os.read(0, size)
    while len(got) < size:
        piece = os.read(0, size - len(got))
        if not piece:
            raise Wrong("the transfer was cut short")
        got += piece
    return got


def _write_all(fd: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


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
    whole = len(piece) // _ALIGN * _ALIGN
    if len(piece) == SLOT and not at % _ALIGN and _set_direct(fd, on=True):
        at += _write_at(fd, piece[:whole], at)
        piece = piece[whole:]
        _set_direct(fd, on=False)
    _write_at(fd, piece, at)


def _write_at(fd: int, piece: memoryview, at: int) -> int:
    sent = 0
    while sent < len(piece):
        sent += os.pwritev(fd, [piece[sent:]], at + sent)
    return sent


def _set_direct(fd: int, *, on: bool) -> bool:
    import fcntl

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
        if direct and (len(room) % _ALIGN or got % _ALIGN):
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
    times: list[tuple[str, int, int]] = []
    while head := stream.take(4, end=True):
        (size,) = struct.unpack("<I", head)
        if size > _HEADER_MOST:
            raise WireError("a header that is too long")
        _make(unpack_dict(bytes(stream.take(size))), stream, times)
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


def _make(fields: dict[str, object], stream: _Stream, times: list[tuple[str, int, int]]) -> None:
    kind, name, mode = text(fields, "kind"), text(fields, "name"), number(fields, "mode")
    mtime = number(fields, "mtime")
    if kind == "d":
        _make_directory(name)
        times.append((name, mode, mtime))
        return
    if kind == "f":
        fd = _fresh(name, lambda: os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        left = number(fields, "size")
        while left:
            piece = stream.some(left)
            if not piece:
                raise Wrong("the transfer was cut short")
            _write_all(fd, piece)
            left -= len(piece)
        if mtime:
            os.utime(fd, (mtime, mtime))
        os.close(fd)
    elif kind == "l":
        _fresh(name, lambda: os.symlink(text(fields, "target"), name))
    else:
        _fresh(name, lambda: os.link(text(fields, "target"), name))


def _make_directory(name: str) -> None:
    try:
        os.mkdir(name, 0o755)
    except FileExistsError:
        if not os.path.isdir(name):
            os.unlink(name)
            os.mkdir(name, 0o755)
    except FileNotFoundError:
        os.makedirs(name, 0o755)


def _fresh(name: str, make: Callable[[], int | None]) -> int:
    """``make`` something of that name: its directory may be missing, something may lie there."""
    for _ in range(2):
        try:
            return make() or 0
        except FileNotFoundError:
            os.makedirs(os.path.dirname(name), 0o755, exist_ok=True)
        except FileExistsError:
            if os.path.isdir(name) and not os.path.islink(name):
                raise Wrong(f"{name!r}: a directory already is there") from None
            os.unlink(name)
    return make() or 0


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
                _header(sink, "d", path, found)
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
        _header(sink, "l", name, found, target=os.readlink(path))
    elif kind == _FILE:
        if found.st_nlink > 1:
            first = known.setdefault((found.st_dev, found.st_ino), name)
            if first != name:
                _header(sink, "h", name, found, target=first)
                return
        fd = os.open(path, os.O_RDONLY | _NOFOLLOW | os.O_NONBLOCK)
        _header(sink, "f", name, found, size=found.st_size)
        # What was cut off meanwhile is missing now: zeros, as other archivers have it.
        left = found.st_size - _content(fd, sink, found.st_size)
        while left > 0:
            sink.add(bytes(min(left, PIECE)))
            left -= min(left, PIECE)
        os.close(fd)
    else:
        raise Wrong(f"{path!r} is neither a file nor a directory nor a link")


def _header(
    sink: Sink, kind: str, name: str, found: os.stat_result, *, size: int = 0, target: str = ""
) -> None:
    head = pack({
        "kind": kind, "name": name, "mode": found.st_mode & 0o7777, "mtime": int(found.st_mtime),
        "uid": found.st_uid, "gid": found.st_gid, "size": size, "target": target,
    })  # fmt: skip
    sink.add(struct.pack("<I", len(head)) + head)
