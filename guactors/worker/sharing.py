"""Large values between a worker and its callers: through shared memory where both can look.

Owns: which links share memory with this process, and the blocks that were given away over each.
Thread-safe. Must never: make the store where nobody needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

from guactors.messages import BlockName, Hello, Stored
from guactors.objects import process
from guactors.objects.base import Held
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

    def with_caller(self, link: str) -> bool:
        """Whether the caller can look into our memory."""
        return link in self._links

    def lost(self, link: str) -> None:
        """The caller is gone; what it got and uses is locked by it."""
        self._links.discard(link)
        store = process.present()
        if store is not None:
            store.lost(link)

    def give(self, held: Held, link: str) -> Stored:
        """A result, kept until the caller has no use for it."""
        self.gave = True
        return process.store().give(held, link)

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
