"""The agent: the one process of ours in a guest, and the first one there.

Owns: the line to the host, the loop, and what becomes of each frame. Must never: die of a frame,
wait for anything but the loop's descriptors, or send more than a window allows.

It runs outside of the image's root, with a Python of its own, so an image needs none.
"""

from __future__ import annotations

import os
import select
import sys
import time

assert sys.platform == "linux", "runs in guests"

from guactors.runtimes.qemu.agent import wire
from guactors.runtimes.qemu.agent.disks import attach
from guactors.runtimes.qemu.agent.program import (
    NotStarted,
    Place,
    Program,
    execute,
    find_user,
    start,
)
from guactors.runtimes.qemu.agent.ready import Ready
from guactors.runtimes.qemu.agent.system import KILL, System, children, read, write
from guactors.runtimes.qemu.agent.transfer import guarded, prepare, transfer
from guactors.runtimes.qemu.agent.wire import (
    PIECE,
    Decoder,
    WireError,
    frame,
    number,
    pack,
    text,
    texts,
    unpack_dict,
    variables,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

AGENT = 1
_HELD_MOST = 262144
"""Bytes on their way to the host, above which nothing more is read from programs."""
_LOOK = 1.0
_TERM = 15


class Agent:
    """``line``: the descriptor to the host, which does not block; ``place``: where programs run;
    ``renew``: waits for another line once this one broke, None where that is the end."""

    def __init__(self, line: int, place: Place, renew: Callable[[], int] | None = None) -> None:
        self._line = line
        self._renew = renew
        self._place = place
        self._system = System(place, self._living)
        self._poll = select.poll()
        self._decoder = Decoder()
        self._out = bytearray()
        self._programs: dict[int, Program] = {}
        self._owner: dict[int, int] = {}
        """The channel of each descriptor that is looked at."""
        self._interest: dict[int, int] = {}
        self._ready, self._home = Ready(place), "/"
        self._stopping: tuple[int, float] | None = None
        self._quiet = self._broken = self._over = False
        # A port of the machine takes one piece at a time and tells by an interrupt that there is
        # room again, milliseconds later; a write that waits is told at once. It cannot wait for
        # long: the host always reads, whoever it is for.
        self._blocks = bool(place.root) and renew is None
        os.set_blocking(line, self._blocks)

    def run(self) -> None:
        """Until the host says quit, or is not there any more."""
        while not self._over:
            if self._broken:
                self._next_line()
            self._look()
            for fd, events in self._poll.poll(self._patience()):
                if fd == self._line:
                    self._on_line(events)
                elif fd in self._owner:
                    self._on_program(self._owner[fd], fd)
            self._on_time(time.monotonic())
        self._push()

    # --- the line -------------------------------------------------------------------------------

    def _look(self) -> None:
        """Which descriptors to look at, and for what."""
        wanted = {self._line: select.POLLIN | (select.POLLOUT if self._out else 0)}
        self._owner = {}
        room = len(self._out) < _HELD_MOST and not self._quiet
        for channel, program in self._programs.items():
            if program.end >= 0:
                wanted[program.end] = select.POLLIN
                self._owner[program.end] = channel
            for fd, stream in program.streams.items():
                if room and program.windows[stream].left:
                    wanted[fd] = select.POLLIN
                    self._owner[fd] = channel
            if program.waiting and program.input >= 0:
                wanted[program.input] = wanted.get(program.input, 0) | select.POLLOUT
                self._owner[program.input] = channel
        for fd in self._interest.keys() - wanted.keys():
            self._poll.unregister(fd)
        for fd, events in wanted.items():
            if self._interest.get(fd) != events:
                self._poll.register(fd, events)
        self._interest = wanted

    def _forget(self, fds: set[int]) -> None:
        """These are closed: the next look begins without them."""
        for fd in fds & self._interest.keys():
            self._poll.unregister(fd)
            del self._interest[fd]

    def _patience(self) -> float:
        now = time.monotonic()
        waits = [_LOOK] + [
            one.dry_at - now for one in self._programs.values() if one.status is not None
        ]
        if self._stopping is not None:
            waits.append(0.01)
        return max(0.0, min(waits)) * 1000

    def _on_line(self, events: int) -> None:
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            try:
                data = os.read(self._line, 65536)
            except BlockingIOError:
                data = None
            except OSError:
                data = b""
            if data == b"":
                self._end_line()
                return
            for channel, kind, content in self._decoder.feed(data or b""):
                self._on_frame(channel, kind, content)
        if self._out:
            self._push()

    def _push(self) -> None:
        while self._out and not self._broken:
            try:
                sent = os.write(self._line, memoryview(self._out)[:PIECE])
            except BlockingIOError:
                return
            except OSError:
                self._end_line()
                return
            del self._out[:sent]

    def _end_line(self) -> None:
        """The host is gone: nobody else has a use for us, unless one comes who goes on with this
        guest. What is still said in this round is said to nobody."""
        self._out.clear()
        self._over, self._broken = self._renew is None, self._renew is not None

    def _next_line(self) -> None:
        """Wait for it, with all else standing still: nobody is there to be told."""
        assert self._renew is not None
        fd = self._renew()
        os.dup2(fd, self._line, inheritable=False)
        os.close(fd)
        os.set_blocking(self._line, False)
        self._decoder = Decoder()
        self._out.clear()
        self._broken, self._stopping = False, None
        self._detach()

    def _detach(self) -> None:
        """What is under way was for a host that is gone: it is read and thrown away, so that it is
        not held up."""
        for old in list(self._programs):
            program = self._programs.pop(old)
            self._programs[-program.pid] = program

    def _send(self, channel: int, kind: int, content: bytes = b"") -> None:
        data = frame(channel, kind, content)
        if not self._blocks:
            self._out += data
            self._push()
            return
        left = memoryview(data)
        while left:
            left = left[os.write(self._line, left) :]

    def _answer(self, channel: int, kind: int, **fields: object) -> None:
        self._send(channel, kind, pack(fields))

    # --- what the host says ---------------------------------------------------------------------

    def _on_frame(self, channel: int, kind: int, content: bytes) -> None:
        self._quiet = False
        deed = _DEEDS.get(kind)
        try:
            if deed is None:
                raise WireError(f"a frame of the unknown kind {kind}")
            deed(self, channel, content)
        except NotStarted as error:
            self._answer(channel, wire.FAULT, text=str(error), code=error.code)
        except (WireError, OSError) as error:
            self._answer(channel, wire.FAULT, text=str(error), code=0, frame=kind)

    def _on_hello(self, channel: int, content: bytes) -> None:
        """``keep``: it is the one that was here before, whose machine stood still."""
        fields = unpack_dict(content)
        if not fields.get("keep"):
            self._detach()
        self._system.set_clock(number(fields, "clock", 0))
        self._system.seed(fields.get("seed"))
        self._home = text(fields, "home", "/") or "/"
        self._system.limit(number(fields, "memory", 0), number(fields, "pids", 0))
        name = text(fields, "name", "")
        if name and not os.environ.get("GU_STUB"):
            write("/proc/sys/kernel/hostname", name)
        self._answer(
            channel, wire.WELCOME, version=wire.VERSION, agent=AGENT, kernel=os.uname().release,
            machine=os.uname().machine, python=sys.version.partition(" ")[0],
            fault=os.environ.get("GU_FAULT", ""), box=self._place.box >= 0,
            disk=self._system.disk(),
        )  # fmt: skip

    def _on_spawn(self, channel: int, content: bytes) -> None:
        fields = unpack_dict(content)
        argv, env = texts(fields, "argv"), variables(fields)
        tty = fields.get("tty")
        size = None if tty is None else (number(fields, "rows"), number(fields, "columns"))
        user = (0, 0)
        if text(fields, "user", ""):
            user = find_user(self._place.root, text(fields, "user"))
        cwd, given = text(fields, "cwd", ""), bool(fields.get("stdin"))
        plain = size is None and user == (0, 0)
        found = self._ready.take(argv, env, cwd, given=given) if plain else None
        self._start(
            channel,
            lambda: execute(self._place, argv, env, (self._home, cwd), user),
            found,
            given=given,
            tty=size,
            owner=user[0],
        )
        self._programs[channel].main = bool(fields.get("main"))

    def _on_prepare(self, channel: int, content: bytes) -> None:
        fields = unpack_dict(content)
        ready = self._ready.prepare(text(fields, "name"), variables(fields), self._home)
        self._answer(channel, wire.ANSWER, ready=ready)

    def _on_files(self, channel: int, content: bytes) -> None:
        prepare()
        self._work(channel, lambda: transfer(self._place, self._home, unpack_dict(content)))

    def _on_mount(self, channel: int, content: bytes) -> None:
        self._work(channel, lambda: attach(self._place, unpack_dict(content)))

    def _work(self, channel: int, run: Callable[[], None]) -> None:
        """In a child; what goes wrong there is told on its stream 2."""
        self._start(channel, lambda: guarded(run), given=True, program=False)
        self._programs[channel].transfer = True

    def _start(
        self,
        channel: int,
        run: Callable[[], None],
        found: Program | None = None,
        *,
        given: bool,
        tty: tuple[int, int] | None = None,
        owner: int = 0,
        program: bool = True,
    ) -> None:
        if channel in self._programs:
            raise WireError("a channel that is taken")
        made = found or start(self._place, run, given=given, tty=tty, owner=owner, program=program)
        made.ooms = self._system.ooms()
        self._programs[channel] = made
        self._answer(channel, wire.STARTED, pid=made.pid)

    def _on_input(self, channel: int, content: bytes) -> None:
        if program := self._programs.get(channel):
            program.feed(content)
            self._feed(channel, program)

    def _on_input_end(self, channel: int, _: bytes) -> None:
        if program := self._programs.get(channel):
            program.end_input()
            self._feed(channel, program)

    def _feed(self, channel: int, program: Program) -> None:
        before = {program.input}
        program.push()
        if program.input < 0:
            self._forget(before)
        if (owed := program.pay()) and channel > 0:
            self._answer(channel, wire.CREDIT, stream=0, size=owed)

    def _on_credit(self, channel: int, content: bytes) -> None:
        fields = unpack_dict(content)
        if program := self._programs.get(channel):
            stream = number(fields, "stream")
            if stream not in program.windows:
                raise WireError("credit for an unknown stream")
            program.windows[stream].give(number(fields, "size"))

    def _on_signal(self, channel: int, content: bytes) -> None:
        sent = number(unpack_dict(content), "number")
        if not 0 < sent < 65:
            raise WireError("a signal that does not exist")
        if program := self._programs.get(channel):
            program.signal(sent)

    def _on_resize(self, channel: int, content: bytes) -> None:
        fields = unpack_dict(content)
        if program := self._programs.get(channel):
            program.resize(number(fields, "rows"), number(fields, "columns"))

    def _on_close(self, channel: int, _: bytes) -> None:
        program = self._programs.pop(channel, None)
        if program is not None:
            self._forget({program.end, program.input, *program.streams})
            program.close()

    def _on_ping(self, channel: int, content: bytes) -> None:
        self._send(channel, wire.PONG, content[:64])

    def _on_stats(self, channel: int, _: bytes) -> None:
        group = self._place.group
        memory = int(read(f"{group}/memory.current") or 0) if group else 0
        self._answer(
            channel, wire.ANSWER, processes=len(self._system.members()), memory=memory,
            disk=self._system.disk(),
        )  # fmt: skip

    def _on_stop(self, channel: int, content: bytes) -> None:
        grace = number(unpack_dict(content), "milliseconds")
        self._system.signal_all(_TERM)
        self._stopping = (channel, time.monotonic() + grace / 1000)

    def _on_quiet(self, channel: int, _: bytes) -> None:
        """Nothing is under way after the answer, until the host says more."""
        self._send(channel, wire.ANSWER, pack({}))
        self._quiet = True

    def _on_quit(self, channel: int, _: bytes) -> None:
        self._system.signal_all(KILL)
        os.sync()
        self._over = True

    # --- programs -------------------------------------------------------------------------------

    def _on_program(self, channel: int, fd: int) -> None:
        program = self._programs.get(channel)
        if program is None or fd not in self._interest:
            return
        if fd == program.end:
            self._forget({fd})
            program.ended(time.monotonic())
            if program.main:
                self._system.signal_all(KILL)
            return
        if fd in program.streams:
            stream = program.streams[fd]
            data = program.read(fd)
            if data == b"":
                self._forget({fd})
            elif data and channel > 0:
                self._send(channel, wire.OUTPUT if stream == 1 else wire.ERRORS, data)
            elif data:
                program.windows[stream].give(len(data))
        if program.waiting:
            self._feed(channel, program)

    def _on_time(self, now: float) -> None:
        for channel, program in list(self._programs.items()):
            if program.status is None or self._quiet:
                continue
            if not program.streams or now >= program.dry_at:
                self._tell_end(channel, program)
        if self._stopping is not None:
            channel, until = self._stopping
            if now >= until or not self._system.members():
                self._stopping = None
                self._answer(channel, wire.ANSWER, left=len(self._system.members()))
        if os.getpid() == 1:
            self._reap()

    def _tell_end(self, channel: int, program: Program) -> None:
        code = os.waitstatus_to_exitcode(program.status or 0)
        del self._programs[channel]
        self._forget({program.input, *program.streams})
        program.close()
        if channel > 0:
            self._answer(
                channel, wire.EXIT, code=max(code, 0), signal=max(-code, 0),
                out_of_memory=code == -KILL and self._system.ooms() > program.ooms,
            )  # fmt: skip

    def _living(self) -> list[int]:
        return [one.pid for one in self._programs.values() if one.status is None]

    def _reap(self) -> None:
        """What programs left behind is our child now."""
        mine = {program.pid for program in self._programs.values() if program.status is None}
        for pid in children():
            if pid not in mine:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue


_DEEDS: dict[int, Callable[[Agent, int, bytes], None]] = {
    wire.HELLO: Agent._on_hello,
    wire.SPAWN: Agent._on_spawn,
    wire.FILES: Agent._on_files,
    wire.INPUT: Agent._on_input,
    wire.INPUT_END: Agent._on_input_end,
    wire.CREDIT: Agent._on_credit,
    wire.SIGNAL: Agent._on_signal,
    wire.RESIZE: Agent._on_resize,
    wire.CLOSE: Agent._on_close,
    wire.PING: Agent._on_ping,
    wire.STATS: Agent._on_stats,
    wire.STOP: Agent._on_stop,
    wire.QUIET: Agent._on_quiet,
    wire.QUIT: Agent._on_quit,
    wire.PREPARE: Agent._on_prepare,
    wire.MOUNT: Agent._on_mount,
}
