"""Whether one session has so much more than another that it should give up a lease for it.

Owns: this comparison. What was asked back counts as given by those who have it, and as had by those
who wait, so that in doubt less is asked back. Must never: choose a lease (``recall`` does).
"""

from __future__ import annotations

from typing import NamedTuple

from guactors.scheduling.desk import Desk
from guactors.scheduling.leases import Lease
from guactors.scheduling.queues import Demand, Queue
from guactors.scheduling.shares import Currency, change, currency


class Asking(NamedTuple):
    """A session that wants one more lease; so much more, in the currency ``by``, is coming."""

    session: str
    by: Currency
    coming: float


class Balance:
    """Works on ``desk``, for one look at all that waits."""

    def __init__(self, desk: Desk) -> None:
        self._shares = desk.demands.shares
        self._recallable = desk.leases.recallable
        self._leaving: dict[str, dict[str, int]] = {}
        """By session, what leases hold that this look has found."""
        self._users = self._shares.users()
        self._richest: dict[Currency, list[str]] = {}

    @property
    def alone(self) -> bool:
        """Whether there are no two sessions to compare."""
        return len(self._users) < 2

    def asking(self, queue: Queue, demand: Demand, underway: int) -> Asking:
        """The session of the demand whose turn it is; ``underway``: leases that are coming back
        for the queue."""
        by = currency(queue.need.best or queue.need.hold)
        return Asking(demand.session, by, underway * by.cost / max(1, queue.sessions()))

    def leaves(self, lease: Lease) -> None:
        """It is asked back."""
        change(self._leaving.setdefault(lease.session, {}), lease.need.hold, 1)

    def level(self, session: str, by: Currency, more: float = 0.0) -> float:
        """As ``ShareBook.level``, of one that has given back all that it is to."""
        back = sum(
            leaving[session].get(by.name, 0)
            for leaving in (self._leaving, self._recallable.leaving)
            if session in leaving
        )
        return self._shares.level(session, by, more - back / by.unit)

    def has_nothing(self, asks: Asking) -> bool:
        """Whether it has nothing of what it asks for."""
        return self._wants(asks) <= 0

    def gives(self, session: str, asks: Asking) -> bool:
        """Whether the session would still have as much of what it is entitled to as the other."""
        return self.level(session, asks.by, -asks.by.cost) >= self._wants(asks, asks.by.cost)

    def _wants(self, asks: Asking, more: float = 0.0) -> float:
        return self._shares.level(asks.session, asks.by, asks.coming + more)

    def anybody_gives(self, asks: Asking) -> bool:
        """Whether any session does."""
        by = asks.by
        richest = self._richest.get(by)
        if richest is None:
            # Of the two that have most one is another.
            richest = sorted(self._users, key=lambda one: -self.level(one, by, -by.cost))[:2]
            self._richest[by] = richest
        return any(one != asks.session and self.gives(one, asks) for one in richest)
