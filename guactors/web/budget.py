"""How much memory the bodies of requests and answers take, and whose they are.

Owns: the count. Must never: let one key have what all others need.
"""

from __future__ import annotations


class Budget:
    """``most`` bytes in all, ``each`` of one holder."""

    def __init__(self, most: int, each: int) -> None:
        self._most = most
        self._each = each
        self._held: dict[str, int] = {}
        self._sum = 0

    def __repr__(self) -> str:
        return f"<Budget {self._sum} of {self._most}>"

    def take(self, holder: str, count: int) -> bool:
        """Whether there is room for so many bytes more; they are counted then."""
        held = self._held.get(holder, 0)
        if held + count > self._each or self._sum + count > self._most:
            return False
        self._held[holder] = held + count
        self._sum += count
        return True

    def give(self, holder: str, count: int) -> None:
        """So many of its bytes are gone again."""
        left = self._held.get(holder, 0) - count
        self._sum -= count
        if left:
            self._held[holder] = left
        else:
            self._held.pop(holder, None)

    def check(self) -> None:
        """Every invariant holds."""
        assert self._sum == sum(self._held.values()) <= self._most
        assert all(0 < held <= self._each for held in self._held.values())


class Hold:
    """What one request holds of the budget; ``release`` it in the end."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._taken: list[tuple[str, int]] = []

    def take(self, holder: str, count: int) -> bool:
        """As Budget.take."""
        taken = self._budget.take(holder, count)
        if taken:
            self._taken.append((holder, count))
        return taken

    def release(self) -> None:
        """All of it is gone again."""
        taken, self._taken = self._taken, []
        for holder, count in taken:
            self._budget.give(holder, count)
