"""A fixed set of actors that take turns: Ray's ``ActorPool``.

Owns: which actor is free, which values wait, which results were taken. Must never: make or end an
actor; whoever made them does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import guactors as gu
from guactors.errors import ActorDied, GetTimeout, TaskError

V = TypeVar("V")
Call = Callable[[Any, Any], Any]
"""``fn(actor, value)`` makes the call: ``lambda actor, value: actor.method.remote(value)``."""


class ActorPool:
    """``actors``, each with one call at a time; values wait in line until an actor is free. Results
    are handed out in order or as they come, each once; an actor is free again when its result was
    taken. For one thread at a time.

    An actor that has died for good leaves the pool, unless it is the last: then every value that
    waits ends with ActorDied.
    """

    def __init__(self, actors: Iterable[Any]) -> None:
        self._idle: deque[Any] = deque(actors)
        self._calls: dict[int, tuple[Any, Any]] = {}
        """Number of a call, in order -> its ref (or list of refs) and its actor."""
        self._waiting: deque[tuple[Call, Any]] = deque()
        self._made = 0

    def map(self, fn: Call, values: Iterable[Any]) -> Iterator[Any]:
        """Submit ``fn(actor, value)`` for all ``values`` now; the results come in their order.
        Results of earlier calls that nobody took are dropped."""
        self._submit_all(fn, values)
        return iter(self._results(self.get_next))

    def map_unordered(self, fn: Call, values: Iterable[Any]) -> Iterator[Any]:
        """``map``, the results as they come."""
        self._submit_all(fn, values)
        return iter(self._results(self.get_next_unordered))

    def _submit_all(self, fn: Call, values: Iterable[Any]) -> None:
        self._waiting.clear()
        while self._calls:
            _, actor = self._calls.pop(next(iter(self._calls)))
            self._idle.append(actor)
        for value in values:
            self.submit(fn, value)

    def _results(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def submit(self, fn: Call, value: Any) -> None:
        """Call ``fn(actor, value)`` with a free actor, now or when there is one. ``fn`` returns the
        ref (or list of refs) of a call."""
        if self._idle:
            actor = self._idle.popleft()
            try:
                ref = fn(actor, value)
            except BaseException:
                self._idle.appendleft(actor)
                raise
            self._calls[self._made] = (ref, actor)
            self._made += 1
        else:
            self._waiting.append((fn, value))

    def has_next(self) -> bool:
        """Whether there are results to take, ready or not."""
        return bool(self._calls)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of ``submit``. Raises StopIteration when there is none,
        the call's error (the next result can be taken then), TimeoutError after ``timeout``
        seconds; ``ignore_if_timedout``: and then nobody will ever take that result."""
        if not self._calls:
            raise StopIteration("no more results to get")
        number = next(iter(self._calls))
        return self._take(number, timeout, ignore=ignore_if_timedout)

    def get_next_unordered(
        self, timeout: float | None = None, ignore_if_timedout: bool = False
    ) -> Any:
        """``get_next``, but the first result that is there."""
        if not self._calls:
            raise StopIteration("no more results to get")
        by_ref = {_lead(ref): number for number, (ref, _) in self._calls.items()}
        ready, _ = gu.wait(list(by_ref), num_returns=1, timeout=timeout)
        number = by_ref[ready[0]] if ready else next(iter(self._calls))
        left = None if ready else 0.0
        return self._take(number, left, ignore=ignore_if_timedout, told=timeout)

    def _take(
        self, number: int, timeout: float | None, *, ignore: bool, told: float | None = None
    ) -> Any:
        ref, actor = self._calls[number]
        if timeout is not None and not gu.wait([_lead(ref)], timeout=timeout)[0]:
            seconds = timeout if told is None else told
            if not ignore:
                raise GetTimeout(f"no result within {seconds} s; the call goes on")
            del self._calls[number]
            self._free(actor)
            raise GetTimeout(f"no result within {seconds} s; the call goes on, its result is lost")
        del self._calls[number]
        died = False
        try:
            return gu.get(ref)
        except ActorDied as error:
            died = not isinstance(error, TaskError)
            raise
        finally:
            if not died or not (self._idle or self._calls):
                self._free(actor)

    def _free(self, actor: Any) -> None:
        self._idle.append(actor)
        if self._waiting:
            self.submit(*self._waiting.popleft())

    def has_free(self) -> bool:
        """Whether ``submit`` would call at once."""
        return bool(self._idle)

    def pop_idle(self) -> Any:
        """A free actor, taken out of the pool; None if there is none."""
        return self._idle.popleft() if self._idle else None

    def push(self, actor: Any) -> None:
        """Put another actor in. Raises ValueError if it is in the pool."""
        if actor in self._idle or any(actor is busy for _, busy in self._calls.values()):
            raise ValueError(f"{actor!r} is in this pool already")
        self._free(actor)


def _lead(ref: Any) -> Any:
    """The ref to wait for, of a call with several results the first: they come together."""
    return ref[0] if isinstance(ref, list) else ref
