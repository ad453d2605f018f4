"""The first and the last steps of a worker process, whichever way it was started.

Owns: the worker's standard streams, signal handlers, and the call of its entry. Must never: know
what the entry does, or return to the code that forked it.

Run as a module (``python -m guactors.runtimes.entry``) it is a worker started without fork: it
reads a :class:`Birth` from its standard input, which stays open as the lifeline.
"""

from __future__ import annotations

import atexit
import importlib
import io
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import msgspec

from guactors.config import WorkerConfig
from guactors.runtimes.command import FOREIGN, forget_secrets, join_paths
from guactors.runtimes.tree import end_own_group

WORKER_ENTRY = "guactors.worker:run_worker"
Entry = Callable[[WorkerConfig, int], int]
"""``run_worker(config, lifeline_fd) -> exit status``. The lifeline is a pipe that nobody writes to;
its end of file says that the provider is gone."""

LENGTH_BYTES = 4
"""Of the big-endian length before a message on a stream."""


class Birth(msgspec.Struct, frozen=True):
    """What a worker started without fork reads first."""

    entry: str
    config: WorkerConfig
    path: list[str] = []


def load_entry(name: str) -> Entry:
    """The function named ``package.module:function``."""
    module, _, function = name.partition(":")
    entry: Entry = getattr(importlib.import_module(module), function)
    return entry


def preload_entry(name: str) -> None:
    """Import what the entry will need, also what it names in ``PRELOAD`` of its module because it
    imports it late, and let its ``prepare()`` do what else is the same for all: once, before the
    workers are forked."""
    module = importlib.import_module(name.partition(":")[0])
    for late in getattr(module, "PRELOAD", ()):
        importlib.import_module(late)
    getattr(module, "prepare", _nothing)()


def _nothing() -> None:
    """What most entries have to prepare."""


def take_streams(stdin: int, stdout: int, stderr: int) -> None:
    """Make these descriptors the standard three, at both levels, and close them where they were."""
    for target, source in enumerate((stdin, stdout, stderr)):
        if source != target:
            os.dup2(source, target)
    for source in {stdin, stdout, stderr} - {0, 1, 2}:
        os.close(source)
    # The inherited objects may be a test runner's capture, or closed, or hold unwritten text.
    streams = [_stream(fd, mode) for fd, mode in enumerate(("r", "w", "w"))]
    sys.stdin, sys.stdout, sys.stderr = streams
    for stream, name in zip(streams, ("stdin", "stdout", "stderr"), strict=True):
        setattr(sys, f"__{name}__", stream)


def _stream(fd: int, mode: str) -> io.TextIOWrapper:
    raw = io.FileIO(fd, mode, closefd=False)
    binary = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    return io.TextIOWrapper(binary, "utf-8", "backslashreplace", line_buffering=True)


def default_signals() -> None:
    """Undo what the forking process changed; SIGINT raises KeyboardInterrupt, as in any Python."""
    signal.set_wakeup_fd(-1)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
    for name in ("SIGCHLD", "SIGTERM", "SIGHUP", "SIGQUIT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def run_and_exit(
    entry: str,
    config: WorkerConfig,
    lifeline: int,
    leave: Callable[[int], NoReturn] = os._exit,
) -> NoReturn:
    """Run the entry and end the process, by ``leave``, with its status; never unwinds into the
    caller, whose ``finally`` clauses belong to another process."""
    status = 1
    try:
        forget_secrets()
        status = load_entry(entry)(config, lifeline)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, its traceback is the last word
        traceback.print_exc()
    finally:
        _finish()
        leave(status & 0xFF)


def _finish() -> None:
    try:
        # As multiprocessing does for its own forked children.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # noqa: BLE001 - as above, from an exit hook
        traceback.print_exc()


def main() -> NoReturn:
    """Entry of a worker started without fork: nobody else ends it and its group with the provider,
    so a thread of its own watches the lifeline."""
    length = int.from_bytes(read_exactly(0, LENGTH_BYTES), "big")
    birth = msgspec.msgpack.decode(read_exactly(0, length), type=Birth)
    lifeline = os.dup(0)
    take_streams(os.open(os.devnull, os.O_RDONLY), 1, 2)
    default_signals()  # what a shell ignores for a provider in the background is inherited
    if sys.argv[1:] == [FOREIGN]:
        sys.path[:] = join_paths(sys.path, birth.path)
    else:
        sys.path[:] = birth.path or sys.path
    # Its own descriptor: the entry may close the one it is given.
    own = os.dup(lifeline)
    threading.Thread(target=_end_with, args=(own,), daemon=True).start()
    run_and_exit(birth.entry, birth.config, lifeline, partial(_leave, own))


def _end_with(lifeline: int) -> None:
    while os.read(lifeline, 1):
        continue
    end_own_group()


def _leave(lifeline: int, status: int) -> NoReturn:
    # An entry that itself saw the provider go must not get away before the thread did.
    if sys.platform != "win32" and select.select([lifeline], [], [], 0)[0]:
        end_own_group()
    os._exit(status)


def read_exactly(fd: int, count: int) -> bytes:
    """So many bytes of a blocking descriptor; ends the process when there are fewer."""
    data = b""
    while len(data) < count:
        more = os.read(fd, count - len(data))
        if not more:
            raise SystemExit("whoever started this process ended before it said what it is to be")
        data += more
    return data


if __name__ == "__main__":
    main()
