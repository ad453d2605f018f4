"""Calls on several threads: actors with ``max_concurrency``.

Owns: a fixed set of threads that take calls as they come; the main thread only receives. Must
never: interrupt a call, which threads do not allow: it flags it.
"""

from __future__ import annotations

import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from guactors.worker import execution
from guactors.worker.execution import Outcome
from guactors.worker.intake import Item
from guactors.worker.serving import Borrowed, answer

if TYPE_CHECKING:
    from guactors.worker.process import Worker

NAP = 5.0


class ThreadRunner:
    """Several calls at a time, each on a thread of a fixed set. The main thread receives and
    answers for all: it puts one token into the queue for each call that waits, a thread that gets
    one takes the most urgent call (or none, when it was cancelled)."""

    hosts = False

    def __init__(self, worker: Worker, threads: int) -> None:
        self._worker = worker
        self._tokens: SimpleQueue[bool] = SimpleQueue()
        self._running: dict[tuple[str, int], Item] = {}
        self._threads = [
            threading.Thread(target=self._serve, name=f"guactors-call-{i}", daemon=True)
            for i in range(threads)
        ]
        worker.runner = self

    def run(self) -> None:
        """Receive until told to leave, then wait for the calls that run."""
        worker = self._worker
        for thread in self._threads:
            thread.start()
        while not worker.leaving:
            with worker.lock:
                worker.flush()
                worker.drain(time.monotonic())
                waiting = len(worker.intake.mailbox)
            for _ in range(waiting - self._tokens.qsize()):
                self._tokens.put(True)
            worker.serve_session()
            worker.poller.wait(NAP)
        for _ in self._threads:
            self._tokens.put(False)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        worker = self._worker
        while self._tokens.get():
            with worker.lock:
                item = worker.intake.mailbox.take()
                if item is None:
                    continue
                self._running[item.link, item.call.id] = item
            name = worker.code.name(item.call)
            began = time.monotonic()
            reply, buffers = self._run(item, name)
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
        except BaseException as error:
            return execution.failure(item, error, name)

    def cancel(self, link: str, call: int, *, timeout: bool) -> bool:
        """Flag the running call; a thread cannot be interrupted. The worker's lock is held."""
        item = self._running.get((link, call))
        if item is None:
            return False
        item.timed_out = timeout
        item.cancelled = True
        return True

    def calls_of(self, link: str) -> list[int]:
        """Calls of this caller that run. The worker's lock is held."""
        return [call for owner, call in self._running if owner == link]

    def coroutines(self) -> list[tuple[str, Any]]:
        """None run here."""
        return []

    def wake(self) -> None:
        """The worker is leaving; the poller was woken already."""
