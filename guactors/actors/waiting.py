"""Those who wait for an answer: on the loop, on another loop, or in a plain thread.

Owns: how a waiter is made, settled once, and waited for with a time-out. Must never: know what the
answer is about.

A waiter is settled on the system's loop thread only; whoever waits may give up at any moment, from
its own thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any, TypeAlias

from guactors.errors import CallTimeout

Waiter: TypeAlias = asyncio.Future[Any] | concurrent.futures.Future[Any]


def new_waiter(loop: asyncio.AbstractEventLoop) -> Waiter:
    """For the running coroutine, to be settled on ``loop``."""
    if asyncio.get_running_loop() is loop:
        return loop.create_future()
    return concurrent.futures.Future()


def fulfil(waiter: Waiter, value: Any) -> None:
    """Settle with ``value``, unless nobody waits any more."""
    if _open(waiter):
        waiter.set_result(value)


def fail(waiter: Waiter, error: BaseException) -> None:
    """Settle with ``error``, unless nobody waits any more."""
    if _open(waiter):
        waiter.set_exception(_settable(error))


def _open(waiter: Waiter) -> bool:
    if isinstance(waiter, concurrent.futures.Future):
        # Its owner may cancel it from another thread at any moment, but not once it runs.
        return not waiter.done() and waiter.set_running_or_notify_cancel()
    return not waiter.done()


def _settable(error: BaseException) -> BaseException:
    """``error``, or a stand-in where a future would refuse it or its waiter would be misled."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    stand_in = RuntimeError(f"the actor raised {error!r}")
    stand_in.__cause__ = error
    return stand_in


async def settled(
    waiter: Waiter,
    timeout: float | None,
    withdraw: Callable[[], None],
    late: Callable[[], CallTimeout],
) -> Any:
    """The answer. Where it does not come in ``timeout`` seconds, or the waiting is cancelled, the
    question is withdrawn; a time-out raises ``late()``."""
    future = waiter if isinstance(waiter, asyncio.Future) else asyncio.wrap_future(waiter)
    if timeout is None:
        return await _or_withdraw(future, withdraw)
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await _or_withdraw(future, withdraw)
    except TimeoutError as error:
        # The actor itself may have raised a TimeoutError: then it is the answer.
        if not limit.expired():
            raise
        raise late() from error


async def _or_withdraw(future: asyncio.Future[Any], withdraw: Callable[[], None]) -> Any:
    try:
        return await future
    except asyncio.CancelledError:
        withdraw()
        raise


def settled_sync(
    waiter: concurrent.futures.Future[Any],
    timeout: float | None,
    withdraw: Callable[[], None],
    late: Callable[[], CallTimeout],
) -> Any:
    """As ``settled``, blocking the thread."""
    try:
        return waiter.result(timeout)
    except TimeoutError as error:
        # As above; and whoever cannot cancel any more was answered in this very moment.
        if not waiter.cancel():
            return waiter.result()
        withdraw()
        raise late() from error
