"""What this worker's threads and coroutines are at, for whoever looks inside.

Owns: the texts of a stack dump, and the last resort by signal. Must never: run user code, or wait.

The control thread takes the dump while calls run. It needs the interpreter for that: a C function
that runs for long without letting go of it keeps the control thread out. For that case the process
listens to :data:`SIGNAL`, on which :mod:`faulthandler` writes all threads into a file, without the
interpreter and without the text of the source lines. Where the dump ends in a line that called a C
function, that is what is known of it; ``gu stack --native`` shows more. The file has no name where
the system has such: few are ever looked at, and a named one is work for a disk in each worker.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, Final

DEEPEST: Final = 100
"""Frames shown of one stack, the innermost."""
MOST: Final = 500
LONGEST: Final = 32_000
"""Characters of one text."""
WHOLE: Final = 400_000
"""Characters of all: they travel on the control lane."""
_NAME: Final = "guactors-stack"
SIGNAL: Final = getattr(signal, "SIGUSR2", None)


def dump_path(run_dir: str, worker: str) -> str:
    """Where a worker's dump by signal lands, if not in a file without a name."""
    return os.path.join(run_dir, f"{worker}.stack")


def listen(path: str) -> None:
    """Dump on :data:`SIGNAL`, into the file at ``path`` if there must be one; nothing where there
    are no such signals."""
    if SIGNAL is None or not hasattr(faulthandler, "register"):
        return
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(_NAME)
    else:
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    faulthandler.register(SIGNAL, file=fd, all_threads=True, chain=False)


def written_by(pid: int, path: str) -> str:
    """The file into which the process dumps that called ``listen(path)``."""
    own = f"/proc/{pid}/fd"
    with suppress(OSError):  # it is gone, or the system has no such directory
        for fd in os.listdir(own):
            with suppress(FileNotFoundError):  # it was closed meanwhile
                if os.readlink(f"{own}/{fd}").startswith(f"/memfd:{_NAME} "):
                    return f"{own}/{fd}"
    return path


def dump(coroutines: Iterable[tuple[str, Any]] = ()) -> list[str]:
    """A text for each thread, the main one first, and for each of ``coroutines`` (names with what
    they run)."""
    texts: list[str] = []
    size = 0
    for text in _texts(coroutines):
        size += len(text)
        if len(texts) >= MOST or size > WHOLE:
            texts.append("(more threads are not shown)")
            break
        texts.append(text)
    return texts


def _texts(coroutines: Iterable[tuple[str, Any]]) -> Iterator[str]:
    known = {thread.ident: thread for thread in threading.enumerate()}
    main = threading.main_thread().ident
    frames = sorted(sys._current_frames().items(), key=lambda item: (item[0] != main, item[0]))
    for ident, frame in frames:
        thread = known.get(ident)
        name = thread.name if thread is not None else f"thread {ident}"
        yield _text(name, traceback.format_stack(frame, DEEPEST))
    for name, coroutine in coroutines:
        lines = traceback.StackSummary.extract((f, f.f_lineno) for f in _awaits(coroutine))
        yield _text(f"coroutine of {name}", lines.format())


def _text(title: str, lines: list[str]) -> str:
    return f"{title}\n{''.join(lines)}".rstrip()[-LONGEST:]


def _awaits(coroutine: Any) -> Iterator[FrameType]:
    """The frames of a waiting coroutine, from the outermost to where it waits."""
    for _ in range(DEEPEST):
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "ag_frame", None)
        if frame is None:
            return
        yield frame
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "ag_await", None)
