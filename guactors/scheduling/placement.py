"""Where something fits, and why it fits nowhere.

Owns: what a need is, the scheduler's view of a provider, the choice between providers, and the
sentence that explains a refusal. Must never: change a pool, or know leases from actors.

The choice is the provider that stays the least full, counted in the resource that gets the fullest;
none counts as fuller than another as long as it stays below :data:`PACKED`, so that small work
keeps together. Work that asks to be spread, or holds nothing, takes the emptiest. Among equals it
is the one with the fewest things on it, then the one that joined first.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from guactors.messages import Availability, Limits, Placing, Shape
from guactors.scheduling.resources import LIGHT, STEP, Pool, Units, overlap, to_units
from guactors.scheduling.selectors import Labels, in_order, met

if TYPE_CHECKING:
    from guactors.scheduling.groups import Bundle

PACKED = 0.5
"""Up to this share of its resources a provider is filled before another one is begun."""


class Wish(NamedTuple):
    """A :class:`guactors.messages.Placing`, hashable."""

    spread: bool = False
    soft: Labels = ()
    fallback: tuple[Labels, ...] = ()
    prefer: str = ""
    group: str = ""
    bundle: int = -1


NO_WISH = Wish()
EVERYWHERE = frozenset({"", "native"})
"""Runtimes of every provider; empty is ``python``."""


class Need(NamedTuple):
    """Everything that decides where something may go; equal needs wait in one queue.

    ``hold`` is taken while it lives, ``total`` is what the provider must have at all. ``python`` is
    the minor version that must be met, since pickles do not cross it. ``who``: whose rights and
    quota count (``permission``), empty for who may do everything."""

    priority: int
    hold: Units
    total: Units
    labels: Labels
    provider: str
    python: str
    runtime: str = ""
    image: str = ""
    preemption: tuple[str, ...] = ()
    who: str = ""
    env: bytes = b""
    """What its worker is set up with: one that is set up otherwise is of no use."""
    limits: Limits | None = None
    wish: Wish = NO_WISH
    min_runtime: float = 0.0
    max_suspended: float = 0.0
    grace: float = 0.0


def lease_need(shape: Shape, python: str, who: str = "") -> Need:
    """Of a demand; without a word about CPU it is one, and one that asks for nothing takes one of
    the places for such."""
    hold = to_units(shape.resources, cpu=1.0) or ((LIGHT, STEP),)
    return _need(shape, hold, hold, python, who)


def actor_need(shape: Shape, placement: dict[str, float], python: str, who: str = "") -> Need:
    """Of an actor; without a word about CPU it holds none."""
    hold = to_units(shape.resources)
    total = to_units(placement) if placement else hold
    return _need(shape, hold, total, python, who)


def _need(shape: Shape, hold: Units, total: Units, python: str, who: str) -> Need:
    labels = in_order(shape.labels)
    runtime = "" if shape.runtime == "python" else shape.runtime
    return Need(
        shape.priority, hold, total, labels, shape.provider, python,
        runtime, shape.image, tuple(shape.preemption), who,
        _digest(shape.env.description) if shape.env is not None else b"",
        shape.limits, _wish(shape.place), shape.min_runtime,
        shape.max_suspended, shape.grace,
    )  # fmt: skip


def _digest(description: bytes) -> bytes:
    return blake2b(description, digest_size=16).digest()


def _wish(place: Placing | None) -> Wish:
    if place is None:
        return NO_WISH
    fallback = tuple(in_order(labels) for labels in place.fallback)
    return Wish(
        place.spread, in_order(place.soft), fallback, place.prefer, place.group, place.bundle
    )


def bundle_need(units: Units, labels: Mapping[str, str], python: str, who: str) -> Need:
    """Of a bundle of a placement group."""
    return Need(0, units, units, in_order(labels), "", python, who=who)


@dataclass(eq=False, slots=True)
class Slot:
    """A provider as the scheduler sees it."""

    peer: str
    name: str
    python: str
    order: int
    epoch: int = 0
    """Counts its links: what was sent on an earlier one may be lost."""
    joined: float = 0.0
    up: bool = True
    offered: bool = False
    """Its Offer on the present link has come: until then nobody knows what runs there."""
    closed: Availability | None = None
    """Its owner has the machine back: nothing new, and what is there stands still."""
    lent_until: float = 0.0
    """When its owner will have it back; epoch seconds, 0 where nobody knows."""
    forced: bool = False
    """More may be taken than there is: workers resumed, or the provider reported it so."""
    pool: Pool = field(default_factory=lambda: Pool({}))
    labels: dict[str, str] = field(default_factory=dict)
    key: str = ""
    """Its public key, empty for one of the hub's own machine."""
    runtimes: frozenset[str] = EVERYWHERE
    leases: set[str] = field(default_factory=set)
    actors: set[str] = field(default_factory=set)
    bundles: dict[Bundle, None] = field(default_factory=dict)
    """Of placement groups, in the order they came."""

    def __repr__(self) -> str:
        state = "up" if self.up else "away"
        return (
            f"<Slot {self.peer} {self.name!r} {state} free={self.pool.free()} "
            f"leases={len(self.leases)} actors={len(self.actors)}>"
        )

    @property
    def open(self) -> bool:
        """Whether something new may be put there, as far as its provider has said."""
        return self.offered and self.closed is None

    @property
    def crowd(self) -> float:
        """Things on it per CPU, to spread what holds nothing."""
        return (
            (len(self.leases) + len(self.actors)) * STEP / max(STEP, self.pool.total.get("CPU", 0))
        )


class Misfit(enum.StrEnum):
    """Why a need could not be met by a provider even if that were empty."""

    PROVIDER = "other_provider"
    """Another one was named."""
    PYTHON = "python"
    """Pickles do not cross minor versions."""
    RUNTIME = "runtime"
    LABELS = "labels"
    TOO_SMALL = "too_small"


def misfit(slot: Slot, need: Need) -> Misfit | None:
    """Why the need could not be met by the slot if it were empty; None where it could."""
    if need.provider and need.provider not in (slot.peer, slot.name):
        return Misfit.PROVIDER
    if need.python and slot.python != need.python:
        return Misfit.PYTHON
    if need.runtime not in slot.runtimes:
        return Misfit.RUNTIME
    if tier(slot, need) < 0:
        return Misfit.LABELS
    if not (slot.pool.holds(need.total) and slot.pool.holds(need.hold)):
        return Misfit.TOO_SMALL
    return None


def feasible(slot: Slot, need: Need) -> bool:
    """Whether the need could be met by the slot if it were empty."""
    return misfit(slot, need) is None


def tier(slot: Slot, need: Need) -> int:
    """Which of the need's alternatives of labels the slot meets: 0 is the first, -1 none."""
    if met(need.labels, slot.labels):
        return 0
    for number, labels in enumerate(need.wish.fallback, 1):
        if met(labels, slot.labels):
            return number
    return -1


def choose(
    candidates: Iterable[Slot],
    need: Need,
    closed: Collection[str] = (),
    prefer: Mapping[str, float] | None = None,
) -> Slot | None:
    """The best of the feasible ``candidates`` with room now, but those in ``closed``. ``prefer``:
    weights by provider id, of which bigger goes first among those that meet the same labels."""
    best: Slot | None = None
    best_rank: tuple[float, ...] | None = None
    wish = need.wish
    even = wish.spread or not need.hold or need.hold[0][0] == LIGHT
    for slot in candidates:
        if not (slot.up and slot.offered) or slot.closed or slot.peer in closed:
            continue
        if not slot.pool.fits(need.hold):
            continue
        load = slot.pool.load_with(need.hold)
        rank: tuple[float, ...]
        if even:
            rank = (load, slot.crowd, slot.order)
        else:
            rank = (load, slot.crowd, slot.order) if load > PACKED else (0.0, 0.0, slot.order)
        if wish is not NO_WISH:
            rank = (tier(slot, need), not met(wish.soft, slot.labels), *rank)
        if prefer:
            split = len(rank) - 3
            rank = (*rank[:split], -prefer.get(slot.peer, 0.0), *rank[split:])
        if best_rank is None or rank < best_rank:
            best, best_rank = slot, rank
    return best


def contends(need: Need, other: Need) -> bool:
    """Whether the two can take room from each other."""
    return overlap(need.hold, other.hold)


def explain(slots: Collection[Slot], need: Need) -> str:
    """Why no provider could ever meet the need, with the nearest miss."""
    there = [slot for slot in slots if slot.pool.amounts()]
    if not there:
        return "there is no provider in the grid: start one, or wait for one to join"
    if need.provider:
        pinned = [slot for slot in there if need.provider in (slot.peer, slot.name)]
        if not pinned:
            names = ", ".join(sorted(slot.name or slot.peer for slot in there)[:8])
            return f"no provider is called {need.provider!r}; there are: {names}"
        there = pinned
    same = [slot for slot in there if not need.python or slot.python == need.python]
    if not same:
        versions = ", ".join(sorted({slot.python for slot in there}))
        return (
            f"the caller runs Python {need.python} and the providers run Python {versions}: "
            "pickles do not cross minor versions, use the same one on both sides"
        )
    able = [slot for slot in same if need.runtime in slot.runtimes]
    if not able:
        names = ", ".join(sorted({"python", *(n for slot in same for n in slot.runtimes if n)}))
        return f"no provider has the runtime {need.runtime!r}, they have {names}"
    same = able
    if need.labels:
        labelled = [slot for slot in same if tier(slot, need) >= 0]
        if not labelled:
            choices = (need.labels, *need.wish.fallback)
            wanted = ", nor ".join(written(labels) for labels in choices)
            return f"no provider has the labels {wanted}"
        same = labelled
    return _explain_amounts(same, need)


def written(labels: Labels) -> str:
    """Labels for people."""
    return ", ".join(f"{name}={value}" for name, value in labels)


def _explain_amounts(slots: list[Slot], need: Need) -> str:
    wanted = dict(need.hold)
    for name, amount in need.total:
        wanted[name] = max(amount, wanted.get(name, 0))
    missing = []
    for name, amount in sorted(wanted.items()):
        most = max(slots, key=lambda slot: slot.pool.total.get(name, 0))
        there = most.pool.total.get(name, 0)
        if there < amount:
            where = f" on {most.name or most.peer}" if there else ""
            missing.append(
                f"asked {amount / STEP:g} {name}, the most there is is {there / STEP:g}{where}"
            )
    if not missing:
        asked = ", ".join(f"{amount / STEP:g} {name}" for name, amount in sorted(wanted.items()))
        return f"no single provider has all of {asked}"
    return "; ".join(missing)
