"""Who carries out a crew's calls: tasks anywhere on the grid, or a fixed number of processes.

Owns: the remote function and the remote class of the integrations. Must never: queue anything.
"""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import guactors as gu
from guactors.errors import GuactorsError, PeerLost, TaskError, UnknownOption
from guactors.integrations.crew import InitializerFailed, Job

OF_ONE = frozenset({"name", "namespace", "get_if_exists", "lifetime"})
"""Options of an actor that others can find, which the processes of a pool are not."""
MOST_KEPT = 128
"""Functions that are kept ready to be called again."""


def apply(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``function``, which came as an argument."""
    return function(*args, **kwargs)


def _stays_the_same(function: Callable[..., Any]) -> bool:
    """Whether it has no state of its own that could change between two calls."""
    if isinstance(function, types.FunctionType):
        return function.__closure__ is None
    return isinstance(function, types.BuiltinFunctionType) and isinstance(
        function.__self__, types.ModuleType
    )


class TaskHands:
    """Each call is a task with ``options``: it runs wherever there is room."""

    interruptible = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self._generic = gu.remote(**self._options)(apply) if options else gu.remote(apply)
        self._kept: OrderedDict[Any, Any] = OrderedDict()

    def start(self, job: Job) -> gu.ObjectRef:
        function = job.function
        ref: gu.ObjectRef
        if _stays_the_same(function):
            ref = self._remote(function).remote(*job.args, **job.kwargs)
        else:
            ref = self._generic.remote(function, *job.args, **job.kwargs)
        return ref

    def _remote(self, function: Callable[..., Any]) -> Any:
        kept = self._kept
        remote = kept.get(function)
        if remote is None:
            remote = kept[function] = gu.remote(num_returns=1, **self._options)(function)
            if len(kept) > MOST_KEPT:
                kept.popitem(last=False)
        return remote

    def ended(self, job: Job, error: BaseException | None) -> None:
        pass

    def dismiss(self, *, now: bool) -> None:
        self._kept.clear()


class Seat:
    """What runs in each process of a pool."""

    def __init__(self, initializer: Callable[..., Any] | None, initargs: tuple[Any, ...]) -> None:
        self._initializer = initializer
        self._initargs = initargs
        self._failed: str | None = None

    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """One call; before the first, the initializer."""
        if self._initializer is not None:
            initializer, self._initializer = self._initializer, None
            try:
                initializer(*self._initargs)
            except Exception as error:
                self._failed = f"{type(error).__name__}: {error}"
                raise InitializerFailed(f"the initializer raised {self._failed}") from error
        if self._failed is not None:
            raise InitializerFailed(f"the initializer raised {self._failed}")
        return function(*args, **kwargs)


class SeatHands:
    """``count`` processes, made when first needed; each runs one call at a time, and makes room for
    a new one after ``most_calls`` of them. A process that died is replaced at the next call."""

    interruptible = False

    def __init__(
        self,
        count: int,
        options: Mapping[str, Any],
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        most_calls: int | None = None,
    ) -> None:
        for option in sorted(OF_ONE & options.keys()):
            raise UnknownOption(f"there are {count} processes: {option} is no option of theirs")
        self._class = gu.remote(**options)(Seat) if options else gu.remote(Seat)
        self._init = (initializer, initargs)
        self._most_calls = most_calls
        self._free: list[Any] = []
        self._busy: dict[Job, Any] = {}
        self._calls: dict[Any, int] = {}

    def start(self, job: Job) -> gu.ObjectRef:
        seat = self._free.pop() if self._free else self._class.remote(*self._init)
        try:
            ref: gu.ObjectRef = seat.run.remote(job.function, *job.args, **job.kwargs)
        except BaseException:
            self._free.append(seat)
            raise
        self._busy[job] = seat
        return ref

    def ended(self, job: Job, error: BaseException | None) -> None:
        seat = self._busy.pop(job, None)
        if seat is None:
            return
        calls = self._calls[seat] = self._calls.get(seat, 0) + 1
        died = isinstance(error, PeerLost) and not isinstance(error, TaskError)
        if died or calls == self._most_calls:
            del self._calls[seat]
        else:
            self._free.append(seat)

    def dismiss(self, *, now: bool) -> None:
        seats = [*self._free, *self._busy.values()]
        self._free.clear()
        self._calls.clear()
        if now:
            self._busy.clear()
            for seat in seats:
                try:
                    gu.kill(seat)
                except GuactorsError:
                    continue  # the session has ended, and the process with it
