"""Who may come in: the sets of CURVE keys that listeners ask.

Owns: two kinds of :class:`~guactors.transport.base.Doors`. Must never: learn a key by itself; who
owns the listener tells it.
"""

from __future__ import annotations

from collections.abc import Iterable


class KeySet:
    """Only the keys it was told; a worker's doors. One that was expelled stays out."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._keys = frozenset(keys)
        self._expelled: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<KeySet of {len(self._keys)}>"

    def admit(self, keys: Iterable[str]) -> None:
        """Let these in from now on, unless they were expelled."""
        self._keys = (self._keys | frozenset(keys)) - self._expelled - {""}

    def expel(self, keys: Iterable[str]) -> None:
        """Let these in never again."""
        # Replaced, not changed: the thread that answers handshakes reads it without a lock.
        self._expelled |= frozenset(keys)
        self._keys -= self._expelled

    def admits(self, key: str) -> bool:
        """As the port says."""
        return key in self._keys


class AllBut:
    """Every key but those shut out: the hub's doors, behind which a stranger may only introduce
    himself."""

    def __init__(self) -> None:
        self._out: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<AllBut {len(self._out)}>"

    def shut_out(self, keys: Iterable[str]) -> None:
        """Never these again."""
        self._out |= frozenset(keys) - {""}

    def admits(self, key: str) -> bool:
        """As the port says."""
        return key not in self._out
