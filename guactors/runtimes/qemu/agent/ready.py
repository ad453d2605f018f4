"""An interpreter of the image that was started before anybody asked for it.

Owns: that process, until a program takes it. Must never: give it to a program that could tell: any
doubt, and a new one is started as ever.

To start Python is nearly all that an emulated guest does for a small program, and of a guest that
goes on from a file none of it is translated yet. So a guest that is saved to be started from holds
one that waits. It takes ``python3 -c CODE`` and ``python3 FILE.py`` of the first user, with the
same variables that an interpreter reads when it starts. What differs: other processes see its first
words (``/proc/PID/cmdline``, ``environ``), and guests of one file hash strings alike.
"""

from __future__ import annotations

import marshal
import os
import select
import struct
import sys

assert sys.platform == "linux", "runs in guests"

from guactors.runtimes.qemu.agent.program import Place, Program, execute, start

STARTS_WITHIN = 20000
_ANSWERS_WITHIN = 2000
"""Milliseconds."""
_KILL = 9
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "TZ", "HOME", "PATH")
"""How the names of variables begin that an interpreter, or what it is made of, looks at when it
starts."""
_FORM = 2
"""Of marshal: every Python 3 reads it."""
_BOOT = r"""
def _():
    import atexit, marshal, os, sys
    main = sys.modules["__main__"].__dict__
    asked, told = map(int, sys.argv[1:])
    os.write(told, b"r")
    held, size = b"", 4
    while len(held) < size:
        more = os.read(asked, 65536)
        if not more:
            os._exit(0)
        held += more
        if len(held) >= 4:
            size = 4 + int.from_bytes(held[:4], "little")
    words, gone, env, cwd, given = marshal.loads(held[4:])
    words = [os.fsdecode(word) for word in words]
    try:
        for name in gone:
            os.environb.pop(name, None)
        os.environb.update(env)
        os.chdir(cwd)
        if not given:
            null = os.open("/dev/null", os.O_RDONLY)
            os.dup2(null, 0)
            os.close(null)
        if words[1] == "-c":
            name, source = "<string>", words[2] + "\n"
        else:
            name = words[1]
            if not name.startswith("/"):
                name = os.getcwd() + "/" + name
            with open(name, "rb") as file:
                source = file.read()
    except (OSError, ValueError):
        os._exit(0)
    os.write(told, b"y")
    if os.read(asked, 1) != b"g":
        os._exit(0)
    os.close(asked)
    os.close(told)
    sys.orig_argv = words
    sys.argv = words[1:]
    if words[1] == "-c":
        del sys.argv[1]
    else:
        from importlib.machinery import SourceFileLoader
        sys.path[0] = os.path.dirname(os.path.realpath(name))
        main["__file__"], main["__cached__"] = name, None
        main["__loader__"] = SourceFileLoader("__main__", name)
    if "random" in sys.modules:
        sys.modules["random"].seed()
    del main["_"], held, env, gone
    interrupted = []
    def end():
        if interrupted:
            import _signal
            sys.stdout.flush()
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
            os.kill(os.getpid(), _signal.SIGINT)
    atexit.register(end)
    try:
        exec(compile(source, name, "exec", dont_inherit=True), main)
    except SystemExit:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            interrupted.append(True)
        below = error.__traceback__.tb_next
        sys.excepthook(type(error), error.with_traceback(below), below)
        sys.exit(1)
_()
"""
"""What it runs until it knows better. Words of more than ASCII would not do in every locale."""


class Ready:
    """Holds one such process, or none."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._program: Program | None = None
        self._name = ""
        self._env: dict[str, str] = {}
        self._asking = self._answers = -1

    def prepare(self, name: str, env: dict[str, str], home: str) -> bool:
        """Start one, by this name and with these variables: whether it waits now."""
        self._drop()
        asked, self._asking = os.pipe2(os.O_CLOEXEC)
        self._answers, told = os.pipe2(os.O_CLOEXEC)

        def run() -> None:
            os.set_inheritable(asked, True)
            os.set_inheritable(told, True)
            argv = [name, "-c", _BOOT, str(asked), str(told)]
            execute(self._place, argv, env, (home, ""), (0, 0))

        try:
            self._program = start(self._place, run, given=True, counted=False)
        finally:
            os.close(asked)
            os.close(told)
        self._name, self._env = name, env
        if self._hear(STARTS_WITHIN) == b"r":
            return True
        self._drop()
        return False

    def take(
        self, argv: list[str], env: dict[str, str], cwd: str, *, given: bool
    ) -> Program | None:
        """The process, which is that program from here on; None where there is none for it."""
        program = self._program
        if program is None or not self._fits(argv, env):
            return None
        words = [os.fsencode(word) for word in argv]
        gone = [os.fsencode(name) for name in self._env if name not in env]
        wanted = {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
        order = marshal.dumps((words, gone, wanted, os.fsencode(cwd or "."), given), _FORM)
        try:
            _write(self._asking, struct.pack("<I", len(order)) + order)
            if self._hear(_ANSWERS_WITHIN) != b"y":
                raise BrokenPipeError
            self._place.count(program.pid)
            _write(self._asking, b"g")
        except OSError:
            self._drop()
            return None
        self._program = None
        self._close()
        if not given:
            program.give_nothing()
        return program

    def _fits(self, argv: list[str], env: dict[str, str]) -> bool:
        if len(argv) < 2 or argv[0] != self._name:
            return False
        if argv[1] == "-c":
            if len(argv) < 3:
                return False
        elif argv[1].startswith("-") or not argv[1].endswith(".py"):
            return False
        if any(0xD800 <= ord(letter) < 0xE000 for word in argv[1:3] for letter in word):
            return False  # no text: the interpreter has an opinion on that
        return _read(env) == _read(self._env)

    def _hear(self, within: int) -> bytes:
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        return os.read(self._answers, 1) if poll.poll(within) else b""

    def _drop(self) -> None:
        program, self._program = self._program, None
        if program is not None:
            program.signal(_KILL)
            program.ended(0.0)
            program.close()
        self._close()

    def _close(self) -> None:
        for fd in (self._asking, self._answers):
            if fd >= 0:
                os.close(fd)
        self._asking = self._answers = -1


def _read(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_READ_AT_START)}


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
