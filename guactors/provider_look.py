"""The provider's shell for looks that take a while: at a worker's stack, and at whether the machine
is used.

Owns: the tasks that wait for a dump, and the sources of idleness. Must never: decide which worker
may be looked at, or what follows from a look.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct

from guactors.config import ProviderConfig
from guactors.provider_idle import IdleWatch, ReadingsAre
from guactors.provider_state import Effect, ProviderCore, ReadIdle, TakeStack
from guactors.runtimes import spy
from guactors.worker.stack import SIGNAL, dump_path, written_by


class StackTaken(Struct, frozen=True):
    """What became of a TakeStack; ``fault`` says why there is nothing."""

    number: int
    threads: list[str]
    by: str
    fault: str = ""


LookNews = StackTaken | ReadingsAre
"""What came of an effect that was carried out."""


class Looks:
    """``told`` gets LookNews, on the loop. Raises UsageError for a source of idleness that there is
    not."""

    def __init__(self, config: ProviderConfig, told: Callable[[object], None]) -> None:
        self._dumps = Dumps(config.run_dir, told)
        self._idle = IdleWatch(config.lending, told)

    def carry_out(self, effect: TakeStack | ReadIdle) -> None:
        """See the effects."""
        if isinstance(effect, TakeStack):
            self._dumps.carry_out(effect)
        else:
            self._idle.carry_out()

    def forget(self, worker: str) -> None:
        """It has ended."""
        self._dumps.forget(worker)

    def close(self) -> None:
        """Whatever is under way is dropped."""
        self._dumps.close()
        self._idle.close()


def tell_core(core: ProviderCore, news: LookNews, now: float) -> Sequence[Effect]:
    """Hand it to the event it is."""
    if isinstance(news, ReadingsAre):
        return core.on_readings(news.readings, now)
    return core.on_stack_taken(news.number, news.threads, news.by, news.fault)


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
