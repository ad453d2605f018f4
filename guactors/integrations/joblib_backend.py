"""joblib's backend: batches of its calls are tasks.

Owns: one call of ``joblib.Parallel`` at a time. Must never: be imported where joblib is not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

import guactors as gu
from guactors.integrations.executor import Executor
from guactors.integrations.places import places_for

SHARED = 1 << 20
"""Bytes from which an array is stored once for all batches of a call, and not sent with each."""


class GridBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """``options`` are those of ``@gu.remote``: ``parallel_backend("guactors", num_cpus=2)``.

    ``n_jobs=-1`` is as many as the grid has room for. Calls inside calls run on the grid as well if
    they say ``n_jobs=``, and one after the other in their place if they do not. Arrays of 1 MiB and
    more that are arguments arrive read-only. In a worker there is no ``return_as="generator"``.
    """

    supports_inner_max_num_threads = False
    supports_timeout = True
    uses_threads = False
    supports_sharedmem = False
    # A batch costs less than a millisecond to send; joblib's own bounds are for slower ways.
    MIN_IDEAL_BATCH_DURATION = 0.05
    MAX_IDEAL_BATCH_DURATION = 0.5

    def __init__(self, nesting_level: int | None = None, **options: Any) -> None:
        options.pop("inner_max_num_threads", None)
        super().__init__(nesting_level=nesting_level or 0)
        self._options = options
        self._executor: Executor | None = None
        self._jobs = 1
        self._pending: set[Future[Any]] = set()
        self._shared: dict[int, tuple[Any, gu.ObjectRef]] = {}
        """id of an array -> the array, so that the id stays its own, and where it is."""

    @property
    def default_n_jobs(self) -> int:
        """Everything there is, but one inside a call of another."""
        return 1 if self.nesting_level else -1

    @property
    def supports_retrieve_callback(self) -> bool:
        """Not in a worker: there joblib must wait with ``retrieve_result``, which lends the
        processor to the calls it waits for, and not asleep."""
        return not gu.is_initialized() or gu.get_runtime_context().get_worker_id() is None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.nesting_level, self._options)

    # --- what joblib asks -------------------------------------------------------------------------

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """``n_jobs``, or for negative ones what the grid has room for, less -1 - ``n_jobs``."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(1, places_for(self._options) + 1 + n_jobs)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Before calls: how many at a time."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._jobs = n_jobs
        self._executor = Executor(n_jobs, **self._options)
        return n_jobs

    def submit(self, func: Any, callback: Callable[[Any], None] | None = None) -> Future[Any]:
        """Send a batch."""
        assert self._executor is not None
        refs = self._take_out_arrays(func)
        future = self._executor.submit(run_batch, func, *refs)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        return future.result()

    def retrieve_result(self, future: Future[Any], timeout: float | None = None) -> Any:
        return future.result(timeout)

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End what is under way; ``ensure_ready``: more may be submitted afterwards."""
        for future in list(self._pending):
            future.cancel()
        self.terminate()
        if ensure_ready:
            self._executor = Executor(self._jobs, **self._options)

    def terminate(self) -> None:
        """After calls."""
        self._shared.clear()
        self._pending.clear()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        self.reset_batch_stats()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int | None]:
        return GridBackend(nesting_level=self.nesting_level + 1, **self._options), None

    # --- arrays -----------------------------------------------------------------------------------

    def _take_out_arrays(self, batch: Any) -> list[gu.ObjectRef]:
        """Replace the big arrays among the arguments of a batch by their numbers in the list of
        refs that is returned."""
        items = getattr(batch, "items", None)
        array = getattr(sys.modules.get("numpy"), "ndarray", None)
        if not isinstance(items, list) or array is None:
            return []
        refs: dict[gu.ObjectRef, Slot] = {}

        def outside(value: Any) -> Any:
            if type(value) is not array or value.nbytes < SHARED or value.dtype.hasobject:
                return value
            found = self._shared.get(id(value))
            if found is None:
                found = self._shared[id(value)] = (value, gu.put(value))
            return refs.setdefault(found[1], Slot(len(refs)))

        for index, (function, args, kwargs) in enumerate(items):
            items[index] = (
                function,
                [outside(value) for value in args],
                {name: outside(value) for name, value in kwargs.items()},
            )
        return list(refs)


class Slot:
    """Where an array was; ``number`` says which."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return Slot, (self.number,)


def run_batch(batch: Any, *arrays: Any) -> Any:
    """Run a batch whose big arrays came by themselves."""
    if arrays:
        batch.items = [
            (
                function,
                [arrays[v.number] if type(v) is Slot else v for v in args],
                {k: arrays[v.number] if type(v) is Slot else v for k, v in kwargs.items()},
            )
            for function, args, kwargs in batch.items
        ]
    return batch()


def _rebuild(nesting_level: int, options: dict[str, Any]) -> GridBackend:
    return GridBackend(nesting_level=nesting_level, **options)
