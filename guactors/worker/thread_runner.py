"""Calls on several threads: actors with ``max_concurrency`` or concurrency groups.

Owns: fixed sets of threads that take calls as they come; the main thread only receives. Must
never: interrupt a call, which threads do not allow: it flags it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from guactors.context import ActorExit
from guactors.worker import execution
from guactors.worker.call_queue import CallQueue
from guactors.worker.execution import Outcome
from guactors.worker.intake import Item
from guactors.worker.serving import Borrowed, answer

if TYPE_CHECKING:
    from guactors.worker.process import Worker

NAP = 5.0


class Crew:
    """The threads of one concurrency group. There is one token for each call that waits: a thread
    that gets one takes the most urgent call, or none when it was cancelled."""

    def __init__(self, name: str, size: int, mailbox: CallQueue[Item]) -> None:
        self.name = name
        self.mailbox = mailbox
        self.tokens: SimpleQueue[bool] = SimpleQueue()
        self.threads: list[threading.Thread] = []
        self._size = size

    def start(self, serve: Callable[[Crew], None]) -> None:
        """Have each thread run ``serve``."""
        name = f"guactors-call-{self.name}-" if self.name else "guactors-call-"
        for i in range(self._size):
            thread = threading.Thread(target=serve, args=(self,), name=f"{name}{i}", daemon=True)
            thread.start()
            self.threads.append(thread)

    def alert(self) -> None:
        """Tokens for the calls that came. The worker's lock is held."""
        for _ in range(len(self.mailbox) - self.tokens.qsize()):
            self.tokens.put(True)

    def dismiss(self) -> None:
        """Have each thread leave when it is done."""
        for _ in self.threads:
            self.tokens.put(False)


class ThreadRunner:
    """Several calls at a time, each on a thread of a fixed set, a set of its own for each of
    ``groups``. The main thread receives and answers for all."""

    hosts = False

    def __init__(self, worker: Worker, threads: int, groups: Mapping[str, int]) -> None:
        self._worker = worker
        self._running: dict[tuple[str, int], Item] = {}
        self._crews = [Crew("", threads, worker.intake.mailbox)]
        self._crews += [
            Crew(name, size, worker.intake.groups[name]) for name, size in groups.items()
        ]
        worker.runner = self

    def run(self) -> None:
        """Receive until told to leave, then wait for the calls that run."""
        worker, crews = self._worker, self._crews
        for crew in crews:
            crew.start(self._serve)
        while not worker.leaving:
            with worker.lock:
                worker.flush()
                worker.drain(time.monotonic())
                for crew in crews:
                    crew.alert()
            worker.serve_session()
            worker.poller.wait(NAP)
        for crew in crews:
            crew.dismiss()
        for crew in crews:
            for thread in crew.threads:
                # Calls that an exiting actor still runs are nobody's any more.
                thread.join(0.0 if worker.exiting else None)

    def _serve(self, crew: Crew) -> None:
        worker = self._worker
        while crew.tokens.get():
            with worker.lock:
                item = crew.mailbox.take()
                if item is None:
                    continue
                self._running[item.link, item.call.id] = item
            name = worker.code.name(item.call)
            began = time.monotonic()
            try:
                reply, buffers = self._run(item, name)
            except ActorExit:
                worker.exit_actor()
                return
            with worker.lock:
                del self._running[item.link, item.call.id]
                worker.outbox.add(item.link, reply, buffers, time.monotonic(), began)
            worker.poller.wake()

    def _run(self, item: Item, name: str) -> Outcome:
        if item.expires and time.monotonic() >= item.expires:
            return execution.too_late(item, name)
        execution.enter(item, name)
        try:
            with Borrowed(item):
                return answer(self._worker, item, name)
        except ActorExit:
            raise
        except BaseException as error:
            return execution.failure(item, error, name)

    def cancel(self, link: str, call: int, *, timeout: bool) -> bool:
        """Flag the running call; a thread cannot be interrupted. The worker's lock is held."""
        item = self._running.get((link, call))
        if item is None:
            return False
        item.timed_out = timeout
        item.cancelled = True
        self._worker.brakes.on_cancelled(link, call)
        if self._worker.code.enclosed is not None:
            self._worker.code.enclosed.cancel(item)
        return True

    def calls_of(self, link: str) -> list[int]:
        """Calls of this caller that run. The worker's lock is held."""
        return [call for owner, call in self._running if owner == link]

    def coroutines(self) -> list[tuple[str, Any]]:
        """None run here."""
        return []

    def wake(self) -> None:
        """The worker is leaving; the poller was woken already."""
