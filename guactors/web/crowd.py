"""Which connections there are, and which of them must make way for a new one.

Owns: the count by address, and who is idle for how long. Must never: take a connection from
somebody who is being served.

Who holds many connections open and asks nothing keeps nobody out, not even from his own address:
each newcomer takes the place of the one that has said nothing complete for longest.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

K = TypeVar("K")


class _Known(Struct):
    network: str
    served: bool = False


class Crowd(Generic[K]):
    """Connections by any hashable key. ``most`` in all, ``each`` of one network."""

    def __init__(self, most: int, each: int) -> None:
        self._most = most
        self._each = each
        self._known: dict[K, _Known] = {}
        self._count: dict[str, int] = {}
        # In the order in which they fell idle: those that never asked anything, and the others.
        self._fresh: dict[str, dict[K, None]] = {}
        self._resting: dict[str, dict[K, None]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def enter(self, key: K, network: str) -> K | None:
        """A new connection; the one that must go for it, which may be itself."""
        self._known[key] = _Known(network)
        self._count[network] = self._count.get(network, 0) + 1
        victim = None
        if self._count[network] > self._each:
            victim = self._oldest(network) or key
        elif len(self._known) > self._most:
            victim = self._oldest(self._busiest()) or key
        self._fresh.setdefault(network, {})[key] = None
        return victim

    def busy(self, key: K) -> None:
        """It has asked something."""
        known = self._known.get(key)
        if known is not None:
            self._forget(key, known.network)
            known.served = True

    def idle(self, key: K) -> None:
        """It has been answered."""
        known = self._known.get(key)
        if known is not None:
            self._forget(key, known.network)
            lists = self._resting if known.served else self._fresh
            lists.setdefault(known.network, {})[key] = None

    def leave(self, key: K) -> None:
        """It is gone; no fault if it was gone before."""
        known = self._known.pop(key, None)
        if known is None:
            return
        self._forget(key, known.network)
        self._count[known.network] -= 1
        if not self._count[known.network]:
            del self._count[known.network]

    def _oldest(self, network: str) -> K | None:
        for lists in (self._fresh, self._resting):
            found = lists.get(network)
            if found:
                return next(iter(found))
        return None

    def _busiest(self) -> str:
        """The network with the most idle connections; that of nobody where there are none."""
        return max(
            {*self._fresh, *self._resting},
            key=lambda one: len(self._fresh.get(one, ())) + len(self._resting.get(one, ())),
            default="",
        )

    def _forget(self, key: K, network: str) -> None:
        for lists in (self._fresh, self._resting):
            found = lists.get(network)
            if found is None:
                continue
            found.pop(key, None)
            if not found:
                del lists[network]

    def check(self) -> None:
        """Every invariant holds."""
        assert sum(self._count.values()) == len(self._known)
        for lists in (self._fresh, self._resting):
            for network, keys in lists.items():
                assert keys
                assert all(self._known[key].network == network for key in keys)
        assert all(self._count.values())
