"""Async tests as plain functions: each on a loop of its own, with a deadline.

Owns: the decorator. Must never: leave a task behind.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

DEADLINE = 10.0
"""Seconds until a test that waits is taken for one that waits in vain."""


def on_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an ``async def`` test to its end."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(DEADLINE):
                await test(*args, **kwargs)
            strays = asyncio.all_tasks() - {asyncio.current_task()}
            assert not strays, f"tasks left behind: {strays}"

        asyncio.run(limited())

    return run


async def eventually(holds: Callable[[], bool]) -> None:
    """Return once ``holds()``; the test's deadline ends the wait for what never does."""
    while not holds():  # noqa: ASYNC110 - what it waits for has no event
        await asyncio.sleep(0.001)


async def until(probe: Callable[[], Awaitable[T]], holds: Callable[[T], object]) -> T:
    """The first thing that ``probe`` gives for which ``holds``."""
    while not holds(found := await probe()):  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.001)
    return found


def eventually_sync(holds: Callable[[], bool]) -> None:
    """As ``eventually``, in a plain thread; fails after DEADLINE."""
    until = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.001)
