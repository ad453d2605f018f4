"""``map``: one function over many items, in chunks that make sending them worth while.

Owns: which chunks are out, whose results wait to be taken, and the order they are handed out in.
Must never: draw an item before there is room for it, or hand out a result twice.
"""

from __future__ import annotations

import operator
import reprlib
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from itertools import islice
from typing import Any, Final, Literal, NamedTuple, TypeVar

import guactors as gu
from guactors.errors import SessionClosed, TaskError, UnknownOption, UsageError
from guactors.integrations.chunks import ChunkSize
from guactors.integrations.crew import plain_error
from guactors.integrations.places import Places, grid_here
from guactors.integrations.progress import Told, open_progress

T = TypeVar("T")
OUT: Final = 4
"""Chunks under way, for each place where one can run: the next ones lie there when one ends."""
UNREAD: Final = 16
"""Chunks under way or done whose results nobody took yet, for each place."""
HANDLING: Final = 3
"""How much more a second of sending and taking in counts than one of running: it is spent for all
chunks by this process, and items that take long to send are large."""


class Failure(NamedTuple):
    """What one item raised. ``index`` is its place in the chunk, ``error`` None if it cannot be
    pickled; the rest is for people."""

    place: int
    error: Exception | None
    kind: str
    text: str
    item: str


class Ran(NamedTuple):
    """A chunk's outcome: its values, with None for each item that failed."""

    values: list[Any]
    seconds: float
    failures: list[Failure]


class Outcome(NamedTuple):
    """What is handed out of a chunk: its values, and in place of some (their index) an error."""

    values: list[Any]
    errors: dict[int, BaseException]


class Chunk(NamedTuple):
    """A chunk under way: its first item's index, how many there are, seconds it took to send."""

    first: int
    size: int
    sending: float


def map(  # noqa: A001 - its name
    fn: Callable[[Any], T],
    items: Iterable[Any],
    *,
    chunk: int | None = None,
    order: bool = True,
    progress: str | Told | None = None,
    errors: Literal["raise", "return"] = "raise",
    ahead: int | None = None,
    **options: Any,
) -> Generator[T, None, None]:
    """``fn(item)`` for each of ``items`` on the grid; the results as they are there.

    Items travel in chunks of ``chunk``; by default of as many as take some 10 ms, by what the
    chunks before took. Work begins now and goes on as results are taken: never are more than 16
    chunks for each CPU (or ``ahead`` items) drawn from ``items`` whose results were not taken, so
    ``items`` may be endless. ``order=False`` gives results as they come. ``progress``: ``"tqdm"``,
    ``"rich"``, or a function that is called with (items done, items in all or None).

    An item that raises ends the map with its error, after the results before it (with
    ``order=False``, those that are there); ``errors="return"``: its exception takes the place of
    its result. The error is of the type that was raised, with the remote traceback as its cause
    and a note that names the item. A chunk whose worker dies runs again up to ``max_retries``
    times (3), on another. Closing the generator cancels what is under way.

    ``options`` are those of ``@gu.remote``: ``num_cpus=2``, ``max_retries=0``, ...; ``timeout=``
    counts for a chunk and needs ``chunk=``. Raises UsageError or ValueError for impossible
    arguments, UnknownOption.
    """
    if not callable(fn) or isinstance(fn, gu.RemoteFunction):
        raise UsageError(f"map() takes a plain function, not {fn!r}")
    for name, number in (("chunk", chunk), ("ahead", ahead)):
        if number is not None and (not isinstance(number, int) or number < 1):
            raise ValueError(f"{name}={number!r} is not None and no integer of 1 or more")
    if errors not in ("raise", "return"):
        raise ValueError(f'errors={errors!r} is neither "raise" nor "return"')
    if "num_returns" in options:
        raise UnknownOption("an item has one result: num_returns is no option of map()")
    if options.get("timeout") is not None and chunk is None:
        raise UnknownOption("timeout= of map() counts for a chunk: give chunk=, too")
    stream = Stream(fn, items, ChunkSize(chunk), ahead, options, go_on=errors == "return")
    stream.progress = open_progress(progress, _length(items), stream.name)
    stream.fill()
    return stream.results(ordered=order)


class Stream:
    """The chunks of one map. ``go_on``: an item that fails does not end it."""

    def __init__(
        self,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        chunks: ChunkSize,
        ahead: int | None,
        options: dict[str, Any],
        *,
        go_on: bool,
    ) -> None:
        self.name = getattr(fn, "__name__", type(fn).__name__)
        self.progress = open_progress(None, None, self.name)
        runner = _runner(fn, self.name, go_on=go_on)
        self._remote = gu.remote(**options)(runner) if options else gu.remote(runner)
        self._go_on = go_on
        self._items = iter(items)
        self._chunks = chunks
        self._ahead = ahead
        self._out: dict[gu.ObjectRef, Chunk] = {}
        self._done: dict[int, Outcome] = {}
        """First index of a chunk -> what came of it, in the order of arrival."""
        self._first = 0
        """Index of the next item to be drawn."""
        self._unread = 0
        """Items drawn whose results were not taken."""
        self._next = 0
        """Index of the next result in order."""
        self._finished = 0
        self._drained = False
        self._broken: BaseException | None = None
        """What the user's iterable raised."""
        self._places = Places(options)
        self._grid = grid_here()

    # --- sending ----------------------------------------------------------------------------------

    def fill(self) -> None:
        """Send chunks while there is room."""
        if not self._drained and grid_here() != self._grid:
            # The next call would start a grid of its own.
            self._broken = SessionClosed(f"the grid was left before map({self.name}) was done")
            self._drained = True
        while not self._drained and self._has_room():
            size = self._chunks.size
            if self._ahead is not None:
                size = min(size, self._ahead - self._unread)
            batch: list[Any] = []
            try:
                batch.extend(islice(self._items, size))
            except Exception as error:  # noqa: BLE001 - it is raised after the results before it
                self._broken = error
            if self._broken is not None or len(batch) < size:
                self._drained = True
            if batch:
                self._send(batch)

    def _has_room(self) -> bool:
        if self._ahead is not None and self._unread >= self._ahead:
            return False
        unread = len(self._out) + len(self._done)
        places = self._places.count
        return len(self._out) < OUT * places and unread < UNREAD * places

    def _send(self, batch: list[Any]) -> None:
        first, size = self._first, len(batch)
        self._first += size
        self._unread += size
        began = time.perf_counter()
        try:
            ref = self._remote.remote(batch)
        except Exception as error:  # noqa: BLE001 - that it cannot be sent is its outcome
            self._done[first] = self._lost(Chunk(first, size, 0.0), error)
        else:
            self._out[ref] = Chunk(first, size, time.perf_counter() - began)

    # --- taking in --------------------------------------------------------------------------------

    def take_in(self) -> None:
        """Wait until a chunk is there; take in all that are, and send more."""
        waited = list(self._out)
        ready, rest = gu.wait(waited, num_returns=1)
        if rest:
            ready, _ = gu.wait(waited, num_returns=len(waited), timeout=0)
        for ref in ready:
            chunk = self._out.pop(ref)
            self._done[chunk.first] = self._outcome(ref, chunk)
            self._finished += chunk.size
        self.progress.update(self._finished)
        self._places.look_again()
        self.fill()

    def _outcome(self, ref: gu.ObjectRef, chunk: Chunk) -> Outcome:
        began = time.perf_counter()
        try:
            ran: Ran = gu.get(ref)
        except Exception as error:  # noqa: BLE001 - it is handed out in the results' place
            return self._lost(chunk, plain_error(error))
        handling = chunk.sending + time.perf_counter() - began
        self._chunks.on_chunk(chunk.size, max(ran.seconds, HANDLING * handling))
        return Outcome(
            ran.values, {each.place: self._error(each, chunk.first) for each in ran.failures}
        )

    def _lost(self, chunk: Chunk, error: BaseException) -> Outcome:
        """None of its items has a result."""
        last = chunk.first + chunk.size - 1
        span = f"items {chunk.first} to {last}" if chunk.size > 1 else f"item {last}"
        error.add_note(f"guactors.map: {span} of {self.name}")
        values = [None] * (chunk.size if self._go_on else 1)
        return Outcome(values, dict.fromkeys(range(len(values)), error))

    def _error(self, failure: Failure, first: int) -> BaseException:
        remote = TaskError(f"{failure.kind} in {self.name}\n\n{failure.text}")
        remote.cause, remote.remote_traceback = failure.error, failure.text
        error = plain_error(remote)
        error.add_note(f"guactors.map: item {first + failure.place} of {self.name}: {failure.item}")
        return error

    # --- handing out ------------------------------------------------------------------------------

    def results(self, *, ordered: bool) -> Generator[Any, None, None]:
        """All results. Ends with the first error, unless told to go on."""
        try:
            while self._out or self._done:
                first = self._next if ordered else next(iter(self._done), -1)
                outcome = self._done.pop(first, None)
                if outcome is None:
                    self.take_in()
                    continue
                self._next += len(outcome.values)
                yield from self._hand_out(outcome)
                self._unread -= len(outcome.values)
                self.fill()
            if self._broken is not None:
                raise self._broken
        finally:
            self.stop()

    def _hand_out(self, outcome: Outcome) -> Iterable[Any]:
        if not outcome.errors:
            return outcome.values
        if self._go_on:
            return [outcome.errors.get(index, v) for index, v in enumerate(outcome.values)]
        return _until_error(outcome)

    def stop(self) -> None:
        """Cancel what is under way, and close the progress bar."""
        self.progress.close()
        refs = list(self._out)
        self._out.clear()
        self._drained = True
        if not refs:
            return
        try:
            # A generator may be closed by the collector, at a point where nobody may call the grid.
            threading.Thread(target=_cancel, args=(refs,), name="guactors-map", daemon=True).start()
        except RuntimeError:
            return  # the interpreter ends, and the grid with it


def _until_error(outcome: Outcome) -> Generator[Any, None, None]:
    first = min(outcome.errors)
    yield from outcome.values[:first]
    raise outcome.errors[first]


def _cancel(refs: list[gu.ObjectRef]) -> None:
    for ref in refs:
        gu.cancel(ref)


def _length(items: Iterable[Any]) -> int | None:
    try:
        return operator.length_hint(items, -1) if operator.length_hint(items, -1) >= 0 else None
    except TypeError:
        return None


# --- on the grid --------------------------------------------------------------------------------


def _runner(fn: Callable[[Any], Any], name: str, *, go_on: bool) -> Callable[[list[Any]], Ran]:
    """What is sent once to each worker; ``fn`` is a part of it."""

    def run(batch: list[Any]) -> Ran:
        return run_chunk(fn, batch, go_on=go_on)

    run.__name__ = run.__qualname__ = f"map({name})"
    return run


def run_chunk(fn: Callable[[Any], Any], batch: list[Any], *, go_on: bool) -> Ran:
    """Call ``fn`` with each item, up to the first that raises unless told to ``go_on``."""
    values: list[Any] = []
    failures: list[Failure] = []
    began = time.perf_counter()
    while len(values) < len(batch):
        try:
            for item in islice(batch, len(values), None):
                values.append(fn(item))  # noqa: PERF401 - those before an error count
        except Exception as error:  # noqa: BLE001 - it is this item's outcome
            failures.append(_failure(len(values), error, batch[len(values)]))
            values.append(None)
            if not go_on:
                break
    return Ran(values, time.perf_counter() - began, failures)


def _failure(index: int, error: Exception, item: Any) -> Failure:
    import cloudpickle

    kind = f"{type(error).__name__}: {error}"
    text = "".join(traceback.format_exception(error))
    sent: Exception | None = error.with_traceback(None)
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:  # noqa: BLE001 - then its text has to do
        sent = None
    return Failure(index, sent, kind, text, reprlib.repr(item))
