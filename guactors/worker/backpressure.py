"""Streams whose producer pauses while its reader has enough unread.

Owns: what the reader of each running stream has taken, and the sleep of the producer. Must never:
send, or decide how much may be unread (the call says so).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Self

from guactors.errors import TaskCancelled
from guactors.worker.intake import Item

if TYPE_CHECKING:
    from guactors.worker.process import Worker

NAP = 5.0
BLOCKED_AFTER = 0.02
"""Seconds a task is paused before it counts as one that waits in get(): its CPU is free then, and
nothing queues behind it. Its reader may need both."""


class Brake:
    """Of one running stream. ``rouse`` makes its producer look again; any thread."""

    def __init__(self, item: Item, name: str, rouse: Callable[[], None]) -> None:
        self.item = item
        self.name = name
        self.rouse = rouse
        self.taken = 0
        self.gone = False

    def holds(self, made: int) -> bool:
        """Whether the producer must wait after ``made`` items. Raises TaskCancelled when nobody
        reads on."""
        if self.gone:
            raise TaskCancelled(f"{self.name} was stopped: who reads the stream is gone")
        if self.item.cancelled:
            raise TaskCancelled(f"{self.name} was cancelled")
        return made - self.taken >= self.item.call.window


class Brakes:
    """Of all running streams with a window, by link and call."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._brakes: dict[tuple[str, int], Brake] = {}

    def put_on(self, item: Item, name: str, rouse: Callable[[], None]) -> Brake:
        """For a stream that begins."""
        brake = self._brakes[item.key] = Brake(item, name, rouse)
        # A link that went before is not forgotten again.
        brake.gone = self._worker.home_of(item.link) is None
        return brake

    def take_off(self, item: Item) -> None:
        """The stream has ended."""
        self._brakes.pop(item.key, None)

    def on_taken(self, link: str, call: int, taken: int) -> None:
        """The reader's word. One about a stream that has not begun is lost: at the first item that
        it knows already the reader repeats it."""
        brake = self._brakes.get((link, call))
        if brake is not None:
            brake.taken = max(brake.taken, taken)
            brake.rouse()

    def on_cancelled(self, link: str, call: int) -> None:
        """Its producer is to end."""
        brake = self._brakes.get((link, call))
        if brake is not None:
            brake.rouse()

    def forget(self, link: str) -> None:
        """Who read these streams is gone."""
        for (reader, _), brake in list(self._brakes.items()):
            if reader == link:
                brake.gone = True
                brake.rouse()


class Pause:
    """The sleep of a producer that runs on a thread of its own, or on the main thread, which must
    take in meanwhile what comes."""

    def __init__(self, worker: Worker, item: Item, name: str) -> None:
        self._worker = worker
        self._item = item
        self._news: SimpleQueue[None] = SimpleQueue()
        main = threading.get_ident() == worker.main_thread
        self._sleep = self._on_main_thread if main else self._on_thread
        rouse = worker.poller.wake if main else lambda: self._news.put(None)
        self._brake = worker.brakes.put_on(item, name, rouse)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._worker.brakes.take_off(self._item)

    def after(self, made: int) -> None:
        """Sleep while too much is unread of the ``made`` items. Raises TaskCancelled when nobody
        reads on."""
        if self._brake.holds(made):
            self._sleep(made)

    def _on_thread(self, made: int) -> None:
        while self._brake.holds(made):
            self._news.get()

    def _on_main_thread(self, made: int) -> None:
        worker = self._worker
        since = time.monotonic()
        blocked = False
        try:
            while self._brake.holds(made):
                worker.poller.wait(NAP if blocked else BLOCKED_AFTER)
                with worker.lock:
                    worker.drain(time.monotonic())
                worker.serve_session()
                if not blocked and time.monotonic() - since >= BLOCKED_AFTER:
                    blocked = True
                    worker.bouncing.set_blocked(True)
        finally:
            if blocked:
                worker.bouncing.set_blocked(False)


class LoopPause:
    """The same for a producer on an event loop; without a window it never sleeps."""

    def __init__(self, worker: Worker, item: Item, name: str) -> None:
        self._brakes = worker.brakes
        self._item = item
        self._name = name
        self._brake: Brake | None = None
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        if self._item.call.window:
            loop = asyncio.get_running_loop()

            def rouse() -> None:
                with contextlib.suppress(RuntimeError):  # the loop has ended, and all on it
                    loop.call_soon_threadsafe(self._news.set)

            self._brake = self._brakes.put_on(self._item, self._name, rouse)
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._brake is not None:
            self._brakes.take_off(self._item)

    async def after(self, made: int) -> None:
        """As in Pause."""
        while self._brake is not None and self._brake.holds(made):
            self._news.clear()
            await self._news.wait()
