"""Large values between a worker and its callers: through shared memory where both can look.

Owns: which links share memory with this process, and the blocks that were given away over each.
Thread-safe. Must never: make the store where nobody needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

from guactors.caller.away import FROM
from guactors.messages import BlockChunk, BlockName, Hello, ReadBlock, Stored
from guactors.objects import process
from guactors.objects.base import LARGE, Held
from guactors.objects.place import pin

TICK = 1.0
"""Seconds between two looks at what can be given back."""


class Sharing:
    """One per worker."""

    def __init__(self) -> None:
        self.store_id = pin().id
        self._links: set[str] = set()
        self._ticked = 0.0
        self.gave = False
        """Whether results in our memory were ever given away."""

    def met(self, link: str, hello: Hello) -> None:
        """A caller introduced itself."""
        if hello.store == self.store_id:
            self._links.add(link)

    def from_size(self, link: str) -> int:
        """Bytes from which results for the caller stay in our memory: it can look into it, or has
        them sent when it wants them."""
        return LARGE if link in self._links else FROM

    def lost(self, link: str) -> None:
        """The caller is gone; what it got and uses is locked by it."""
        self._links.discard(link)
        store = process.present()
        if store is not None:
            store.lost(link)

    def give(self, held: Held, link: str) -> Stored:
        """A result, kept until the caller has no use for it."""
        self.gave = True
        return process.store().give(held, link, far=link not in self._links)

    def chunk(self, link: str, ask: ReadBlock) -> tuple[BlockChunk, list[memoryview]]:
        """Bytes of a result that the caller was given, in place."""
        store = process.present()
        if store is None:
            return BlockChunk(ask.request, ask.offset), []
        view = store.read(link, ask.block, ask.offset, ask.length)
        if view is None:
            return BlockChunk(ask.request, ask.offset), []
        return BlockChunk(ask.request, ask.offset, crc32(view)), [view]

    def takers(self) -> list[str]:
        """Callers elsewhere that have values here; one that shares the memory holds its own."""
        store = process.present()
        return [] if store is None else [x for x in store.takers() if x not in self._links]

    def on_unused(self, link: str, names: Sequence[BlockName]) -> None:
        """The caller has no use for these."""
        store = process.present()
        if store is not None:
            store.given_back(link, names)

    def settle(self) -> None:
        """Let go of what ended objects held."""
        store = process.present()
        if store is not None and store.restless:
            # Not more: whom else this process borrows from, its session tells.
            store.let_go()

    def tick(self, now: float) -> None:
        """Give back what was unused for a while."""
        if now - self._ticked < TICK:
            return
        self._ticked = now
        store = process.present()
        if store is not None and not store.idle:
            store.on_tick(now)

    def close(self) -> None:
        """End the store of this process."""
        process.close()
