"""What a pool's calls return: results that come later, one or in order.

Owns: waiting for outcomes, and telling them. Must never: start a call, but through the function it
was given.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.context import TimeoutError as PoolTimeout
from typing import Any, Generic, TypeVar

from guactors.errors import GetTimeout
from guactors.integrations.crew import Crew, Job

T = TypeVar("T")
Callback = Callable[[Any], object]
_log = logging.getLogger(__name__)


class ResultTimeout(PoolTimeout, GetTimeout):
    """Not there in time: a ``multiprocessing.TimeoutError`` and a ``TimeoutError``."""


class AsyncResult(Generic[T]):
    """The outcome of ``apply_async``, ``map_async`` or ``starmap_async``. Callbacks run on a thread
    of the pool, before whoever waits goes on."""

    def __init__(
        self,
        crew: Crew,
        parts: int,
        assemble: Callable[[list[Any]], T],
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> None:
        self._crew = crew
        self._jobs: list[Job] = []
        self._values: list[Any] = [None] * parts
        self._errors: dict[int, BaseException] = {}
        self._left = parts
        self._assemble = assemble
        self._callback = callback
        self._error_callback = error_callback
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._value: T
        self._error: BaseException | None = None
        if not parts:
            self._end()

    def part(self, index: int) -> Callable[[Any, BaseException | None], None]:
        """What takes the outcome of one part."""

        def settle(value: Any, error: BaseException | None) -> None:
            with self._lock:
                self._values[index] = value
                if error is not None:
                    self._errors[index] = error
                self._left -= 1
                over = not self._left
            if over:
                self._end()

        return settle

    def watch(self, jobs: list[Job]) -> None:
        """The calls that make the parts."""
        self._jobs = jobs

    def _end(self) -> None:
        if self._errors:
            self._error = self._errors[min(self._errors)]
            self._call(self._error_callback, self._error)
        else:
            self._value = self._assemble(self._values)
            self._call(self._callback, self._value)
        self._values, self._jobs = [], []
        self._over.set()

    def _call(self, callback: Callback | None, argument: Any) -> None:
        if callback is None:
            return
        try:
            callback(argument)
        except Exception:  # noqa: BLE001
            # The pool must go on, and there is nobody to raise it to.
            _log.exception("a callback of %r raised", self)

    def wait(self, timeout: float | None = None) -> None:
        """Until it is there, or ``timeout`` seconds are over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._crew.in_worker:
            for job in list(self._jobs):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                self._crew.wait([job], left)
        self._over.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def ready(self) -> bool:
        """Whether it is there."""
        return self._over.is_set()

    def successful(self) -> bool:
        """Whether it is there and no error. Raises ValueError before it is there."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return self._error is None

    def get(self, timeout: float | None = None) -> T:
        """The value. Raises the call's error as the type it was raised as, with the remote
        traceback as its cause; of several, that of the first item. multiprocessing.TimeoutError
        after ``timeout`` seconds."""
        self.wait(timeout)
        if not self.ready():
            raise ResultTimeout(f"no result within {timeout} s; the call goes on")
        if self._error is not None:
            raise self._error
        return self._value


class ResultIterator(Generic[T]):
    """The results of ``imap`` and ``imap_unordered``. ``feed()`` submits the next chunk and returns
    its job, or None when there are no more; it is called as results are taken, so that never more
    than ``ahead`` chunks are under way or unread."""

    def __init__(
        self,
        crew: Crew,
        feed: Callable[[Callable[[Any, BaseException | None], None]], Job | None],
        ahead: int,
        *,
        ordered: bool,
    ) -> None:
        self._crew = crew
        self._feed = feed
        self._ahead = ahead
        self._ordered = ordered
        self._news = threading.Condition()
        self._jobs: dict[int, Job] = {}
        self._done: dict[int, tuple[Any, BaseException | None]] = {}
        self._arrived: deque[int] = deque()
        self._made = self._taken = 0
        self._fed = False
        self._ready: deque[T] = deque()
        self._failure: BaseException | None = None
        self._feeding = threading.RLock()
        self._fill()

    def _fill(self, *, everything: bool = False) -> None:
        with self._feeding:
            while not self._fed and (everything or self._made - self._taken < self._ahead):
                number = self._made
                try:
                    job = self._feed(self._settler(number))
                except Exception as error:  # noqa: BLE001 - it is told to whoever reads
                    # The user's iterable failed: its error takes its place among the results.
                    self._made, self._fed = number + 1, True
                    self._on_outcome(number, None, error)
                    return
                if job is None:
                    self._fed = True
                    return
                self._made = number + 1
                with self._news:
                    if number not in self._done:
                        self._jobs[number] = job

    def feed_all(self) -> None:
        """Submit the rest now: the pool is about to wait for everything."""
        self._fill(everything=True)

    def _settler(self, number: int) -> Callable[[Any, BaseException | None], None]:
        return lambda value, error: self._on_outcome(number, value, error)

    def _on_outcome(self, number: int, value: Any, error: BaseException | None) -> None:
        with self._news:
            self._done[number] = (value, error)
            self._arrived.append(number)
            self._jobs.pop(number, None)
            self._news.notify_all()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self.next()

    def next(self, timeout: float | None = None) -> T:
        """The next result. Raises StopIteration, the item's error, or multiprocessing.TimeoutError
        after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._ready:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._fed and self._taken == self._made:
                raise StopIteration
            self._take(deadline, timeout)
        return self._ready.popleft()

    def _take(self, deadline: float | None, timeout: float | None) -> None:
        """The next chunk's outcome."""
        number = self._taken
        while True:
            with self._news:
                if self._ordered:
                    there = number in self._done
                else:
                    there = bool(self._arrived)
                    number = self._arrived.popleft() if there else number
                if there:
                    values, error = self._done.pop(number)
                    break
                jobs = [self._jobs[number]] if number in self._jobs else list(self._jobs.values())
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0.0:
                    raise ResultTimeout(f"no result within {timeout} s; the call goes on")
                if not self._crew.in_worker:
                    self._news.wait(left)
                    continue
            self._crew.wait(jobs, left)
        self._taken += 1
        self._fill()
        if error is None:
            self._ready.extend(values)
        else:
            self._failure = error
