"""Values that stay on the machine where they were made, until somebody here wants them.

Owns: bringing them here: which chunk is asked of whom, and what is written where. Must never:
decide what becomes of a value that is lost (``lineage``), or allocate memory (the port does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final
from zlib import crc32

from msgspec import Struct

from guactors.caller.effects import Effect, SendPeer
from guactors.caller.tasks import Buffers
from guactors.errors import StoreFull
from guactors.messages import BlockChunk, BlockName, ReadBlock, ReadValue, RefWord, Stored
from guactors.objects.base import Draft, Held
from guactors.objects.layout import body_size
from guactors.objects.pulling import CHUNK, Ask, Lost, Pull
from guactors.objects.pulling import Effect as PullEffect

FROM: Final = 1 << 20
"""Bytes from which a result stays where it was made; smaller ones come with the reply."""

Name = BlockName | RefWord
"""How a source knows a value: the block where it wrote it, or whose value it keeps."""


class Away(Struct, eq=False, frozen=True):
    """A value in the memory of another machine. ``giver``: the neighbour that keeps it for us,
    empty where depots do."""

    word: Stored
    giver: str

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(self.word.sizes)

    @property
    def name(self) -> BlockName:
        """How its giver knows it."""
        return BlockName(self.word.arena, self.word.offset, self.word.serial)


class _Job(Struct, eq=False):
    sources: Mapping[str, Name]
    pull: Pull
    draft: Draft


class Bringing:
    """All values under way. ``arrived(id, held)``, ``failed(id, error)`` and ``lost(id, why)`` are
    called when one of them ends, ``grown(id)`` when a part of one came. ``reach(source)``: the
    neighbour that a source is, empty as long as it is none."""

    def __init__(self, effects: list[Effect]) -> None:
        self._effects = effects
        self._jobs: dict[int, _Job] = {}
        self._unsaid: dict[str, list[tuple[int, int]]] = {}
        """Source -> chunks to ask of it as soon as it is a neighbour."""
        self._sources: dict[str, str] = {}
        """Neighbour -> the source it is, where the two have different names."""
        self.draft: Callable[[list[int]], Draft] = _no_memory
        self.reach: Callable[[str], str] = lambda source: source
        self.arrived: Callable[[int, Held], None]
        self.failed: Callable[[int, StoreFull], None]
        self.lost: Callable[[int, str], None]
        self.grown: Callable[[int], None] = lambda id: None

    def __contains__(self, id: int) -> bool:
        return id in self._jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def bring(
        self,
        id: int,
        sizes: list[int],
        sources: Mapping[str, Name],
        now: float,
        spares: Iterable[str] = (),
    ) -> None:
        """Begin, unless it is under way. ``spares`` are those of ``sources`` that are asked only
        when the others fail."""
        if id in self._jobs:
            return
        try:
            draft = self.draft(sizes)
        except StoreFull as full:
            self.failed(id, full)
            return
        later = list(spares)
        first = [source for source in sources if source not in later]
        pull = Pull(body_size(sizes), first, now, later)
        self._jobs[id] = _Job(sources, pull, draft)
        self._do(id, pull.start(now))

    def forget(self, id: int) -> None:
        """Nobody wants it any more."""
        self._jobs.pop(id, None)

    def part(self, id: int, offset: int, length: int) -> memoryview | None:
        """Bytes of a value on its way, None where they have not come."""
        job = self._jobs.get(id)
        if job is None or not length:
            return None
        chunks = range(offset // CHUNK, (offset + length - 1) // CHUNK + 1)
        if offset + length > job.pull.size or not all(map(job.pull.has, chunks)):
            return None
        return job.draft.read(offset, length)

    def on_chunk(self, peer: str, message: BlockChunk, buffers: Buffers, now: float) -> None:
        """Bytes of a value, or word that it is gone."""
        id = message.request
        job = self._jobs.get(id)
        if job is None:
            return
        source, pull = self._sources.get(peer, peer), job.pull
        if not buffers:
            self._do(id, pull.on_lost(source, "has it no longer", now))
            return
        index = pull.index_at(message.offset)
        if index is None or not pull.wants(source, index):
            return
        frame = buffers[0]
        whole = len(frame) == pull.span(index)[1] and crc32(frame) == message.checksum
        if whole:
            job.draft.write(message.offset, frame)
        self._do(id, pull.on_chunk(source, index, whole=whole, now=now))
        if whole:
            self.grown(id)

    def on_reached(self, source: str) -> None:
        """It is a neighbour now."""
        for id, index in self._unsaid.pop(source, ()):
            if id in self._jobs:
                self._ask(id, source, index)

    def on_source_lost(self, peer: str, now: float) -> None:
        """A neighbour, or a source that was to be one, is gone."""
        source = self._sources.pop(peer, peer)
        self._unsaid.pop(source, None)
        for id, job in list(self._jobs.items()):
            if source in job.sources:
                self._do(id, job.pull.on_lost(source, "is gone", now))

    def on_tick(self, now: float) -> None:
        """Sources that do not send are given up."""
        for id, job in list(self._jobs.items()):
            self._do(id, job.pull.on_tick(now))

    def _do(self, id: int, effects: list[PullEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Ask):
                self._ask(id, effect.source, effect.index)
            elif isinstance(effect, Lost):
                del self._jobs[id]
                why = "; ".join(f"{source} {reason}" for source, reason in effect.reasons.items())
                self.lost(id, why)
            else:
                self.arrived(id, self._jobs.pop(id).draft.finish())

    def _ask(self, id: int, source: str, index: int) -> None:
        peer = self.reach(source)
        if not peer:
            self._unsaid.setdefault(source, []).append((id, index))
            return
        if peer != source:
            self._sources[peer] = source
        job = self._jobs[id]
        start, length = job.pull.span(index)
        name = job.sources[source]
        ask: ReadBlock | ReadValue
        if isinstance(name, BlockName):
            ask = ReadBlock(id, name, start, length)
        else:
            ask = ReadValue(id, name, start, length)
        self._effects.append(SendPeer(peer, ask))


def _no_memory(sizes: list[int]) -> Draft:
    raise StoreFull(f"no memory for a value of {sum(sizes):,} bytes: this process has no store")
