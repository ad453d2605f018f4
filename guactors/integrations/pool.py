"""``multiprocessing.Pool`` on a grid.

Owns: chunks, and what the standard library promises of a pool. Must never: know how calls travel.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

import guactors as gu
from guactors.integrations.crew import Crew, Job
from guactors.integrations.hands import SeatHands
from guactors.integrations.places import places_for
from guactors.integrations.pool_results import AsyncResult, Callback, ResultIterator
from guactors.integrations.window import Window

T = TypeVar("T")
AHEAD = 4
"""Chunks of ``imap`` that may be under way or unread, for each process."""


def run_all(fn: Callable[..., T], chunk: Sequence[Any], star: bool) -> list[T]:
    """A chunk: all its results, or its first error."""
    return [fn(*item) for item in chunk] if star else [fn(item) for item in chunk]


class Pool:
    """``processes`` processes of the grid, made when first needed; by default as many as it has
    CPUs.

    ``initializer(*initargs)`` runs in each before its first call. ``maxtasksperchild``: calls, or
    chunks, after which a process is replaced. ``options`` are those of a remote class
    (``num_cpus=1``, ``resources=...``) whose actors nobody else can find; ``ray_remote_args`` is
    another way to give them, and ``ray_address`` a grid to join where there is none yet.
    ``context`` is accepted and means nothing: processes are the grid's.

    What differs from the standard pool: functions need not be importable; a process that dies ends
    its call with ActorDied instead of leaving it without an answer; ``terminate`` ends what is
    pending with TaskCancelled; ``imap`` draws from its iterable as results are taken (``join``
    draws the rest), so that an endless one works.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        options = {**(ray_remote_args or {}), **options}
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (
            not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0
        ):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if ray_address is not None:
            gu.init(ray_address, ignore_reinit_error=True)
        self._processes = processes or places_for(options)
        hands = SeatHands(
            self._processes, options, initializer, tuple(initargs or ()), maxtasksperchild
        )
        self._crew = Crew("pool", hands, Window(self._processes, strict=True))
        self._open = True
        self._streams: weakref.WeakSet[ResultIterator[Any]] = weakref.WeakSet()
        weakref.finalize(self, self._crew.close).atexit = False

    # --- calls ------------------------------------------------------------------------------------

    def apply(
        self, func: Callable[..., T], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None
    ) -> T:
        """``func(*args, **kwds)``; waits for it."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., T],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[T]:
        """``func(*args, **kwds)``, its result later; ``callback(value)`` or
        ``error_callback(error)`` when it is there."""
        self._check_open()
        result: AsyncResult[T] = AsyncResult(
            self._crew, 1, lambda values: values[0], callback, error_callback
        )
        job = Job(func, tuple(args), dict(kwds or {}), result.part(0))
        result.watch([job])
        self._crew.submit(job)
        return result

    def map(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[T]:
        """``[func(item) for item in iterable]``; waits for all."""
        return self.map_async(func, iterable, chunksize).get()

    def map_async(
        self,
        func: Callable[[Any], T],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[T]]:
        """``map``, its list later. Default ``chunksize``: four chunks for each process."""
        return self._map(func, iterable, chunksize, callback, error_callback, star=False)

    def starmap(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[T]:
        """``[func(*item) for item in iterable]``; waits for all."""
        return self.starmap_async(func, iterable, chunksize).get()

    def starmap_async(
        self,
        func: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult[list[T]]:
        """``starmap``, its list later."""
        return self._map(func, iterable, chunksize, callback, error_callback, star=True)

    def _map(
        self,
        func: Callable[..., T],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
        *,
        star: bool,
    ) -> AsyncResult[list[T]]:
        self._check_open()
        items = iterable if isinstance(iterable, list | tuple | range) else list(iterable)
        if chunksize is None:
            chunksize = -(-len(items) // (self._processes * 4))
        chunksize = max(1, chunksize)
        starts = range(0, len(items), chunksize)
        result: AsyncResult[list[T]] = AsyncResult(
            self._crew, len(starts), _flat, callback, error_callback
        )
        jobs = [
            Job(run_all, (func, items[at : at + chunksize], star), {}, result.part(number))
            for number, at in enumerate(starts)
        ]
        result.watch(jobs)
        for job in jobs:
            self._crew.submit(job)
        return result

    def imap(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int = 1
    ) -> ResultIterator[T]:
        """The results of ``map`` one by one, in order, as they are there."""
        return self._imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int = 1
    ) -> ResultIterator[T]:
        """``imap``, in the order in which they come."""
        return self._imap(func, iterable, chunksize, ordered=False)

    def _imap(
        self, func: Callable[[Any], T], iterable: Iterable[Any], chunksize: int, *, ordered: bool
    ) -> ResultIterator[T]:
        self._check_open()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize}")
        items = iter(iterable)

        def feed(settle: Callable[[Any, BaseException | None], None]) -> Job | None:
            chunk = list(islice(items, chunksize))
            if not chunk:
                return None
            job = Job(run_all, (func, chunk, False), {}, settle)
            self._crew.submit(job)
            return job

        stream: ResultIterator[T] = ResultIterator(
            self._crew, feed, AHEAD * self._processes, ordered=ordered
        )
        self._streams.add(stream)
        return stream

    # --- its end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more calls; those that were made go on."""
        self._open = False

    def terminate(self) -> None:
        """End the processes now; what is pending ends with TaskCancelled."""
        self._open = False
        self._crew.terminate()
        self._crew.join()

    def join(self) -> None:
        """After ``close`` or ``terminate``: wait until every call has ended and every process is on
        its way out."""
        if self._open:
            raise ValueError("Pool is still running")
        for stream in list(self._streams):
            stream.feed_all()
        self._crew.close()
        self._crew.join()

    def _check_open(self) -> None:
        if not self._open:
            raise ValueError("Pool not running")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.terminate()

    def __reduce__(self) -> Any:
        raise NotImplementedError("pool objects cannot be passed between processes or pickled")

    def __repr__(self) -> str:
        state = "RUN" if self._open else "CLOSE"
        return f"<guactors.util.multiprocessing.Pool state={state} pool_size={self._processes}>"


def _flat(chunks: list[list[T]]) -> list[T]:
    return [value for chunk in chunks for value in chunk]
