"""Where work could give way, and for whom that could be enough.

Owns: how much of each resource the work on each provider could free, by priority; and for each kind
of need the providers where that is enough. Must never: choose who gives way (``preemption`` does),
or pass over a provider where somebody could: one too many is harmless, for it is looked at.

As in ``index``, who asks reads in a log what has changed since it last did. There is one log for
each priority, so that work of a high one is no news to those who wait with a lower one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.index import Kind
from guactors.scheduling.leases import LeaseState
from guactors.scheduling.levels import Level
from guactors.scheduling.placement import Slot
from guactors.scheduling.resources import Units, yielded
from guactors.scheduling.standing import Tenant
from guactors.security.words import GIVING_WAY

SUSPEND: Final = "suspend"
DEFAULT: Final = (SUSPEND,)
"""What may be done with work whose owner said nothing."""
MODES: Final = GIVING_WAY
ENDING: Final = frozenset(MODES) - {SUSPEND}


def runs(tenant: Tenant) -> bool:
    """Whether it does its work, and takes a processor for that."""
    if isinstance(tenant, ActorRecord):
        return tenant.state == "alive" and not tenant.stopping
    return tenant.state is LeaseState.GRANTED and not tenant.blocked


def could_free(tenant: Tenant) -> Units:
    """The most that it could free by giving way now."""
    if tenant.suspension is not None or tenant.bundle is not None or not runs(tenant):
        return ()
    modes = tenant.need.preemption or DEFAULT
    if not ENDING.isdisjoint(modes):
        return tenant.need.hold
    return yielded(tenant.need.hold) if SUSPEND in modes else ()


class Seat(NamedTuple):
    """What one tenant could free, and where."""

    slot: Slot
    priority: int
    frees: Units


class Seats:
    """All tenants that could give way, by provider and priority."""

    def __init__(self) -> None:
        self._seats: dict[str, Seat] = {}
        self._at: dict[Slot, dict[int, dict[str, int]]] = {}
        """The sums of what could be freed."""
        self._on: dict[Slot, dict[str, int]] = {}
        """Whose seats they are, with their priority."""
        self._levels: dict[int, Level] = {}
        self.changes = 0
        """How often there has been more hope for somebody."""

    # --- what happens ---------------------------------------------------------------------------

    def update(self, tenant: Tenant) -> None:
        """It has come, or something about it has changed."""
        frees, slot = could_free(tenant), tenant.slot
        before = self._seats.get(tenant.id)
        if before is not None:
            if before.frees == frees and before.slot is slot:
                return
            self.remove(tenant)
        if frees and slot is not None:
            seat = self._seats[tenant.id] = Seat(slot, tenant.need.priority, frees)
            self._on.setdefault(slot, {})[tenant.id] = seat.priority
            self._enter(seat)

    def remove(self, tenant: Tenant) -> None:
        """It is there no longer."""
        seat = self._seats.pop(tenant.id, None)
        if seat is not None:
            there = self._on[seat.slot]
            del there[tenant.id]
            if not there:
                del self._on[seat.slot]
            self._leave(seat)

    def _enter(self, seat: Seat) -> None:
        slot, priority, frees = seat
        sums = self._at.setdefault(slot, {}).setdefault(priority, {})
        for name, amount in frees:
            sums[name] = sums.get(name, 0) + amount
        self._levels.setdefault(priority, Level()).put(slot)
        self.eased(slot)

    def _leave(self, seat: Seat) -> None:
        slot, priority, frees = seat
        there = self._at[slot]
        sums = there[priority]
        for name, amount in frees:
            sums[name] -= amount
        level = self._levels[priority]
        level.drop(slot)
        if slot not in level.slots:
            del there[priority]
            if not there:
                del self._at[slot]
            if not level.slots:
                del self._levels[priority]

    def eased(self, slot: Slot) -> None:
        """It has more room, or other things to offer, or something on it could free more."""
        for priority in self._at.get(slot, ()):
            self._levels[priority].eased(slot)
            self.changes += 1

    # --- questions ------------------------------------------------------------------------------

    def levels(self, most: int) -> list[int]:
        """Priorities up to this one of work that could give way, the lowest first."""
        return sorted(level for level in self._levels if level <= most)

    def on(self, slot: Slot, most: int) -> list[str]:
        """What of a priority up to this one could give way there."""
        return [id for id, priority in self._on.get(slot, {}).items() if priority <= most]

    def lowest(self) -> int | None:
        """The first of these; None where nothing could give way."""
        return min(self._levels, default=None)

    def hope(self, kind: Kind, most: int) -> bool:
        """Whether there may be a provider where work of a priority up to ``most`` could free enough
        for the kind, which is up to date."""
        return any(
            self._levels[priority].seen(kind, self._could(kind, priority))
            for priority in self.levels(most)
        )

    def some(self, kind: Kind, priority: int, most: int) -> list[Slot]:
        """Providers with work of this priority where that, and what is below it, could free enough
        for the kind; where there are more than ``most``, others each time."""
        return self._levels[priority].some(kind, self._could(kind, priority), most)

    def _could(self, kind: Kind, priority: int) -> Callable[[Slot], bool]:
        enough, hold = self.enough, kind.need.hold
        return lambda slot: enough(slot, hold, priority)

    def enough(self, slot: Slot, hold: Units, priority: int) -> bool:
        """Whether work of this priority on the slot, and what is below it, could free as much as is
        missing there."""
        there = self._at.get(slot, {})
        if priority not in there:
            return False
        total, used = slot.pool.total, slot.pool.used
        for name, amount in hold:
            short = amount - total.get(name, 0) + used.get(name, 0)
            if short > 0:
                for level, sums in there.items():
                    if level <= priority:
                        short -= sums.get(name, 0)
                if short > 0:
                    return False
        return True

    def sketch(self, copies: Mapping[Slot, Slot]) -> Seats:
        """One over copies of the providers, to be asked :meth:`levels` and :meth:`enough`."""
        made = Seats()
        made._levels = self._levels
        made._on = {copies[slot]: dict(on) for slot, on in self._on.items() if slot in copies}
        made._at = {
            copies[slot]: {level: dict(sums) for level, sums in there.items()}
            for slot, there in self._at.items()
            if slot in copies
        }
        return made

    def spend(self, tenant: Tenant, slot: Slot) -> None:
        """On a sketch: it has given way on the copy of its provider."""
        for name, amount in could_free(tenant):
            self._at[slot][tenant.need.priority][name] -= amount
        self._on[slot].pop(tenant.id, None)

    def check(self, tenants: Collection[Tenant], kinds: Iterable[Kind]) -> None:
        """It counts all that could give way, and nothing else; and no kind has lost sight of a
        provider. ``kinds`` are up to date."""
        expected = {
            x.id: Seat(x.slot, x.need.priority, could_free(x))
            for x in tenants
            if x.slot is not None and could_free(x)
        }
        assert expected == self._seats, f"seats drifted: {expected} != {self._seats}"
        there = {id: (slot, level) for slot, on in self._on.items() for id, level in on.items()}
        assert there == {id: (seat.slot, seat.priority) for id, seat in expected.items()}
        again = Seats()
        for seat in expected.values():
            again._enter(seat)
        assert again.sums() == self.sums(), f"sums drifted: {self.sums()} != {again.sums()}"
        for kind in kinds:
            for priority, level in self._levels.items():
                if level in kind.seen_of:
                    could = self._could(kind, priority)
                    found = {slot for slot in kind.candidates() if could(slot)}
                    lost = found - level.seen(kind, could).keys()
                    assert not lost, f"{lost} could do for {kind.need}"

    def sums(self) -> dict[Slot, dict[int, Units]]:
        """What could be freed, by provider and priority."""
        return {
            slot: {
                level: tuple(sorted((n, x) for n, x in sums.items() if x))
                for level, sums in there.items()
            }
            for slot, there in self._at.items()
        }
