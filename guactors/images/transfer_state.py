"""Fetching an image from several sources, and once only.

Owns: which chunk is asked of whom, who is believed, and when to give up. Must never: touch data
(a chunk passes through unread; whoever writes it checks its hash), read a clock, or wait for ever.

An upload is the same, seen from the receiver: a download with the sender as its only source. The
shell asks ``begin`` once, then reports what happens and carries out the effects; it calls
``on_tick`` at ``wake_at`` or a little later. After Done it seals the blobs and adds the image;
after Failed nothing follows. Times are seconds of one clock that does not jump.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

from msgspec import Struct

from guactors.images.manifest import Manifest

WINDOW: Final = 4
"""Chunks asked of one source and not answered yet."""
ANSWER_WITHIN: Final = 60.0
"""Seconds for a chunk after the one before: 0.6 Mbit/s. Then another source is asked."""
PATIENCE: Final = 300.0
"""Seconds without a new chunk after which all is given up."""
MISTAKES: Final = 3
"""Times in a row that a source may not answer; the last one ends its part."""

W = TypeVar("W")
Chunk: TypeAlias = tuple[str, int]
"""The name of a blob, and the index of a chunk of it."""


class Ask(Struct, frozen=True):
    """Ask a source for a chunk; its answer is one of ``on_chunk``, ``on_refused``,
    ``on_source_lost``, or none, which is noticed."""

    source: str
    blob: str
    index: int


class Write(Struct, frozen=True):
    """Check and write a chunk (``Partial.write``); report ``on_written``, ``on_wrong`` when that
    raises WrongChunk, or ``on_failed`` when it raises anything else."""

    source: str
    blob: str
    index: int
    data: bytes | memoryview


class Drop(Struct, frozen=True):
    """A source is not asked again, for this reason. What it was asked for is asked of others."""

    source: str
    reason: str


class Done(Struct, frozen=True):
    """All chunks are written."""


class Failed(Struct, frozen=True):
    """It cannot be finished; ``reason`` says what was tried. What is written stays for later."""

    reason: str


Effect: TypeAlias = Ask | Write | Drop | Done | Failed


@dataclass(slots=True)
class _Source:
    """``asked``: when each chunk was asked for; ``writing``: those it sent that are being checked;
    ``late``: those it did not send in time; ``lacks``: those it refused; ``heard``: its last
    answer; ``mistakes``: how often in a row it was late."""

    asked: dict[Chunk, float] = field(default_factory=dict)
    writing: set[Chunk] = field(default_factory=set)
    late: set[Chunk] = field(default_factory=set)
    lacks: set[Chunk] = field(default_factory=set)
    heard: float = 0.0
    mistakes: int = 0

    def free(self, window: int) -> int:
        """How many more chunks may be under way."""
        return window - len(self.asked) - len(self.writing)

    def may_take(self, window: int) -> int:
        """How many more it may be asked for; one that was late proves itself with one."""
        return self.free(1 if self.mistakes else window)

    def overdue_at(self, within: float) -> float:
        """When the first chunk asked for will be late; infinite when none is."""
        return max(min(self.asked.values(), default=math.inf), self.heard) + within


class Download:
    """One image on its way in.

    ``missing``: by the name of each blob the chunks that are needed. ``sources``: whom to ask, by
    any names. ``window``: chunks under way per source, those being written included. Late ones
    may double that; times the number of sources and the size of a chunk it is the memory taken."""

    def __init__(
        self,
        manifest: Manifest,
        missing: Mapping[str, Sequence[int]],
        sources: Iterable[str],
        window: int = WINDOW,
        *,
        answer_within: float = ANSWER_WITHIN,
        patience: float = PATIENCE,
    ) -> None:
        self._name = manifest.name
        self._window = max(1, window)
        self._answer_within = answer_within
        self._patience = patience
        self._sources = {name: _Source() for name in sources}
        self._gone: dict[str, str] = {}
        self._liars: set[str] = set()
        self._waiting = deque((blob, index) for blob in missing for index in missing[blob])
        self._writing: dict[Chunk, str] = {}
        self._left = set(self._waiting)
        self._total = len(self._left)
        self._progress = 0.0
        self._ended = False

    def __repr__(self) -> str:
        return (
            f"<Download {self._name!r} {self._total - len(self._left)}/{self._total} "
            f"sources={list(self._sources)} gone={self._gone} ended={self._ended}>"
        )

    @property
    def ended(self) -> bool:
        """Whether Done or Failed was told."""
        return self._ended

    @property
    def written(self) -> tuple[int, int]:
        """How many chunks are written, and of how many."""
        return self._total - len(self._left), self._total

    @property
    def wake_at(self) -> float | None:
        """When ``on_tick`` has something to do, unless something else happens before; None when it
        has ended."""
        if self._ended:
            return None
        overdue = (one.overdue_at(self._answer_within) for one in self._sources.values())
        return min(self._progress + self._patience, *overdue, math.inf)

    def begin(self, now: float) -> list[Effect]:
        """The first questions; Done when nothing is missing."""
        self._progress = now
        return self._go_on(now)

    def on_chunk(
        self, source: str, blob: str, index: int, data: bytes | memoryview, now: float
    ) -> list[Effect]:
        """A source sent a chunk. What it was not asked for is ignored, and what is late unless it
        is still needed."""
        one, chunk = self._sources.get(source), (blob, index)
        if self._ended or one is None:
            return []
        if chunk in one.asked:
            del one.asked[chunk]
        elif chunk in one.late and chunk in self._waiting and one.free(2 * self._window) > 0:
            self._waiting.remove(chunk)
        else:
            return []
        one.heard = now
        one.writing.add(chunk)
        self._writing[chunk] = source
        return [Write(source, blob, index, data)]

    def on_written(self, blob: str, index: int, now: float) -> list[Effect]:
        """A chunk was right and is written."""
        source = self._writing.pop((blob, index), None)
        if self._ended or source is None:
            return []
        self._left.discard((blob, index))
        self._progress = now
        if one := self._sources.get(source):
            one.writing.discard((blob, index))
            one.mistakes = 0
        return self._go_on(now)

    def on_wrong(self, blob: str, index: int, now: float) -> list[Effect]:
        """A chunk has another hash than the manifest says: whoever sent it is not asked again."""
        chunk = blob, index
        source = self._writing.pop(chunk, None)
        if self._ended or source is None:
            return []
        self._waiting.appendleft(chunk)
        self._liars.add(source)
        return self._drop(source, f"sent a wrong chunk {index} of the blob {blob}", now)

    def on_refused(self, source: str, blob: str, index: int, now: float) -> list[Effect]:
        """A source does not have a chunk, or may not give it; it is not asked for it again."""
        one, chunk = self._sources.get(source), (blob, index)
        if self._ended or one is None or chunk not in one.asked:
            return []
        del one.asked[chunk]
        one.heard = now
        one.lacks.add(chunk)
        self._waiting.appendleft(chunk)
        return self._go_on(now)

    def on_failed(self, reason: str, now: float) -> list[Effect]:
        """A chunk could not be written, as when the disk is full: nobody else can help."""
        return [] if self._ended else self._fail(reason)

    def on_source(self, source: str, now: float) -> list[Effect]:
        """One more source; one that was lost may come again, one that sent wrong data may not."""
        if self._ended or source in self._liars or source in self._sources:
            return []
        self._gone.pop(source, None)
        self._sources[source] = _Source()
        return self._go_on(now)

    def on_source_lost(self, source: str, now: float) -> list[Effect]:
        """A source went away."""
        if self._ended or source not in self._sources:
            return []
        return self._drop(source, "was lost", now)

    def on_tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        if self._ended:
            return []
        if now >= self._progress + self._patience:
            return self._fail(f"no chunk arrived for {self._patience:g} s")
        effects: list[Effect] = []
        for name, one in list(self._sources.items()):
            if now >= one.overdue_at(self._answer_within) and not self._ended:
                effects += self._late(name, one, now)
        return effects

    def _late(self, name: str, one: _Source, now: float) -> list[Effect]:
        one.mistakes += 1
        if one.mistakes >= MISTAKES:
            return self._drop(name, f"did not answer {MISTAKES} times in a row", now)
        one.late.update(one.asked)
        self._take_back(one)
        return self._go_on(now)

    def _take_back(self, one: _Source) -> None:
        self._waiting.extendleft(reversed(one.asked))
        one.asked.clear()

    def _drop(self, source: str, reason: str, now: float) -> list[Effect]:
        self._gone[source] = reason
        one = self._sources.pop(source, None)
        if one is None:  # it was lost before this chunk of it was found wrong
            return self._go_on(now)
        self._take_back(one)
        return [Drop(source, reason), *self._go_on(now)]

    def _fail(self, reason: str) -> list[Effect]:
        self._ended = True
        done, total = self.written
        sources = "".join(f"; {name} {why}" for name, why in self._gone.items())
        return [
            Failed(
                f"the image {self._name!r} cannot be fetched: {reason}{sources}; {done} of {total} "
                "chunks are here and will not be fetched again"
            )
        ]

    def _go_on(self, now: float) -> list[Effect]:
        """Ask for what can be asked for; see whether it is over."""
        if not self._left:
            self._ended = True
            return [Done()]
        effects: list[Effect] = []
        later: list[Chunk] = []
        sources = self._sources.values()
        while self._waiting:
            if self._sources and not any(o.may_take(self._window) > 0 for o in sources):
                break
            chunk = self._waiting.popleft()
            may = [name for name, one in self._sources.items() if chunk not in one.lacks]
            if not may:
                return self._fail(f"no source is left for chunk {chunk[1]} of the blob {chunk[0]}")
            source = self._choose(chunk, may)
            if source is None:
                later.append(chunk)
            else:
                self._sources[source].asked[chunk] = now
                effects.append(Ask(source, *chunk))
        self._waiting.extendleft(reversed(later))
        return effects

    def _choose(self, chunk: Chunk, may: Sequence[str]) -> str | None:
        """The least busy of those that were never late with it, or else of the others; None while
        they are all busy."""
        prompt = [name for name in may if chunk not in self._sources[name].late]
        free = {name: self._sources[name].may_take(self._window) for name in prompt or may}
        best = max(free, key=lambda name: free[name])
        return best if free[best] > 0 else None

    def check(self) -> None:
        """Each chunk that is left is waiting, asked of one source, or being written."""
        asked = [chunk for one in self._sources.values() for chunk in one.asked]
        places = [*self._waiting, *asked, *self._writing]
        assert len(places) == len(set(places)), places
        if not self._ended:
            assert set(places) == self._left, (places, self._left)
            assert self._left
        for one in self._sources.values():
            assert len(one.asked) <= self._window
            assert one.free(2 * self._window) >= 0
            assert one.mistakes < MISTAKES


class Flights(Generic[W]):
    """Who waits for which image, so that each is fetched once however many want it."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[W]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, image: str, waiter: W) -> bool:
        """``waiter`` wants the image; True: begin to fetch it, nobody else wanted it before."""
        first = image not in self._waiters
        waiters = self._waiters.setdefault(image, [])
        if waiter not in waiters:
            waiters.append(waiter)
        return first

    def leave(self, image: str, waiter: W) -> bool:
        """``waiter`` wants it no more; True: stop fetching it, nobody else does."""
        waiters = self._waiters.get(image, [])
        if waiter not in waiters:
            return False
        waiters.remove(waiter)
        if waiters:
            return False
        del self._waiters[image]
        return True

    def finish(self, image: str) -> list[W]:
        """It is here, or it failed: whom to tell, in the order they came. It is forgotten."""
        return self._waiters.pop(image, [])
