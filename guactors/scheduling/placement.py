"""Where something fits, and why it fits nowhere.

Owns: what a need is, the scheduler's view of a provider, the choice between providers, and the
sentence that explains a refusal. Must never: change a pool, or know leases from actors.

The choice is the provider that stays the least full, counted in the resource that gets the fullest;
among equals the one with the fewest things on it, then the one that joined first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from guactors.messages import Limits, Shape
from guactors.scheduling.resources import LIGHT, STEP, Pool, Units, overlap, to_units


class Need(NamedTuple):
    """Everything that decides where something may go; equal needs wait in one queue.

    ``hold`` is taken while it lives, ``total`` is what the provider must have at all. ``python`` is
    the minor version that must be met, since pickles do not cross it. ``who``: whose rights and
    quota count (``permission``), empty for who may do everything."""

    priority: int
    hold: Units
    total: Units
    labels: tuple[tuple[str, str], ...]
    provider: str
    python: str
    runtime: str = ""
    image: str = ""
    preemption: tuple[str, ...] = ()
    who: str = ""
    env: bytes = b""
    """What its worker is set up with: one that is set up otherwise is of no use."""
    limits: Limits | None = None


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
    labels = tuple(sorted(shape.labels.items()))
    runtime = "" if shape.runtime == "python" else shape.runtime
    return Need(
        shape.priority, hold, total, labels, shape.provider, python,
        runtime, shape.image, tuple(shape.preemption), who,
        _digest(shape.env.description) if shape.env is not None else b"",
        shape.limits,
    )  # fmt: skip


def _digest(description: bytes) -> bytes:
    return blake2b(description, digest_size=16).digest()


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
    forced: bool = False
    """More may be taken than there is: workers resumed, or the provider reported it so."""
    pool: Pool = field(default_factory=lambda: Pool({}))
    labels: dict[str, str] = field(default_factory=dict)
    key: str = ""
    """Its public key, empty for one of the hub's own machine."""
    leases: set[str] = field(default_factory=set)
    actors: set[str] = field(default_factory=set)

    def __repr__(self) -> str:
        state = "up" if self.up else "away"
        return (
            f"<Slot {self.peer} {self.name!r} {state} free={self.pool.free()} "
            f"leases={len(self.leases)} actors={len(self.actors)}>"
        )

    @property
    def crowd(self) -> float:
        """Things on it per CPU, to spread what holds nothing."""
        return (
            (len(self.leases) + len(self.actors)) * STEP / max(STEP, self.pool.total.get("CPU", 0))
        )


def feasible(slot: Slot, need: Need) -> bool:
    """Whether the need could be met by the slot if it were empty."""
    return (
        (not need.provider or need.provider in (slot.peer, slot.name))
        and (not need.python or slot.python == need.python)
        and all(slot.labels.get(name) == value for name, value in need.labels)
        and slot.pool.holds(need.total)
        and slot.pool.holds(need.hold)
    )


def choose(candidates: Iterable[Slot], need: Need, closed: Collection[str] = ()) -> Slot | None:
    """The best of the feasible ``candidates`` with room now, but those in ``closed``."""
    best: Slot | None = None
    best_rank: tuple[float, float, int] | None = None
    for slot in candidates:
        if not (slot.up and slot.offered) or slot.peer in closed or not slot.pool.fits(need.hold):
            continue
        rank = (slot.pool.load_with(need.hold), slot.crowd, slot.order)
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
    if need.labels:
        labelled = [s for s in same if all(s.labels.get(n) == v for n, v in need.labels)]
        if not labelled:
            wanted = ", ".join(f"{name}={value}" for name, value in need.labels)
            return f"no provider has the labels {wanted}"
        same = labelled
    return _explain_amounts(same, need)


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
