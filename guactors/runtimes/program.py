"""A native program as a task: started on a provider, its output streamed, nothing of it left over.

Owns: the program's process group from start to end. Must never: know the grid; ``gu run`` submits
:func:`run_program` like any other generator.

The program leads a process group of its own, so that ``kill 0`` in a script means the script. A
worker that is killed could not clean up after it; therefore a guardian, a shell in a session of its
own, holds the other end of a pipe and kills the group when that end closes without a word.
"""

from __future__ import annotations

import math
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Self

import psutil

Chunk = tuple[str, bytes | int]
"""``("out", bytes)``, ``("err", bytes)``, and last ``("exit", code)``; a code below zero is minus
the signal that ended the program."""

CHUNK_BYTES = 65536
QUEUED_CHUNKS = 16
"""Per program: a reader of a fast program waits rather than fill the worker's memory."""
GRACE = 1.0
"""Seconds between asking a cancelled program to end and killing it."""
POLL = 0.1
"""Longest time in which a cancel() or the program's end goes unnoticed, in seconds."""
DRY = 2.0
"""Seconds that output may still come after the end of the program and its group."""
NOT_FOUND = 127
NOT_EXECUTABLE = 126

_WINDOWS_OWN_GROUP = 0x200  # subprocess.CREATE_NEW_PROCESS_GROUP, which exists only there
_GUARDIAN = """
read group
read done && exit
test -z "$group" || kill -9 "-$group"
test -z "$1" || rm -rf "$1"
"""


def run_program(argv: list[str], env: dict[str, str], cwd: str) -> Iterator[Chunk]:
    """Run ``argv`` and yield its output as it comes, then its exit code (see :data:`Chunk`).

    ``env`` is added to the worker's environment. An empty ``cwd`` is a fresh directory that is
    removed afterwards. Standard input is empty. A program that cannot be started exits with 127
    (not found) or 126, as in a shell, and one line on "err". When the generator is closed or
    interrupted, and when the program ends, what is left of its process group is ended too."""
    scratch = "" if cwd else tempfile.mkdtemp(prefix="gu-run-")
    directory = scratch or os.path.expanduser(cwd)
    with _Guardian(scratch) as guardian, _removed(scratch):
        try:
            program = _start(argv, {**os.environ, **env}, directory)
        except OSError as error:
            where = "" if os.path.isdir(directory) else f": no directory {directory}"
            yield "err", f"gu run: {argv[0]}: {error.strerror}{where}\n".encode()
            code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        else:
            guardian.watch(program.pid)
            try:
                yield from _output(program)
            finally:
                _end(program)
            code = program.returncode
    # Last of all: who hears the end may end this process at once.
    yield "exit", code


@contextmanager
def _removed(scratch: str) -> Iterator[None]:
    """Inside the guardian's watch: whoever is killed while he removes it leaves it to that."""
    try:
        yield
    finally:
        if scratch:
            # A program may well leave directories here that it forbade itself to enter.
            shutil.rmtree(scratch, ignore_errors=True)


def _start(argv: list[str], env: dict[str, str], directory: str) -> subprocess.Popen[bytes]:
    windows = sys.platform == "win32"
    return subprocess.Popen(
        argv,
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=directory,
        env=env,
        creationflags=_WINDOWS_OWN_GROUP if windows else 0,
        process_group=None if windows else 0,
    )


def _output(program: subprocess.Popen[bytes]) -> Iterator[Chunk]:
    """Chunks of both streams until the program has ended and they are dry. What it left in the
    background is killed first, for it holds them open."""
    chunks: queue.Queue[Chunk | None] = queue.Queue(QUEUED_CHUNKS)
    assert program.stdout is not None
    assert program.stderr is not None
    for name, stream in (("out", program.stdout), ("err", program.stderr)):
        # Daemons: a reader may wait for a descendant that left the group and kept the stream.
        threading.Thread(target=_read, args=(name, stream, chunks), daemon=True).start()
    open_streams = 2
    patience = math.inf
    while open_streams:
        if patience == math.inf and program.poll() is not None:
            _kill_rest(program)
            patience = DRY
        try:
            chunk = _wait(chunks)
        except queue.Empty:
            patience -= POLL
            if patience <= 0:
                return
            continue
        if chunk is None:
            open_streams -= 1
        else:
            yield chunk
    while program.poll() is None:  # in slices: an interrupt must get through
        with suppress(subprocess.TimeoutExpired):
            program.wait(POLL)


def _wait(chunks: queue.Queue[Chunk | None]) -> Chunk | None:
    """The next chunk; raises queue.Empty after POLL. Its name tells the worker that a call may be
    interrupted here, unlike elsewhere in this package (``worker/runners.py``)."""
    return chunks.get(timeout=POLL)


def _read(name: str, stream: IO[bytes], chunks: queue.Queue[Chunk | None]) -> None:
    with stream:
        while data := stream.read(CHUNK_BYTES):
            chunks.put((name, data))
    chunks.put(None)


def _end(program: subprocess.Popen[bytes]) -> None:
    if program.poll() is None:
        _signal(program, signal.SIGTERM)
        try:
            program.wait(GRACE)
        except subprocess.TimeoutExpired:
            _kill_rest(program)
    _kill_rest(program)
    program.wait()


def _kill_rest(program: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        _signal(program, signal.SIGTERM)
    else:
        _signal(program, signal.SIGKILL)


def _signal(program: subprocess.Popen[bytes], number: int) -> None:
    if sys.platform != "win32":
        try:
            os.killpg(program.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # nobody of the group is left, or zombies only
    else:  # no groups to signal there, and every end is a hard one
        with suppress(psutil.NoSuchProcess):
            family = psutil.Process(program.pid).children(recursive=True)
            program.terminate()
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


class _Guardian:
    """Kills the watched group, and removes ``scratch`` if that is not empty, when this process ends
    without leaving the ``with`` block. Only where there is a shell; elsewhere it does nothing."""

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        self._watching = False
        self._shell: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if sys.platform != "win32":
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _GUARDIAN, "guardian", self._scratch],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                start_new_session=True,
            )
        return self

    def watch(self, group: int) -> None:
        self._watching = True
        self._say(f"{group}\n")

    def __exit__(self, *exc_info: object) -> None:
        if self._shell is not None:
            self._say("done\n" if self._watching else "\ndone\n")
            assert self._shell.stdin is not None
            self._shell.stdin.close()
            self._shell.wait()

    def _say(self, line: str) -> None:
        if self._shell is not None:
            assert self._shell.stdin is not None
            try:
                self._shell.stdin.write(line.encode())
            except BrokenPipeError:
                return  # somebody killed the guardian: the program is not worse off than without
