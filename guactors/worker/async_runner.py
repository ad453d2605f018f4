"""Calls as coroutines on one event loop: actors with async methods.

Owns: the loop, which is the main thread's, and its tasks. Must never: block the loop.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from guactors import values
from guactors.context import ActorExit
from guactors.messages import LoadActor, Reply
from guactors.worker import execution
from guactors.worker.backpressure import LoopPause
from guactors.worker.execution import Outcome
from guactors.worker.intake import Item
from guactors.worker.serving import Borrowed, Opened, iterate, send_item

if TYPE_CHECKING:
    from guactors.worker.process import Worker


class AsyncRunner:
    """Calls as coroutines on one event loop, at most ``max_concurrency`` at a time, and in
    each concurrency group as many more as it allows."""

    hosts = False

    def __init__(self, worker: Worker, message: LoadActor, actor: Opened, name: str) -> None:
        self._worker = worker
        self._actor = actor
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[tuple[str, int], tuple[Item, asyncio.Task[None]]] = {}
        self._limits = {"": message.spec.max_concurrency or 1000, **actor.payload.groups}
        self._busy = Counter[str]()
        """Running calls of each concurrency group."""
        self._flushing = False
        self._looking = False
        """Whether another look at the sockets is due, before the loop sleeps."""
        self._done: asyncio.Event | None = None
        worker.runner = self

    def run(self) -> None:
        """Build the actor on the loop, then serve until told to leave."""
        asyncio.run(self._main())

    async def _main(self) -> None:
        worker = self._worker
        loop = self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        try:
            # On the loop, because constructors make locks and tasks.
            worker.code.instance = self._actor.build()
        except BaseException as error:
            worker.loaded(values.pack_error(error, self._name))
        else:
            worker.loaded(b"")
        for fd in worker.data_fds:
            loop.add_reader(fd, self._receive)
        self._receive()
        while not worker.exiting and not (worker.leaving and not self._tasks):
            await self._done.wait()
            self._done.clear()

    def _receive(self) -> None:
        """Start what came. A call that is alone does not wait for a look that mostly finds nothing
        more; that comes after it."""
        self._looking = False
        worker = self._worker
        items: list[Item] = []
        with worker.lock:
            intake = worker.intake
            if not intake.mailbox:
                worker.drain(time.monotonic(), all_of_it=False)
            if len(intake.mailbox) > 1 or intake.groups:
                worker.drain(time.monotonic())
            for group, mailbox in (("", intake.mailbox), *intake.groups.items()):
                while self._busy[group] < self._limits[group]:
                    item = mailbox.take()
                    if item is None:
                        break
                    self._busy[group] += 1
                    items.append(item)
        served = worker.serve_session()
        assert self._loop is not None
        for item in items:
            task = self._loop.create_task(self._serve(item))
            self._tasks[item.link, item.call.id] = (item, task)
        if items or served:
            self._look_again()

    def _look_again(self) -> None:
        """Soon: a descriptor does not tell of what was there before, and a send may have consumed
        its signal."""
        if not self._looking:
            self._looking = True
            assert self._loop is not None
            self._loop.call_soon(self._receive)

    async def _serve(self, item: Item) -> None:
        worker = self._worker
        name = worker.code.name(item.call)
        began = time.monotonic()
        try:
            reply, buffers = await self._run(item, name)
        except asyncio.CancelledError:
            if worker.exiting:
                raise
            reply, buffers = execution.failure(item, execution.ended_early(item, name), name)
        except ActorExit:
            worker.exit_actor()
            return
        with worker.lock:
            worker.outbox.add(item.link, reply, buffers, time.monotonic(), began)
        del self._tasks[item.link, item.call.id]
        group = item.call.group
        self._busy[group if group in self._limits else ""] -= 1
        if not self._tasks:
            # Nothing that could be answered together with it is on its way.
            self._flush()
        elif not self._flushing:
            self._flushing = True
            assert self._loop is not None
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        with self._worker.lock:
            self._worker.flush()
        # Calls may wait for a place, too.
        self._look_again()
        if self._worker.leaving and self._done is not None:
            self._done.set()

    async def _run(self, item: Item, name: str) -> Outcome:
        call = item.call
        if item.expires and time.monotonic() >= item.expires:
            return execution.too_late(item, name)
        execution.enter(item, name)
        try:
            with Borrowed(item):
                result = execution.start(self._worker.code, item)
                if call.returns < 0:
                    await self._stream(item, result, name)
                    return Reply(call.id, [], call.attempt), ()
                if inspect.isawaitable(result):
                    result = await result
                return execution.success(item, result, name, self._worker)
        except (asyncio.CancelledError, ActorExit):
            raise
        except BaseException as error:
            return execution.failure(item, error, name)

    async def _stream(self, item: Item, result: Any, name: str) -> None:
        index = 0
        async with LoopPause(self._worker, item, name) as pause:
            if hasattr(result, "__aiter__"):
                async for part in result:
                    send_item(self._worker, item, index, part, name)
                    index += 1
                    await pause.after(index)
                return
            for part in iterate(result, name):
                send_item(self._worker, item, index, part, name)
                index += 1
                await asyncio.sleep(0)
                await pause.after(index)

    def cancel(self, link: str, call: int, *, timeout: bool) -> bool:
        """Cancel the coroutine. Any thread."""
        found = self._tasks.get((link, call))
        if found is None or self._loop is None:
            return False
        item, task = found
        item.timed_out = timeout
        item.cancelled = True
        self._loop.call_soon_threadsafe(task.cancel)
        return True

    def calls_of(self, link: str) -> list[int]:
        """Calls of this caller that run. The worker's lock is held."""
        return [call for owner, call in list(self._tasks) if owner == link]

    def coroutines(self) -> list[tuple[str, Any]]:
        """The calls under way, with what they run. Any thread."""
        return [(item.name, task.get_coro()) for item, task in list(self._tasks.values())]

    def wake(self) -> None:
        """The worker is leaving."""
        if self._loop is not None and self._done is not None:
            self._loop.call_soon_threadsafe(self._done.set)
