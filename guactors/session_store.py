"""A session's large values in the shared-memory store of its process.

Owns: telling workers which of their results are unused here, and giving back what nobody needs.
Must never: make the store where no large value comes or goes, for few need what that imports.
"""

from __future__ import annotations

from guactors.caller.core import CallerCore
from guactors.caller.effects import SendPeer
from guactors.messages import Stored, Unused
from guactors.objects import process
from guactors.objects.base import Draft, Held
from guactors.objects.place import unpin


class SessionStore:
    """One per session. ``shared``: the process has another keeper of the store (a worker), or
    several sessions and none."""

    def __init__(self, core: CallerCore, *, shared: bool) -> None:
        objects = self._objects = core.objects
        self._shared = shared
        self.borrowing = False
        """Whether so much of the workers' memory is in use here that they want it back soon."""
        objects.attach = self._attach
        core.remote.bringing.draft = self._draft
        if not shared:
            core.remote.depots.enable()

    def _attach(self, word: Stored, giver: str) -> Held:
        store = process.store()
        held = store.attach(word, giver)
        self.borrowing = store.borrowing
        return held

    def _draft(self, sizes: list[int]) -> Draft:
        return process.store().draft(sizes)

    def tell_unused(self) -> None:
        """Let go of what ended objects held, and have their givers know. The lock is held."""
        store = process.present()
        if store is not None and store.restless:
            for giver, names in store.settle().items():
                self._objects.effects.append(SendPeer(giver, Unused(names)))
            self.borrowing = store.borrowing

    def on_tick(self, now: float) -> None:
        """Give back what was unused for a while."""
        store = process.present()
        if store is not None and not store.idle and not self._shared:
            store.on_tick(now)
        self.tell_unused()

    def close(self) -> None:
        """The session ends, and with it the store of a process that has no other use for it."""
        if self._shared:
            return
        process.close()
        unpin()
