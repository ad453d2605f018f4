"""Where the bundles of a placement group go, all of them or none.

Owns: the four strategies, and the search. Must never: change a pool, or know what a group is.

PACK and SPREAD are preferences: the search tries providers in the order that suits them, and takes
what it finds. It goes back on its steps a bounded number of times, so a tight fit of many different
bundles may be missed; it is looked for again at the next change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from guactors.scheduling.placement import Slot
from guactors.scheduling.resources import Units

PACK, SPREAD, STRICT_PACK, STRICT_SPREAD = "PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"
STRATEGIES = (PACK, SPREAD, STRICT_PACK, STRICT_SPREAD)

MOST_STEPS_BACK = 500


class Want(NamedTuple):
    """One bundle: how much of what, and the providers that could ever hold it."""

    units: Units
    slots: Collection[Slot]


Free = Callable[[Slot, str], int]
"""Steps of a resource that may be taken on a provider."""


def free_now(slot: Slot, name: str) -> int:
    """What is free."""
    if not (slot.up and slot.open):
        return -1
    return slot.pool.total.get(name, 0) - slot.pool.used.get(name, 0)


def free_ever(slot: Slot, name: str) -> int:
    """What there is at all."""
    return slot.pool.total.get(name, 0)


class _Room:
    """What is left while an arrangement is tried."""

    def __init__(self, free: Free) -> None:
        self._free = free
        self._taken: dict[tuple[str, str], int] = {}
        self.used: dict[str, int] = {}
        """Bundles by provider."""

    def fits(self, slot: Slot, units: Units) -> bool:
        taken = self._taken
        return all(
            self._free(slot, name) - taken.get((slot.peer, name), 0) >= amount
            for name, amount in units
        )

    def take(self, slot: Slot, units: Units, sign: int = 1) -> None:
        for name, amount in units:
            key = slot.peer, name
            self._taken[key] = self._taken.get(key, 0) + sign * amount
        self.used[slot.peer] = self.used.get(slot.peer, 0) + sign


def arrange(
    wants: Sequence[Want], strategy: str, beside: Sequence[Slot] = (), free: Free = free_now
) -> list[Slot] | None:
    """A provider for each of ``wants``, or None. ``beside``: where other bundles of the same group
    are already."""
    if strategy == STRICT_PACK:
        return _on_one(wants, beside, free)
    if strategy == STRICT_SPREAD:
        return _each_on_its_own(wants, beside, free)
    if len(wants) > 1 and strategy == PACK and not beside:
        together = _on_one(wants, beside, free)
        if together is not None:
            return together
    return _search(wants, strategy, beside, free)


def _on_one(wants: Sequence[Want], beside: Sequence[Slot], free: Free) -> list[Slot] | None:
    """All on one provider: the fullest that has room, so that the empty ones stay whole."""
    total: dict[str, int] = {}
    for want in wants:
        for name, amount in want.units:
            total[name] = total.get(name, 0) + amount
    units = tuple(total.items())
    common = list(wants[0].slots)
    if len(wants) > 1:
        others = [{slot.peer for slot in want.slots} for want in wants[1:]]
        common = [slot for slot in common if all(slot.peer in peers for peers in others)]
    if beside:
        there = {slot.peer for slot in beside}
        common = [slot for slot in common if {slot.peer} == there]
    room = _Room(free)
    fitting = [slot for slot in common if room.fits(slot, units)]
    if not fitting:
        return None
    best = min(fitting, key=lambda slot: (-slot.pool.load_with(units), slot.order))
    return [best] * len(wants)


def _each_on_its_own(
    wants: Sequence[Want], beside: Sequence[Slot], free: Free
) -> list[Slot] | None:
    """No two on one provider: a matching, found by augmenting paths, so that it is found if there
    is one."""
    room, taken = _Room(free), {slot.peer for slot in beside}
    choices = [
        sorted(
            (s for s in want.slots if s.peer not in taken and room.fits(s, want.units)),
            key=lambda s: (s.pool.load_with(want.units), s.order),
        )
        for want in wants
    ]
    if len({slot.peer for slots in choices for slot in slots}) < len(wants):
        return None
    holder: dict[str, int] = {}
    found: list[Slot | None] = [None] * len(wants)
    for index in range(len(wants)):
        if not _augment(index, choices, holder, found):
            return None
    return [slot for slot in found if slot is not None]


def _augment(
    start: int, choices: list[list[Slot]], holder: dict[str, int], found: list[Slot | None]
) -> bool:
    """Find bundle ``start`` a provider, moving others where that helps."""
    came: dict[str, int] = {}
    queue = [start]
    for index in queue:
        for slot in choices[index]:
            if slot.peer in came:
                continue
            came[slot.peer] = index
            if slot.peer in holder:
                queue.append(holder[slot.peer])
                continue
            step: Slot | None = slot
            while step is not None:
                mover = came[step.peer]
                holder[step.peer] = mover
                step, found[mover] = found[mover], step
            return True
    return False


def _search(
    wants: Sequence[Want], strategy: str, beside: Sequence[Slot], free: Free
) -> list[Slot] | None:
    """Depth first, the biggest bundles first, each time in the order that suits the strategy."""
    room = _Room(free)
    for slot in beside:
        room.used[slot.peer] = room.used.get(slot.peer, 0) + 1
    order = sorted(range(len(wants)), key=lambda i: (-sum(a for _, a in wants[i].units), i))
    stack: list[list[Slot]] = []
    found: list[Slot] = []
    steps_back = 0
    while len(found) < len(wants):
        want = wants[order[len(found)]]
        if len(stack) == len(found):
            stack.append(_in_order(want, strategy, room))
        if stack[-1]:
            slot = stack[-1].pop()
            room.take(slot, want.units)
            found.append(slot)
            continue
        stack.pop()
        steps_back += 1
        if not found or steps_back > MOST_STEPS_BACK:
            return None
        room.take(found.pop(), wants[order[len(found)]].units, -1)
    placed = dict(zip(order, found, strict=True))
    return [placed[index] for index in range(len(wants))]


def _in_order(want: Want, strategy: str, room: _Room) -> list[Slot]:
    """Those with room, the best last."""
    slots = [slot for slot in want.slots if room.fits(slot, want.units)]
    if strategy == PACK:
        return sorted(
            slots,
            key=lambda s: (room.used.get(s.peer, 0) > 0, s.pool.load_with(want.units), -s.order),
        )
    return sorted(
        slots,
        key=lambda s: (-room.used.get(s.peer, 0), -s.pool.load_with(want.units), -s.order),
    )
