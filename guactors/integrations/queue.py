"""A queue that every process of the grid can use: Ray's ``Queue``.

Owns: the actor that holds the items, and the errors of :mod:`queue`. Must never: keep an item in
the process of a user.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

import guactors as gu
from guactors.errors import ActorDied

MOST_WAITING = 1_000_000
"""Calls that may wait at the queue at a time. A bound that is reached by waiting ``get`` calls
would keep out the ``put`` they wait for."""


class Empty(queue.Empty):
    """Nothing in it, and nothing came in time."""


class Full(queue.Full):
    """No room in it, and none was made in time."""


class Store:
    """What runs in the queue's process. An answer is a tuple around the item, or whether there was
    room, so that an error is the process's own."""

    def __init__(self, maxsize: int) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue(max(0, maxsize))
        self._waiting = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def size(self) -> int:
        return self._items.qsize()

    async def put(self, item: Any, seconds: float | None) -> bool:
        if not self._items.full():
            self._items.put_nowait(item)
            return True
        return await self._wait(self._items.put(item), seconds) is not None

    async def get(self, seconds: float | None) -> tuple[Any, ...] | None:
        if not self._items.empty():
            return (self._items.get_nowait(),)
        return await self._wait(self._items.get(), seconds)

    async def _wait(self, what: Any, seconds: float | None) -> tuple[Any, ...] | None:
        self._waiting += 1
        self._idle.clear()
        try:
            return (await asyncio.wait_for(what, seconds),)
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._idle.set()

    async def put_all(self, items: list[Any]) -> int | None:
        """All of them and None, or none of them and how many are in it."""
        size = self._items.qsize()
        if self._items.maxsize and size + len(items) > self._items.maxsize:
            return size
        for item in items:
            self._items.put_nowait(item)
        return None

    async def get_all(self, count: int) -> tuple[list[Any] | None, int]:
        """So many and 0, or none and how many there are."""
        size = self._items.qsize()
        if count > size:
            return None, size
        return [self._items.get_nowait() for _ in range(count)], 0

    async def settle(self, seconds: float) -> None:
        """Until no call waits, or ``seconds`` are over."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            return


class Queue:
    """First in, first out, with the methods and errors of :class:`queue.Queue`, for all processes
    of the grid: pass it to tasks and actors. ``maxsize``: most items in it, 0 or less is no bound.
    ``actor_options`` are those of a remote class.

    The queue lives in an actor and ends with it: at ``shutdown``, or when the process that made it
    drops it. Calls after that raise ActorDied. An item whose receiver dies while it is handed over
    is lost.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        options = {"max_concurrency": MOST_WAITING, **(actor_options or {})}
        self.maxsize = maxsize
        self.actor: Any = gu.remote(**options)(Store).remote(maxsize)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.maxsize, self.actor)

    def __repr__(self) -> str:
        return f"Queue(maxsize={self.maxsize}, {self.actor!r})"

    # --- how much is in it ------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.size()

    def __bool__(self) -> bool:
        """A queue is there, also an empty one."""
        return True

    def size(self) -> int:
        """Items in it, at some time between call and return."""
        size: int = gu.get(self.actor.size.remote())
        return size

    def qsize(self) -> int:
        """``size``."""
        return self.size()

    def empty(self) -> bool:
        """Whether nothing is in it."""
        return self.size() == 0

    def full(self) -> bool:
        """Whether ``maxsize`` items are in it."""
        return 0 < self.maxsize <= self.size()

    # --- one item ---------------------------------------------------------------------------------

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item in; waits for room at most ``timeout`` seconds, without ``block`` not at all.
        Raises Full. An ObjectRef is replaced by its value."""
        if not gu.get(self.actor.put.remote(item, _seconds(block, timeout))):
            raise Full(f"{self!r} is full")

    async def put_async(
        self, item: Any, block: bool = True, timeout: float | None = None,  # noqa: ASYNC109 - Ray's
    ) -> None:  # fmt: skip
        """``put`` for coroutines."""
        if not await self.actor.put.remote(item, _seconds(block, timeout)):
            raise Full(f"{self!r} is full")

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item out; waits for one at most ``timeout`` seconds, without ``block``
        not at all. Raises Empty."""
        return self._item(gu.get(self.actor.get.remote(_seconds(block, timeout))))

    async def get_async(
        self, block: bool = True, timeout: float | None = None,  # noqa: ASYNC109 - Ray's
    ) -> Any:  # fmt: skip
        """``get`` for coroutines."""
        return self._item(await self.actor.get.remote(_seconds(block, timeout)))

    def _item(self, found: tuple[Any, ...] | None) -> Any:
        if found is None:
            raise Empty(f"{self!r} is empty")
        return found[0]

    def put_nowait(self, item: Any) -> None:
        """``put(item, block=False)``."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """``get(block=False)``."""
        return self.get(block=False)

    # --- many items -------------------------------------------------------------------------------

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Put all in, in one step, or none. Raises Full."""
        if not isinstance(items, Iterable):
            raise TypeError(f"put_nowait_batch() takes items, not {type(items).__name__}")
        batch = list(items)
        size = gu.get(self.actor.put_all.remote(batch))
        if size is not None:
            raise Full(f"no room for {len(batch)} items: {size} are in {self!r}")

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take the ``num_items`` oldest out, in one step, or none. Raises Empty."""
        if not isinstance(num_items, int) or isinstance(num_items, bool):
            raise TypeError(f"num_items is an integer, not {type(num_items).__name__}")
        if num_items < 0:
            raise ValueError(f"num_items={num_items} is negative")
        items, size = gu.get(self.actor.get_all.remote(num_items))
        if items is None:
            raise Empty(f"no {num_items} items: {size} are in {self!r}")
        found: list[Any] = items
        return found

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the queue; what is in it is lost, and calls that wait at it end with ActorDied.
        Without ``force`` they get ``grace_period_s`` seconds to end by themselves."""
        try:
            if not force:
                gu.get(self.actor.settle.remote(grace_period_s))
            gu.kill(self.actor)
        except ActorDied:
            return  # somebody else ended it


def _rebuild(maxsize: int, actor: Any) -> Queue:
    made = Queue.__new__(Queue)
    made.maxsize, made.actor = maxsize, actor
    return made


def _seconds(block: bool, timeout: float | None) -> float | None:
    if not block:
        return 0.0
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout
