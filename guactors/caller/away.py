"""Values that stay on the machine where they were made, until somebody here wants them.

Owns: bringing them here: which chunk is asked of whom, and what is written where. Must never:
decide what becomes of a value that is lost (``lineage``), or allocate memory (the port does).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from zlib import crc32

from msgspec import Struct

from guactors.caller.effects import Effect, SendPeer
from guactors.caller.tasks import Buffers
from guactors.errors import StoreFull
from guactors.messages import BlockChunk, BlockName, ReadBlock, Stored
from guactors.objects.base import Draft, Held
from guactors.objects.layout import body_size
from guactors.objects.pulling import Ask, Lost, Pull
from guactors.objects.pulling import Effect as PullEffect

FROM: Final = 1 << 20
"""Bytes from which a result stays where it was made; smaller ones come with the reply."""


class Away(Struct, eq=False, frozen=True):
    """A value in the memory of another machine. ``giver``: the neighbour that keeps it for us."""

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
    away: Away
    pull: Pull
    draft: Draft


class Bringing:
    """All values under way. ``arrived(id, held)``, ``failed(id, error)`` and ``lost(id, why)`` are
    called when one of them ends."""

    def __init__(self, effects: list[Effect]) -> None:
        self._effects = effects
        self._jobs: dict[int, _Job] = {}
        self.draft: Callable[[list[int]], Draft] = _no_memory
        self.arrived: Callable[[int, Held], None]
        self.failed: Callable[[int, StoreFull], None]
        self.lost: Callable[[int, str], None]

    def __contains__(self, id: int) -> bool:
        return id in self._jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def bring(self, id: int, away: Away, now: float) -> None:
        """Begin, unless it is under way."""
        if id in self._jobs:
            return
        try:
            draft = self.draft(away.word.sizes)
        except StoreFull as full:
            self.failed(id, full)
            return
        pull = Pull(body_size(away.word.sizes), [away.giver], now)
        self._jobs[id] = _Job(away, pull, draft)
        self._do(id, pull.start(now))

    def forget(self, id: int) -> None:
        """Nobody wants it any more."""
        self._jobs.pop(id, None)

    def on_chunk(self, peer: str, message: BlockChunk, buffers: Buffers, now: float) -> None:
        """Bytes of a value, or word that it is gone."""
        id = message.request
        job = self._jobs.get(id)
        if job is None:
            return
        pull = job.pull
        if not buffers:
            self._do(id, pull.on_lost(peer, "has it no longer", now))
            return
        index = pull.index_at(message.offset)
        if index is None or not pull.wants(peer, index):
            return
        frame = buffers[0]
        whole = len(frame) == pull.span(index)[1] and crc32(frame) == message.checksum
        if whole:
            job.draft.write(message.offset, frame)
        self._do(id, pull.on_chunk(peer, index, whole=whole, now=now))

    def on_source_lost(self, peer: str, now: float) -> None:
        """A neighbour is gone."""
        for id, job in list(self._jobs.items()):
            self._do(id, job.pull.on_lost(peer, "is gone", now))

    def on_tick(self, now: float) -> None:
        """Sources that do not send are given up."""
        for id, job in list(self._jobs.items()):
            self._do(id, job.pull.on_tick(now))

    def _do(self, id: int, effects: list[PullEffect]) -> None:
        job = self._jobs[id]
        for effect in effects:
            if isinstance(effect, Ask):
                start, length = job.pull.span(effect.index)
                block = job.away.name
                ask = ReadBlock(id, block, start, length)
                self._effects.append(SendPeer(effect.source, ask))
            elif isinstance(effect, Lost):
                del self._jobs[id]
                why = "; ".join(f"{source} {reason}" for source, reason in effect.reasons.items())
                self.lost(id, why)
            else:
                del self._jobs[id]
                self.arrived(id, job.draft.finish())


def _no_memory(sizes: list[int]) -> Draft:
    raise StoreFull(f"no memory for a value of {sum(sizes):,} bytes: this process has no store")
