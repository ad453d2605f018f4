"""The provider's shell for stack dumps that the worker cannot give by itself.

Owns: the tasks that wait for a dump. Must never: decide which worker may be looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct

from guactors.provider_state import TakeStack
from guactors.runtimes import spy
from guactors.worker.stack import SIGNAL, dump_path, written_by


class StackTaken(Struct, frozen=True):
    """What became of a TakeStack; ``fault`` says why there is nothing."""

    number: int
    threads: list[str]
    by: str
    fault: str = ""


class Dumps:
    """``run_dir``: of the workers; ``told`` gets a :class:`StackTaken` for each effect."""

    def __init__(self, run_dir: str, told: Callable[[object], None]) -> None:
        self._run_dir = run_dir
        self._told = told
        self._tasks: set[asyncio.Task[None]] = set()

    def carry_out(self, effect: TakeStack) -> None:
        """Begin to look; the answer comes later."""
        task = asyncio.get_running_loop().create_task(self._take(effect))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, effect: TakeStack) -> None:
        if effect.native:
            threads, fault = await spy.by_spy(effect.pid)
            self._told(StackTaken(effect.number, threads, "py-spy", fault))
        elif SIGNAL is not None:
            path = written_by(effect.pid, dump_path(self._run_dir, effect.worker))
            threads = await spy.by_signal(effect.pid, SIGNAL, path)
            self._told(StackTaken(effect.number, threads, "signal"))

    def forget(self, worker: str) -> None:
        """It has ended, and nobody needs its file."""
        with suppress(FileNotFoundError):
            os.unlink(dump_path(self._run_dir, worker))

    def close(self) -> None:
        """Whatever is under way is dropped."""
        for task in self._tasks:
            task.cancel()
