"""Where values are, beyond this process: whose memory each neighbour can look into, and which
machines have a copy of what.

Owns: these tables. Must never: move anything (``depots`` do), or know what a value is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from guactors.caller.away import FROM, Away
from guactors.caller.entries import Entry
from guactors.messages import Endpoint, Stored

SPREAD_FROM: Final = FROM
"""Bytes from which a value goes to another machine once, and not with each call."""


class Places:
    """``store``: the shared memory that this process can look into, empty for none."""

    def __init__(self, store: str) -> None:
        self.store = store
        self.of_peer: dict[str, str] = {}
        """Neighbour -> the shared memory that it can look into."""
        self.providers: dict[str, str] = {}
        """Shared memory -> a provider of its machine."""
        self.copies: dict[int, dict[str, Stored]] = {}
        """Value -> shared memory -> where it is there, kept by a depot."""
        self.touched: set[int] = set()
        """Values that depots were ever asked for."""
        self.refused: set[tuple[int, str]] = set()
        """Values and memories that they could not be copied to."""
        self.barred: set[str] = set()
        """Shared memories in which no depot can be had."""
        self.spreads = False
        """Whether this process has depots at all."""
        self.spread_from = SPREAD_FROM
        self.far = False
        """Whether a neighbour on another machine was ever met, and large values may have to go
        there."""

    def meet(self, neighbour: str, endpoints: Iterable[Endpoint], provider: str) -> None:
        """A neighbour that is dialled there."""
        store = next((endpoint.store for endpoint in endpoints if endpoint.store), "")
        if not store:
            return
        self.of_peer[neighbour] = store
        if provider:
            self.providers[store] = provider
        if self.spreads and store != self.store:
            self.far = True

    def forget(self, neighbour: str) -> None:
        """It is gone."""
        self.of_peer.pop(neighbour, None)

    def forget_value(self, id: int) -> None:
        """Nobody wants it any more."""
        self.copies.pop(id, None)
        self.touched.discard(id)
        if self.refused:
            self.refused = {one for one in self.refused if one[0] != id}

    def copy_for(self, id: int, neighbour: str) -> Stored | None:
        """Where the neighbour finds the value in its own memory."""
        copies = self.copies.get(id)
        return copies.get(self.of_peer.get(neighbour, "")) if copies else None

    def weigh(self, entry: Entry, sizes: Counter[str]) -> None:
        """Add the value's bytes to those of each provider whose machine has it."""
        data = entry.data
        if data is None or isinstance(data, bytes):
            return
        stores = set(self.copies.get(entry.id, ()))
        if isinstance(data, Away):
            stores.add(data.word.store)
        for store in sorted(stores):
            provider = self.providers.get(store)
            if provider:
                sizes[provider] += data.size

    def reaches(self, entry: Entry, neighbour: str, *, firmly: bool = False) -> bool:
        """Whether the neighbour can be told the value as things are: it is in its memory, or here
        and to be sent along. ``firmly``: and stays there."""
        data = entry.data
        if data is None:
            return False
        if isinstance(data, bytes):
            return True
        store = self.of_peer.get(neighbour, "")
        if store and store in self.copies.get(entry.id, ()):
            return True
        if isinstance(data, Away):
            # What depots keep is among the copies; what a worker keeps may end with it.
            stays = bool(data.giver) and not (firmly and self.spreads)
            return stays and store == data.word.store
        return not (
            self.spreads
            and store not in ("", self.store)
            and store not in self.barred
            and data.size >= self.spread_from
            and (entry.id, store) not in self.refused
        )
