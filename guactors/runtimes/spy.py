"""Looking at a worker from outside: by a signal it has prepared for, and by py-spy.

Owns: the waiting for what the signal makes the worker write, and the py-spy process. Must never:
signal a process that is not a worker of the asking provider, or wait without end.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import sysconfig
from contextlib import suppress
from typing import Final

WITHIN: Final = 10.0
"""Seconds for py-spy."""
WRITTEN_WITHIN: Final = 3.0
"""Seconds from the signal to the dump."""
LOOK: Final = 0.05
MOST: Final = 400_000
"""Bytes that are read of a dump."""


async def by_signal(pid: int, number: int, path: str) -> list[str]:
    """Send signal ``number``, after which the process writes its threads to the end of the file at
    ``path``; their texts, first that of the thread that holds the interpreter. Empty when nothing
    was written in time."""
    try:
        before = os.stat(path).st_size
        os.kill(pid, number)
    except OSError:
        return []
    size = before
    for _ in range(int(WRITTEN_WITHIN / LOOK)):
        await asyncio.sleep(LOOK)
        now = os.stat(path).st_size
        if now == size and now > before:
            break
        size = now
    return _written(path, before)


def _written(path: str, before: int) -> list[str]:
    with open(path, "rb") as file:
        file.seek(before)
        text = file.read(MOST).decode("utf-8", "replace")
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    return sorted(parts, key=lambda part: not part.startswith("Current thread"))


def find_spy() -> str | None:
    """The py-spy program, beside this interpreter or in the PATH."""
    return shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy")


async def by_spy(pid: int) -> tuple[list[str], str]:
    """The stacks of all threads with their native frames, as py-spy shows them; or nothing, and
    why."""
    program = find_spy()
    if program is None:
        return [], "py-spy is not installed on this provider: pip install 'guactors[look]'"
    arguments = [program, "dump", "--pid", str(pid)]
    if sys.platform == "linux":
        arguments.append("--native")
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), WITHIN)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return [], f"py-spy took more than {WITHIN:g} s"
    if process.returncode:
        said = err.decode("utf-8", "replace").strip()[-1000:]
        return [], f"py-spy could not look at process {pid}: {said}"
    text = out[:MOST].decode("utf-8", "replace")
    return [part.strip() for part in re.split(r"\n(?=Thread )", text) if part.strip()], ""
