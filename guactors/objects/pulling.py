"""How a large value comes from other machines: in chunks, from several sources at a time.

Owns: which chunk is asked of whom, what is asked again, and when the value is there or lost. Pure.
Must never: touch the bytes, or go on with a source that sent damaged ones more than :data:`FAULTS`
times.

What has arrived stays: a source that is lost costs what it still owed, nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

CHUNK: Final = 4 << 20
"""Bytes. Large enough that asking costs nothing, small enough that little is asked twice."""
WINDOW: Final = 4
"""Chunks that one source is asked for at a time."""
FAULTS: Final = 3
"""Damaged chunks after which a source is asked no more."""
STALLED: Final = 30.0
"""Seconds after which a source that owes chunks, and sent none, is asked no more. Long, because a
source may itself wait for what it is asked for."""


@dataclass(frozen=True)
class Ask:
    """Have ``source`` send the chunk ``index``."""

    source: str
    index: int


@dataclass(frozen=True)
class Arrived:
    """All chunks are there."""


@dataclass(frozen=True)
class Lost:
    """No source is left. ``reasons``: what was wrong with each."""

    reasons: dict[str, str]


Effect = Ask | Arrived | Lost


@dataclass
class _Source:
    """``owed``: chunks that it was asked for; ``heard``: when it last sent one, or was first asked
    after a silence."""

    owed: set[int] = field(default_factory=set)
    faults: int = 0
    heard: float = 0.0


class Pull:
    """One value of ``size`` bytes. ``spares`` are asked, one after another, when no source is
    left."""

    def __init__(
        self, size: int, sources: Iterable[str], now: float, spares: Iterable[str] = ()
    ) -> None:
        self.count = -(-size // CHUNK)
        self.size = size
        self._sources: dict[str, _Source] = {}
        self._spares = deque(spares)
        self._reasons: dict[str, str] = {}
        self._missing = set(range(self.count))
        self._to_ask = deque(range(self.count))
        self.ended = False
        for source in sources:
            self._sources[source] = _Source(heard=now)

    def span(self, index: int) -> tuple[int, int]:
        """Offset and length of a chunk."""
        start = index * CHUNK
        return start, min(CHUNK, self.size - start)

    def index_at(self, offset: int) -> int | None:
        """The chunk that begins at ``offset``."""
        index, inside = divmod(offset, CHUNK)
        return index if not inside and index < self.count else None

    @property
    def missing(self) -> int:
        """Chunks that have not arrived."""
        return len(self._missing)

    def has(self, index: int) -> bool:
        """Whether a chunk is there, for others who ask for it."""
        return index not in self._missing

    def start(self, now: float) -> list[Effect]:
        """The first questions."""
        return self._go_on(now)

    def add(self, source: str, now: float) -> list[Effect]:
        """One more machine has the value."""
        if self.ended or source in self._sources or source in self._reasons:
            return []
        self._sources[source] = _Source(heard=now)
        return self._go_on(now)

    def on_chunk(self, source: str, index: int, *, whole: bool, now: float) -> list[Effect]:
        """A chunk came; ``whole``: its length and checksum are right. The caller writes it first,
        and only if :meth:`wants` says so."""
        found = self._sources.get(source)
        if found is None or index not in found.owed:
            return []
        found.owed.discard(index)
        found.heard = now
        if whole:
            self._missing.discard(index)
        else:
            found.faults += 1
            self._again([index])
            if found.faults > FAULTS:
                self._drop(source, f"sent {found.faults} damaged chunks")
        return self._go_on(now)

    def wants(self, source: str, index: int) -> bool:
        """Whether a chunk from this source is to be written."""
        found = self._sources.get(source)
        return found is not None and index in found.owed and index in self._missing

    def on_lost(self, source: str, why: str, now: float) -> list[Effect]:
        """A source is gone, or has the value no longer."""
        self._drop(source, why)
        return self._go_on(now)

    def on_tick(self, now: float) -> list[Effect]:
        """Let go of sources that owe and do not send."""
        for name, source in list(self._sources.items()):
            if source.owed and now - source.heard >= STALLED:
                self._drop(name, f"sent nothing for {STALLED:g} s")
        return self._go_on(now)

    def _drop(self, name: str, why: str) -> None:
        source = self._sources.pop(name, None)
        if source is not None:
            self._reasons[name] = why
            self._again(sorted(source.owed))

    def _again(self, indexes: Iterable[int]) -> None:
        """These are to be asked for once more, unless somebody else owes them too."""
        for index in indexes:
            owed = any(index in source.owed for source in self._sources.values())
            if index in self._missing and not owed:
                self._to_ask.appendleft(index)

    def _go_on(self, now: float) -> list[Effect]:
        if self.ended:
            return []
        if not self._missing:
            self.ended = True
            return [Arrived()]
        while not self._sources and self._spares:
            spare = self._spares.popleft()
            if spare not in self._reasons:
                self._sources[spare] = _Source(heard=now)
        if not self._sources:
            self.ended = True
            return [Lost(dict(self._reasons))]
        effects: list[Effect] = []
        while True:
            name, source = min(self._sources.items(), key=lambda item: len(item[1].owed))
            if len(source.owed) >= WINDOW:
                return effects
            index = self._next(source)
            if index is None:
                return effects
            if not source.owed:
                source.heard = now
            source.owed.add(index)
            effects.append(Ask(name, index))

    def _next(self, idle: _Source) -> int | None:
        """What to ask of a source that has least to do: a chunk that nobody owes, or in the end,
        when it owes nothing itself, one that another has owed for longest."""
        while self._to_ask:
            index = self._to_ask.popleft()
            if index in self._missing:
                return index
        if idle.owed:
            return None
        owing = [source for source in self._sources.values() if source.owed]
        slowest = min(owing, key=lambda source: source.heard, default=None)
        if slowest is None:
            return None
        once = [i for i in slowest.owed if self._owed_once(i) and i in self._missing]
        return min(once, default=None)

    def _owed_once(self, index: int) -> bool:
        return sum(index in source.owed for source in self._sources.values()) == 1


class Spread:
    """Which machines have a value, or will soon, in the order in which they were told to get it.

    Machine number ``n`` gets it from number ``(n - 1) // FAN``, which forwards what it has while it
    still receives. Where that one has all of it, another that has is asked as well."""

    FAN: Final = 2

    def __init__(self, origin: str) -> None:
        self._machines = [origin]
        self._whole = {origin: None}

    @property
    def machines(self) -> list[str]:
        """Whoever has it, or is told to get it, in order."""
        return list(self._machines)

    def sources_for(self, machine: str) -> tuple[list[str], list[str]]:
        """Whom ``machine`` is to ask, and whom when these fail. Nobody, if it has the value."""
        if machine in self._whole:
            return [], []
        if machine not in self._machines:
            self._machines.append(machine)
        place = self._machines.index(machine)
        others = [name for name in self._whole if name != machine]
        if place == 0:
            return others[:1], others[1:]
        parent = self._machines[(place - 1) // self.FAN]
        asked = [parent]
        if parent in self._whole and len(others) > 1:
            others.remove(parent)
            asked.append(others[place % len(others)])
        return asked, [name for name in self._whole if name not in (*asked, machine)]

    def on_whole(self, machine: str) -> None:
        """It has all of it now."""
        if machine in self._machines:
            self._whole[machine] = None

    def on_lost(self, machine: str) -> bool:
        """It is gone, or has let go of it; False when nobody has the value any more."""
        if machine in self._machines:
            self._machines.remove(machine)
        self._whole.pop(machine, None)
        return bool(self._whole)
