"""One program in the guest, or one transfer of files: a child process with pipes or a terminal.

Owns: its start (root directory, group, user, terminal), its streams and their windows, its end.
Must never: block on a stream, hold more input than a window, or read output that nobody has asked
for.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # ``signal`` imports ``enum``, which is slow
import errno
import fcntl
import os
import struct
import sys

assert sys.platform == "linux", "runs in guests"

from guactors.runtimes.qemu.agent.wire import PIECE, WINDOW, Window, number, pack, text, unpack_dict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LINGER = 1.0
_KILL, _PIPE = 9, 13
_SET_SIZE, _PTY_NUMBER, _PTY_LOCK, _GET_ATTRIBUTES = 0x5414, 0x80045430, 0x40045431, 0x5401
_END_OF_FILE = 17 + 4
_SAID_MOST = 65536
_FDS_MOST = 4096
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NotStarted(Exception):
    """``code``: as a shell says it, 0 where the question itself is wrong."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Place:
    """Where programs run. ``root``: the image's, empty for this process's own; ``group``: the
    directory of the kernel's that holds and counts them, empty for none; ``box``: descriptor of
    the mailbox disk, -1 without."""

    def __init__(self, root: str, group: str, box: int) -> None:
        self.root = root
        self.group = group
        self.box = box

    def enter(self) -> None:
        """This process, a child just made, is in the image from here on."""
        if self.root:
            os.chroot(self.root)
            os.chdir("/")

    def count(self, pid: int = 0) -> None:
        """A process, 0 for this one, is held and counted with the programs from here on."""
        if self.group:
            fd = os.open(f"{self.group}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, str(pid).encode())
            os.close(fd)


class Program:
    """``streams``: open ones, by descriptor; ``input``: where its input goes, -1 once it ended."""

    def __init__(self, pid: int, streams: dict[int, int], given: int, terminal: int = -1) -> None:
        self.pid = pid
        self.end = os.pidfd_open(pid)
        self.streams = streams
        self.windows = {1: Window(), 2: Window()}
        self.taken = Window()
        """The window of its input."""
        self.input = given
        self.terminal = terminal
        self.waiting = bytearray()
        self.input_ends = False
        self.owed = 0
        self.main = False
        self.transfer = False
        self.ooms = 0
        """How often programs had been ended for the memory of all when it began."""
        self.status: int | None = None
        self.dry_at = 0.0
        for fd in (*streams, given):
            if fd >= 0:
                os.set_blocking(fd, False)

    def read(self, fd: int) -> bytes | None:
        """What there is of a stream; empty at its end, None for nothing now."""
        room = self.windows[self.streams[fd]].left
        try:
            data = os.read(fd, min(room, PIECE))
        except BlockingIOError:
            return None
        except OSError:  # a terminal that nobody holds any more
            data = b""
        if data:
            self.windows[self.streams[fd]].take(len(data))
        else:
            self._close_stream(fd)
        return data

    def _close_stream(self, fd: int) -> None:
        del self.streams[fd]
        if fd == self.terminal:
            self.terminal = self.input = -1
            self.waiting.clear()
        os.close(fd)

    def feed(self, data: bytes) -> None:
        """Input for it. Raises WireError for more than was allowed."""
        self.taken.take(len(data))
        if self.input < 0:
            self.owed += len(data)
        else:
            self.waiting += data

    def end_input(self) -> None:
        """Nothing follows."""
        if self.terminal >= 0:
            attributes = bytearray(60)
            fcntl.ioctl(self.terminal, _GET_ATTRIBUTES, attributes)
            self.waiting += attributes[_END_OF_FILE : _END_OF_FILE + 1]
        self.input_ends = True

    def push(self) -> None:
        """Write what it takes of its input."""
        while self.waiting and self.input >= 0:
            try:
                sent = os.write(self.input, self.waiting)
            except BlockingIOError:
                break
            except OSError:
                self._close_input()
                break
            self.owed += min(sent, len(self.waiting))
            del self.waiting[:sent]
        if self.input_ends and not self.waiting and self.input >= 0 and self.terminal < 0:
            self._close_input()

    def _close_input(self) -> None:
        self.owed += len(self.waiting)
        self.waiting.clear()
        if self.input >= 0 and self.input != self.terminal:
            os.close(self.input)
        self.input = -1

    def give_nothing(self) -> None:
        """It reads something else than its input."""
        self._close_input()

    def pay(self) -> int:
        """The credit that is owed for input, from here on paid."""
        # The character that ends a terminal's input was never under way.
        owed = min(self.owed, WINDOW - self.taken.left)
        self.owed = 0
        self.taken.give(owed)
        return owed

    def resize(self, rows: int, columns: int) -> None:
        """Of its terminal."""
        if self.terminal >= 0:
            set_size(self.terminal, rows, columns)

    def signal(self, number: int) -> None:
        """To its group, as long as its number is its own."""
        if self.status is None:
            send(self.pid, number)

    def ended(self, now: float) -> None:
        """It has; take its status."""
        os.close(self.end)
        self.end = -1
        try:
            self.status = os.waitpid(self.pid, 0)[1]
        except ChildProcessError:
            self.status = 0
        self.dry_at = now + LINGER

    def close(self) -> None:
        """Forget it; it is killed if it lives."""
        self.signal(_KILL)
        self._close_input()
        for fd in list(self.streams):
            self._close_stream(fd)
        if self.transfer and self.status is None:
            # It may be in the midst of a slot that is going to be somebody else's.
            self.ended(0.0)
        if self.end >= 0:
            os.close(self.end)
            self.end = -1


def send(pid: int, number: int) -> None:
    """To a process group, if there is one."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def set_size(terminal: int, rows: int, columns: int) -> None:
    """Of a terminal."""
    size = struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0)
    fcntl.ioctl(terminal, _SET_SIZE, size)


def start(
    place: Place,
    run: Callable[[], None],
    *,
    given: bool,
    tty: tuple[int, int] | None = None,
    owner: int = 0,
    program: bool = True,
    counted: bool = True,
) -> Program:
    """A child that calls ``run``, which becomes a ``program`` of the image, or raises what prevents
    it; or which works until it returns. ``counted``: among the programs. Raises NotStarted, also
    when ``run`` did so."""
    telling, told = os.pipe2(os.O_CLOEXEC)
    terminal, slave = -1, ""
    if tty is not None:
        terminal, slave = _open_terminal(place, owner)
        set_size(terminal, *tty)
    theirs, ours = _pipes(given=given) if tty is None else ([], [])
    pid = os.fork()
    if not pid:
        _become(place, run, theirs, slave, told, program=program, counted=counted and program)
    os.close(told)
    for fd in theirs:
        os.close(fd)
    said = _whole(telling)
    if not said:
        if tty is not None:
            return Program(pid, {terminal: 1}, terminal, terminal)
        return Program(pid, {ours[1]: 1, ours[2]: 2}, ours[0])
    for fd in [*ours, terminal]:
        if fd >= 0:
            os.close(fd)
    os.waitpid(pid, 0)
    fields = unpack_dict(said)
    raise NotStarted(text(fields, "text"), number(fields, "code"))


def _pipes(*, given: bool) -> tuple[list[int], list[int]]:
    """For input, output and errors: their ends, and ours."""
    if given:
        theirs_in, ours_in = os.pipe2(os.O_CLOEXEC)
    else:
        theirs_in, ours_in = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), -1
    ours_out, theirs_out = os.pipe2(os.O_CLOEXEC)
    ours_err, theirs_err = os.pipe2(os.O_CLOEXEC)
    return [theirs_in, theirs_out, theirs_err], [ours_in, ours_out, ours_err]


def _open_terminal(place: Place, owner: int) -> tuple[int, str]:
    terminal = os.open(f"{place.root}/dev/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(terminal, _PTY_LOCK, struct.pack("i", 0))
    (number,) = struct.unpack("i", fcntl.ioctl(terminal, _PTY_NUMBER, bytes(4)))
    slave = f"/dev/pts/{number}"
    if owner:
        os.chown(f"{place.root}{slave}", owner, -1)
    return terminal, slave


def _become(
    place: Place,
    run: Callable[[], None],
    fds: list[int],
    slave: str,
    told: int,
    *,
    program: bool,
    counted: bool,
) -> None:
    """The child: never returns."""
    code = 126
    try:
        os.setsid()
        _signal.signal(_PIPE, _signal.SIG_DFL)
        if counted:
            place.count()
        if slave:
            # The first terminal that the leader of a session opens is its own.
            fds = [os.open(f"{place.root}{slave}", os.O_RDWR)] * 3
        for number, fd in enumerate(fds):
            os.dup2(fd, number, inheritable=True)
        if not program:
            # It never becomes another program, and would hold the other ends of its own pipes.
            keep = max(place.box, 2)
            os.closerange(3, keep)
            os.closerange(keep + 1, _FDS_MOST)
        run()
        code = 0
    except NotStarted as error:
        os.write(told, pack({"text": str(error), "code": error.code}))
    except OSError as error:
        os.write(told, pack({"text": f"it cannot be started: {error.strerror}", "code": 126}))
    finally:
        os._exit(code)


def execute(
    place: Place, argv: list[str], env: dict[str, str], ways: tuple[str, str], user: tuple[int, int]
) -> None:
    """Become the program ``argv``. ``ways``: the image's own directory, and the program's. Raises
    NotStarted."""
    home, cwd = ways
    name = argv[0] if argv else ""
    try:
        place.enter()
        if not os.path.isdir(home):
            os.makedirs(home)
        os.chdir(home)
        _be(user)
        os.chdir(cwd or ".")
    except OSError:
        raise NotStarted(f"{name}: no directory {cwd or home}", 127) from None
    names = [name]
    if "/" not in name:
        names = [f"{way or '.'}/{name}" for way in env.get("PATH", PATH).split(":")]
    worst = OSError(errno.ENOENT, "")
    for one in names if name else []:
        try:
            os.execve(one, argv, env)  # noqa: S606
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                worst = error
        except ValueError:
            raise NotStarted(f"{name!r}: a zero byte in a word", 126) from None
    code = 127 if worst.errno == errno.ENOENT else 126
    raise NotStarted(f"{name}: {os.strerror(worst.errno or 0)}", code)


def _be(user: tuple[int, int]) -> None:
    """This process is that user's from here on."""
    if user != (0, 0) or os.getuid():
        os.setgroups([])
        os.setgid(user[1])
        os.setuid(user[0])


def _whole(fd: int) -> bytes:
    said = b""
    while piece := os.read(fd, _SAID_MOST):
        said += piece
    os.close(fd)
    return said


def find_user(root: str, name: str) -> tuple[int, int]:
    """The numbers of ``USER`` or ``USER:GROUP``, each a name or a number of the image's own lists.
    Raises NotStarted with the code 0."""
    user, _, group = name.partition(":")
    line = _line(f"{root}/etc/passwd", user)
    if line is None and not _is_number(user):
        raise NotStarted(f"the image has no user {name!r}", 0)
    uid = int(line[2]) if line else int(user)
    gid = int(line[3]) if line else 0
    if group:
        found = _line(f"{root}/etc/group", group)
        if found is None and not _is_number(group):
            raise NotStarted(f"the image has no group {group!r}", 0)
        gid = int(found[2]) if found else int(group)
    return uid, gid


def _is_number(word: str) -> bool:
    return word.isdigit() and word.isascii() and int(word) < 2**32 - 1


def _line(path: str, name: str) -> list[str] | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, 1 << 20)
    finally:
        os.close(fd)
    for line in data.decode("utf-8", "replace").split("\n"):
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] == name and all(map(_is_number, fields[2:4])):
            return fields if len(fields) > 3 else [*fields, "0"]
    return None
