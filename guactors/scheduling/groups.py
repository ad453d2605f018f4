"""Placement groups as the hub knows them: records, names, watchers, what waits, the latest dead.

Owns: the record of a group and of its bundles, and the indices over them. Must never: decide about
one (``group_rules`` does), touch a provider's pool, or grow without bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import islice
from typing import TYPE_CHECKING

from guactors.messages import GroupRow, GroupSpec, GroupUpdate, ReservationSpec
from guactors.scheduling.placement import Need, Slot
from guactors.scheduling.resources import Pool, Units

if TYPE_CHECKING:
    from guactors.scheduling.desk import Caller

MOST_GONE = 10_000
"""So many removed groups are remembered, for those who ask late."""

PENDING, CREATED, RESCHEDULING, REMOVED = "pending", "created", "rescheduling", "removed"
UNKNOWN = "unknown"
"""Said to who asks for a group that is not known, or not to be seen."""


@dataclass(eq=False, slots=True)
class Bundle:
    """One bundle. ``need`` is what is set aside, ``slot`` where; ``home`` the provider on which it
    was before the hub was replaced."""

    group: Group
    index: int
    need: Need
    slot: Slot | None = None
    home: str = ""
    leases: set[str] = field(default_factory=set)
    actors: set[str] = field(default_factory=set)
    forced: bool = False
    """More may be taken than there is: workers resumed, or were there before the hub was."""
    _pool: Pool | None = None

    def has_room(self, hold: Units) -> bool:
        """Whether more may run inside now. Of a reservation not all need be free yet: of what
        others still hold of it nothing is given away."""
        if not self.pool.fits(hold):
            return False
        if self.group.reservation is None or self.slot is None:
            return True
        owed = self.slot.pool.shortage()
        pool = self.pool
        return all(
            pool.total.get(name, 0) - pool.used.get(name, 0) - owed.get(name, 0) >= amount
            for name, amount in hold
        )

    @property
    def pool(self) -> Pool:
        """What runs inside takes from here."""
        if self._pool is None:
            self._pool = Pool.of(self.need.hold)
        return self._pool

    def __repr__(self) -> str:
        place = self.slot.peer if self.slot is not None else "nowhere"
        return f"<Bundle {self.index} of {self.group.id} {place}>"


@dataclass(eq=False, slots=True)
class Group:
    """One group. ``state`` as in GroupUpdate; ``reason`` why nobody could hold it, or why it
    ended."""

    spec: GroupSpec
    order: int
    bundles: list[Bundle] = field(default_factory=list)
    state: str = PENDING
    reason: str = ""
    kind: str = ""
    watchers: set[str] = field(default_factory=set)
    blocked_since: float | None = None
    kept: bool = False
    """Its providers were told to keep it in mind."""
    reservation: ReservationSpec | None = None
    """It is the room of this reservation, which others than its maker may use."""
    begun: bool = True
    """The time of its reservation has come."""

    @property
    def id(self) -> str:
        return self.spec.group

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for groups that fit where the other fits."""
        if any(bundle.slot is not None or bundle.home for bundle in self.bundles):
            return (self.id,)
        return (self.spec.strategy, tuple(bundle.need for bundle in self.bundles))

    def open_to(self, principal: str) -> bool:
        """Whether it is a reservation that this principal, too, may use."""
        allowed = self.reservation.allow if self.reservation is not None else ()
        return principal in allowed or "*" in allowed

    def unplaced(self) -> list[Bundle]:
        """Those that have no provider."""
        return [bundle for bundle in self.bundles if bundle.slot is None]

    def beside(self) -> list[Slot]:
        """The providers of the others."""
        return [bundle.slot for bundle in self.bundles if bundle.slot is not None]

    def homes(self) -> list[str]:
        """The provider of each bundle, empty where it has none."""
        return [bundle.slot.peer if bundle.slot is not None else "" for bundle in self.bundles]

    def update(self) -> GroupUpdate:
        """What watchers are told."""
        return GroupUpdate(
            self.id, self.state, self.homes() if self.bundles else [], self.reason, self.kind
        )

    def row(self) -> GroupRow:
        """Its row in a listing."""
        return GroupRow(self.spec, self.update())

    def __repr__(self) -> str:
        return f"<Group {self.id} {self.spec.strategy} {self.state} {self.homes()}>"


class GroupBook:
    """Live groups, their names, those that wait for room, and the latest removed."""

    def __init__(self) -> None:
        self.live: dict[str, Group] = {}
        self.gone: dict[str, Group] = {}
        self.waiting: dict[tuple[object, ...], dict[str, Group]] = {}
        """By key, so that where one finds no room its equals need not look."""
        self.fresh: dict[tuple[object, ...], None] = {}
        """Keys of which no group has looked for room since something changed for it."""
        self._keys: dict[str, tuple[object, ...]] = {}
        self.ended_early: dict[str, list[Caller]] = {}
        """Who wanted the end of groups that this hub has not met yet."""
        self._names: dict[tuple[str, str], Group] = {}
        self._sessions: dict[str, dict[str, Group]] = {}
        self._actors: dict[str, dict[str, Group]] = {}
        self._watched: dict[str, dict[str, Group]] = {}
        self._counter = 0

    def __iter__(self) -> Iterator[Group]:
        return iter(self.live.values())

    def number(self) -> int:
        """The order of the next one."""
        self._counter += 1
        return self._counter

    def named(self, namespace: str, name: str) -> Group | None:
        """The live group of that name."""
        return self._names.get((namespace, name))

    def of_session(self, session: str) -> list[Group]:
        """Live groups made in the session."""
        return list(self._sessions.get(session, {}).values())

    def of_actor(self, actor: str) -> list[Group]:
        """Live groups that the actor made."""
        return list(self._actors.get(actor, {}).values())

    def add(self, group: Group) -> None:
        """A new one; its name is taken unless somebody else has it."""
        self.live[group.id] = group
        spec = group.spec
        self._sessions.setdefault(spec.session, {})[group.id] = group
        if spec.actor:
            self._actors.setdefault(spec.actor, {})[group.id] = group
        if spec.name:
            self._names.setdefault((spec.namespace, spec.name), group)

    def bury(self, group: Group) -> None:
        """It is gone for good."""
        self.settled(group)
        del self.live[group.id]
        spec = group.spec
        _discard(self._sessions, spec.session, group.id)
        _discard(self._actors, spec.actor, group.id)
        for peer in group.watchers:
            _discard(self._watched, peer, group.id)
        group.watchers.clear()
        group.bundles.clear()
        if self._names.get((spec.namespace, spec.name)) is group:
            del self._names[spec.namespace, spec.name]
        self.gone[group.id] = group
        if len(self.gone) > MOST_GONE:
            del self.gone[next(iter(self.gone))]

    def end_early(self, group: str, caller: Caller) -> None:
        """Its provider may still tell of it."""
        self.ended_early.setdefault(group, []).append(caller)
        if len(self.ended_early) > MOST_GONE:
            del self.ended_early[next(iter(self.ended_early))]

    # --- who waits ------------------------------------------------------------------------------

    def wait(self, group: Group) -> None:
        """It looks for room."""
        self.settled(group)
        key = self._keys[group.id] = group.key
        self.waiting.setdefault(key, {})[group.id] = group
        self.fresh[key] = None

    def settled(self, group: Group) -> None:
        """It looks for room no longer."""
        key = self._keys.pop(group.id, None)
        if key is None:
            return
        line = self.waiting[key]
        del line[group.id]
        if not line:
            del self.waiting[key]
            self.fresh.pop(key, None)

    def look_again(self) -> None:
        """Everything may fit elsewhere now."""
        self.fresh.update(dict.fromkeys(self.waiting))

    def in_turn(self, keys: Iterable[tuple[object, ...]]) -> list[tuple[object, ...]]:
        """Of these keys, those of a higher priority before those of a lower one."""
        return sorted(keys, key=lambda key: -next(iter(self.waiting[key].values())).spec.priority)

    def first(self, count: int) -> list[Group]:
        """Those of the highest priority, and of these those that have waited longest, one of each
        key."""
        heads = (next(iter(line.values())) for line in self.waiting.values())
        return nsmallest(count, heads, key=lambda group: (-group.spec.priority, group.order))

    # --- who watches ----------------------------------------------------------------------------

    def watch(self, group: Group, peer: str) -> None:
        """The peer wants to know how it fares."""
        group.watchers.add(peer)
        self._watched.setdefault(peer, {})[group.id] = group

    def forget(self, peer: str) -> None:
        """The peer is gone and watches no more."""
        for group in self._watched.pop(peer, {}).values():
            group.watchers.discard(peer)

    def listing(self, count: int) -> list[Group]:
        """Live ones, and the latest removed."""
        return [*islice(self, count), *islice(reversed(self.gone.values()), count // 10)]

    def check(self) -> None:
        """The indices agree, and every group has all of its room or none."""
        for key, group in self._names.items():
            assert self.live.get(group.id) is group, f"the name {key} is held by the dead {group}"
        waiting = {id for line in self.waiting.values() for id in line}
        for group in self:
            placed = [bundle for bundle in group.bundles if bundle.slot is not None]
            if group.state == CREATED:
                assert len(placed) == len(group.bundles), f"{group} has only {placed}"
                assert group.id not in waiting
            else:
                assert (group.id in waiting) == group.begun, f"{group} is forgotten"
            if group.state == PENDING:
                assert not placed, f"{group} has {placed} and not all"
            for bundle in group.bundles:
                assert (bundle.slot is None) or bundle in bundle.slot.bundles
                assert bundle.slot is not None or not (bundle.leases or bundle.actors), bundle
            peers = [bundle.slot.peer for bundle in placed if bundle.slot is not None]
            if group.spec.strategy == "STRICT_PACK":
                assert len(set(peers)) <= 1, group
            if group.spec.strategy == "STRICT_SPREAD":
                assert len(set(peers)) == len(peers), group
        assert waiting <= self.live.keys()
        assert self.fresh.keys() <= self.waiting.keys()


def _discard(index: dict[str, dict[str, Group]], key: str, group: str) -> None:
    entries = index.get(key, {})
    entries.pop(group, None)
    if not entries:
        index.pop(key, None)
