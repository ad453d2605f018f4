"""Leases that gave way by their end and have a grace: gone from all books while their workers live.

Owns: whom to tell when such a worker has ended, and as what. Must never: hold room; the newcomer's
provider waits for the end.

Their callers hear it when it has happened and not before, so that what begins again does not begin
beside itself, and what is done within the grace is done.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from guactors.messages import DeathReport, LeaseLost, StopLease
from guactors.scheduling.desk import Desk
from guactors.scheduling.leases import Lease

LATE: Final = 5.0
"""Seconds after its grace in which a provider should have told the end."""


class Departing(NamedTuple):
    """One of them."""

    caller: str
    peer: str
    death: DeathReport


class DepartingBook:
    """Works on ``desk``."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._leases: dict[str, Departing] = {}

    def ask(self, lease: Lease, death: DeathReport, now: float) -> None:
        """It is to end within its grace."""
        desk, grace, peer = self._desk, lease.need.grace, lease.slot.peer
        desk.say(peer, StopLease(lease.id, True, grace, death.cause))
        desk.drop_lease(lease)
        self._leases[lease.id] = Departing(lease.caller, peer, death)
        desk.agenda.put(now + grace + LATE, lambda _: self.ended(lease.id))

    def ended(self, lease: str) -> None:
        """Its worker has, or is not heard of."""
        found = self._leases.pop(lease, None)
        if found is not None and found.caller in self._desk.callers:
            self._desk.say(found.caller, LeaseLost(lease, found.death))

    def caller_left(self, caller: str) -> None:
        """Nobody wants to know any more: they end at once."""
        for lease in [key for key, x in self._leases.items() if x.caller == caller]:
            self._desk.say(self._leases.pop(lease).peer, StopLease(lease, kill=True))

    def provider_left(self, peer: str) -> None:
        """They ended with it."""
        for lease in [key for key, x in self._leases.items() if x.peer == peer]:
            self.ended(lease)
