"""``concurrent.futures.Executor`` on a grid.

Owns: futures, and what the standard library promises of them. Must never: know how calls travel.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from itertools import chain, islice
from typing import Any, TypeVar

from guactors.errors import UnknownOption
from guactors.integrations.crew import Crew, Hands, Job
from guactors.integrations.hands import SeatHands, TaskHands
from guactors.integrations.places import Places, places_for
from guactors.integrations.window import Window

T = TypeVar("T")


class GridFuture(futures.Future[T]):
    """A future of :class:`Executor`. Beyond the standard one, ``cancel`` also ends a call that
    runs, where that is possible; and inside a task of the grid, ``result`` and ``exception`` lend
    the processor to the call they wait for (``futures.wait`` and ``as_completed`` cannot)."""

    _crew: Crew
    _job: Job

    def running(self) -> bool:
        """Whether the call is on the grid: runs, or is next."""
        return not self.done() and self._job.ref is not None

    def cancel(self) -> bool:
        """Never run it; if it runs, end it. False if it has ended, or cannot be ended (a call of an
        executor with an initializer)."""
        if self.done():
            return super().cancel()
        job = self._job
        if job.ref is not None and not self._crew.interruptible:
            return False
        if not super().cancel():
            return False
        if job.claim() is not None:
            self.set_running_or_notify_cancel()
            self._crew.cancel(job)
        return True

    def result(self, timeout: float | None = None) -> T:
        """The value, or the call's error as the type it was raised as, with the remote traceback as
        its cause. Raises TimeoutError after ``timeout`` seconds, CancelledError."""
        return super().result(self._lend(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The call's error, or None. Raises as ``result``."""
        return super().exception(self._lend(timeout))

    def _lend(self, timeout: float | None) -> float | None:
        if not self._crew.in_worker or self.done():
            return timeout
        began = time.monotonic()
        self._crew.wait([self._job], timeout)
        return None if timeout is None else max(0.0, timeout - (time.monotonic() - began))


class Executor(futures.Executor):
    """Calls as tasks of the grid.

    ``max_workers``: at most so many calls at a time (default: what the grid has room for, also when
    it grows; a quick call is then sent ahead of a free processor). ``initializer(*initargs)`` runs
    once in each process before its first call; with it the calls run in ``max_workers`` processes
    of their own instead of as tasks. ``options`` are those of ``@gu.remote``: ``num_cpus=2``,
    ``priority=1``, ... A call runs at most once unless ``max_retries`` is given; one whose process
    died raises WorkerDied, and the executor goes on.

    Starts a grid if there is none. Raises ValueError for impossible arguments, UnknownOption.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if "num_returns" in options:
            raise UnknownOption("a future has one result: num_returns is no option of an executor")
        hands: Hands
        places: Places | None = None
        if initializer is not None:
            count = max_workers or places_for(options)
            hands = SeatHands(count, options, initializer, initargs)
            window = Window(count, strict=True)
        else:
            hands = TaskHands({"max_retries": 0, **options})
            if max_workers is None:
                places = Places(options)
                window = Window(places.count, strict=False)
            else:
                window = Window(max_workers, strict=True)
        self._crew = Crew("executor", hands, window, places)
        # Whoever drops the executor still gets the results of what was submitted.
        weakref.finalize(self, self._crew.close).atexit = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> GridFuture[T]:
        """``fn(*args, **kwargs)`` on the grid. A ref among the arguments is replaced by its value.
        Raises RuntimeError after ``shutdown``."""
        future: GridFuture[T] = GridFuture()
        future._crew = self._crew
        future._job = Job(fn, args, kwargs, _settler(future))
        self._crew.submit(future._job)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As ``map``: results in order, TimeoutError if one is not there ``timeout`` seconds after
        this call. ``chunksize``: so many calls travel together. ``buffersize``: at most so many
        submitted (chunks of) calls whose results were not taken, for endless iterables; on all
        versions of Python."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        calls = zip(*iterables, strict=False)
        if chunksize == 1:
            return self._results((self.submit(fn, *args) for args in calls), deadline, buffersize)
        chunks = iter(lambda: list(islice(calls, chunksize)), [])
        made = (self.submit(run_chunk, fn, chunk) for chunk in chunks)
        return chain.from_iterable(self._results(made, deadline, buffersize))

    def _results(
        self, made: Iterator[GridFuture[Any]], deadline: float | None, buffersize: int | None
    ) -> Iterator[Any]:
        """Submits now, not at the first ``next``."""
        pending = deque(made if buffersize is None else islice(made, buffersize))

        def results() -> Iterator[Any]:
            try:
                while pending:
                    left = None if deadline is None else max(0.0, deadline - time.monotonic())
                    value = [_taken(pending, left)]
                    pending.extend(islice(made, 1))
                    # Nothing here may keep alive what was handed out.
                    yield value.pop()
            finally:
                for future in pending:
                    future.cancel()

        return results()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; ``wait`` for those that were submitted; ``cancel_futures``: but not
        for those that have not begun, which are cancelled."""
        for job in self._crew.close(drop_waiting=cancel_futures):
            job.end(None, futures.CancelledError())
        if wait:
            self._crew.join()


def run_chunk(fn: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> list[T]:
    """Several calls in one."""
    return [fn(*args) for args in calls]


def _taken(pending: deque[GridFuture[Any]], left: float | None) -> Any:
    value = pending[0].result(left)
    pending.popleft()
    return value


def _settler(future: GridFuture[Any]) -> Callable[[Any, BaseException | None], None]:
    def settle(value: Any, error: BaseException | None) -> None:
        if isinstance(error, futures.CancelledError):
            futures.Future.cancel(future)
        if not future.set_running_or_notify_cancel():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    return settle
