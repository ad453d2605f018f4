"""Which provider ``choose`` would take, without asking all of them.

Owns: the kinds of needs (needs that may go to the same providers), for each kind its candidates and
an order among them, and the log of what has changed since a kind last looked. Must never: decide
otherwise than ``placement.choose`` does, change a pool, or know who waits.

A kind keeps its candidates in heaps by rank. A provider that gets fuller only gets a worse rank,
which is seen when it comes to the top; one that gets emptier must be told with :meth:`Index.eased`,
and one whose offer changes with :meth:`Index.changed`. Both only write a line into a log; a kind
reads what is new there when it is asked, so that needs nobody asks for cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from guactors.scheduling.placement import PACKED, Need, Slot, choose, feasible, tier
from guactors.scheduling.ranking import Log, Rank, Ranking, Shut
from guactors.scheduling.resources import LIGHT
from guactors.scheduling.selectors import met
from guactors.scheduling.standing import StandingBook

if TYPE_CHECKING:
    from guactors.scheduling.levels import Level, Seen

MOST_PLACES = 2_000_000
"""Candidates, summed over all kinds, beyond which kinds that nobody waits for are forgotten."""
MOST_APART = 10_000
RECHECK = 60.0
"""Seconds after which the rights of those that may not do everything are asked again: grants begin
and end."""


class Kind:
    """Needs that may go to the same providers, with the same preference among them. ``need`` is
    one of them."""

    __slots__ = (
        "_even", "_hold", "_plain", "_slots", "beside", "epoch", "found", "homes", "idle", "made",
        "members", "names", "need", "roomy", "seen", "seen_of", "spare", "witness",
    )  # fmt: skip

    def __init__(self, need: Need, slots: Mapping[int, Slot], now: float) -> None:
        self.need = need
        self.made = now
        self.seen = -1
        """Up to where it has read the log of changes."""
        self.members: dict[Slot, None] = {}
        """Providers that could meet it if they were empty."""
        self.homes: dict[Slot, None] = {}
        """Of these the one it would rather wait for than go elsewhere."""
        self.names = frozenset(name for name, _ in need.hold)
        self.idle = True
        """Nobody waits for it."""
        self.witness: Slot | None = None
        """The last known to be the nearest to having room."""
        self.epoch = 0
        """How often its candidates were others than the log of changes says."""
        self.seen_of: dict[Level, Seen] = {}
        """What it knows of who could give room to it, by force (``seats``) or not (``recall``)."""
        self._hold = need.hold
        self._even = need.wish.spread or not need.hold or need.hold[0][0] == LIGHT
        wish = need.wish
        self._plain = not (wish.soft or wish.fallback)
        self._slots = slots
        self.roomy = Ranking(self.rank, slots)
        self.found = Log()
        """Which have got room."""
        self.beside: dict[int, Ranking] = {}
        """By priority, those with room that is not kept for something that stands still there."""
        self.spare = Ranking(self.nearness, slots)

    def admits(self, slot: Slot) -> bool:
        """Whether it is a candidate."""
        return slot in (self.homes or self.members)

    def candidates(self) -> Collection[Slot]:
        """Where it may go."""
        return self.homes or self.members

    def roomy_beside(self, standing: StandingBook, priority: int) -> Ranking:
        """Those with room for this priority, once :attr:`roomy` is up to date."""
        if priority > standing.highest:
            return self.roomy
        found = self.beside.get(priority)
        if found is None:
            need = self.need._replace(priority=priority)

            def rank(slot: Slot) -> Rank | None:
                known = self.rank(slot)
                return None if known is None or standing.keeps(slot.peer, need) else known

            found = self.beside[priority] = Ranking(rank, self._slots)
        found.catch_up(self.found, self.roomy)
        return found

    def rank(self, slot: Slot) -> Rank | None:
        """As in ``choose``, for those without a preference of their own; None without room."""
        if not (slot.up and slot.offered) or slot.closed:
            return None
        if slot not in (self.homes or self.members):
            return None
        total, used, load = slot.pool.total, slot.pool.used, 0.0
        for name, amount in self._hold:
            there = total.get(name)
            if not there or (taken := used[name] + amount) > there:
                return None
            share = taken / there
            if share > load:  # noqa: PLR1730 - max() costs twice as much
                load = share
        if not (self._even or load > PACKED):
            crowd = load = 0.0
        else:
            crowd = slot.crowd
        if self._plain:
            return (load, crowd, slot.order)
        need = self.need
        return (tier(slot, need), not met(need.wish.soft, slot.labels), load, crowd, slot.order)

    def nearness(self, slot: Slot) -> Rank | None:
        """How near it is to having room, the nearest first."""
        if not slot.up or slot.closed or slot not in (self.homes or self.members):
            return None
        # As ``Pool.load_with``, of a pool that has some of everything: this is asked very often.
        total, used, load = slot.pool.total, slot.pool.used, 0.0
        for name, amount in self._hold:
            there = total.get(name)
            if not there:
                return None
            share = (used[name] + amount) / there
            if share > load:  # noqa: PLR1730 - max() costs twice as much
                load = share
        return (load, slot.order)


class Index:
    """Over ``slots``, which the desk owns. ``permits`` as in ``Permission``."""

    def __init__(
        self,
        slots: Mapping[str, Slot],
        permits: Callable[[Need, Slot, float], bool],
        standing: StandingBook,
    ) -> None:
        self._slots = slots
        self._permits = permits
        self._standing = standing
        self._by_order: dict[int, Slot] = {}
        self._by_name: dict[str, dict[Slot, None]] = {}
        self._named: dict[Slot, str] = {}
        self._kinds: dict[Need, Kind] = {}
        self._kind_of: dict[Need, Kind] = {}
        self._eased = Log()
        self._changed = Log()
        self.anew: list[Kind] = []
        """Kinds that have got candidates in another way than by :meth:`changed`."""
        self._apart: set[Need] = set()
        """Needs that a provider has refused: what holds for them holds for no other."""

    # --- what happens ---------------------------------------------------------------------------

    def eased(self, slot: Slot) -> None:
        """It has more room, or fewer things on it."""
        self._eased.put(slot, 2 * len(self._slots) + 1024)

    def changed(self, slot: Slot) -> None:
        """It came, went, or has other things to offer."""
        if self._slots.get(slot.peer) is slot:
            self._by_order[slot.order] = slot
            if self._named.get(slot) != slot.name:
                self._unname(slot)
                self._named[slot] = slot.name
                for name in (slot.peer, slot.name):
                    self._by_name.setdefault(name, {})[slot] = None
        else:
            self._by_order.pop(slot.order, None)
            self._unname(slot)
        self._changed.put(slot, 2 * len(self._slots) + 1024)
        self.eased(slot)

    def _unname(self, slot: Slot) -> None:
        name = self._named.pop(slot, None)
        for known in () if name is None else (slot.peer, name):
            there = self._by_name.get(known, {})
            there.pop(slot, None)
            if not there:
                self._by_name.pop(known, None)

    def changes(self) -> int:
        """How often something has changed."""
        return self._changed.end

    def set_apart(self, need: Need) -> None:
        """A provider refused it, or may be asked for it again."""
        if len(self._apart) > MOST_APART:
            self._apart.clear()
            self._kind_of.clear()
        self._apart.add(need)
        self.forget(lambda other: other == need)

    def forget(self, which: Callable[[Need], bool]) -> None:
        """Ask anew where these needs may go."""
        for need in [need for need in self._kind_of if which(need)]:
            kind = self._kind_of.pop(need)
            if kind.need == need:
                kind.seen = -1

    # --- questions ------------------------------------------------------------------------------

    def kind(self, need: Need, now: float) -> Kind:
        """The need's, up to date."""
        found = self._kind_of.get(need)
        if found is None:
            found = self._kind_of[need] = self._kind_for(need, now)
        return self.refreshed(found, now)

    def refreshed(self, kind: Kind, now: float) -> Kind:
        """The kind, up to date."""
        if kind.seen != self._changed.end or (kind.need.who and now - kind.made > RECHECK):
            self._read(kind, now)
        return kind

    def _kind_for(self, need: Need, now: float) -> Kind:
        key = need
        if not need.who and need not in self._apart:
            key = need._replace(
                priority=0, image="", preemption=(), env=b"", limits=None,
                min_runtime=0.0, max_suspended=0.0, grace=0.0,
            )  # fmt: skip
        kind = self._kinds.get(key)
        if kind is None:
            self._make_room()
            kind = self._kinds[key] = Kind(key, self._by_order, now)
        return kind

    def _make_room(self) -> None:
        """Forget kinds that nobody waits for, the oldest first, when there are too many."""
        most = max(64, MOST_PLACES // (len(self._slots) + 1))
        if len(self._kinds) >= most or len(self._kind_of) > 10_000:
            idle = [key for key, kind in self._kinds.items() if kind.idle]
            for key in idle[: len(idle) // 2 + 1]:
                del self._kinds[key]
            alive = set(self._kinds.values())
            self._kind_of = {n: kind for n, kind in self._kind_of.items() if kind in alive}

    def _read(self, kind: Kind, now: float) -> None:
        """Take in what has changed."""
        need, homes = kind.need, bool(kind.homes)
        fresh = self._changed.since(kind.seen) if kind.seen >= 0 else None
        if fresh is None or (need.who and now - kind.made > RECHECK):
            kind.members.clear()
            kind.homes.clear()
            kind.made = now
            self._anew(kind)
            fresh = self._slots.values()
            if need.provider:
                fresh = list(self._by_name.get(need.provider, ()))
        kind.seen = self._changed.end
        home = need.wish.prefer
        for slot in fresh:
            there = self._slots.get(slot.peer) is slot
            if there and feasible(slot, need) and self._permits(need, slot, now):
                kind.members[slot] = None
                if home and home in (slot.peer, slot.name):
                    kind.homes[slot] = None
                    continue
            else:
                kind.members.pop(slot, None)
            kind.homes.pop(slot, None)
        if homes and not kind.homes:
            # Those that were passed over for its sake are in no heap.
            self._anew(kind)

    def _anew(self, kind: Kind) -> None:
        """All that is known of its candidates is void."""
        kind.roomy.forget()
        kind.spare.forget()
        kind.beside.clear()
        kind.epoch += 1
        self.anew.append(kind)

    def candidates(self, need: Need, now: float) -> Collection[Slot]:
        """Providers that could meet the need if they were empty."""
        return self.kind(need, now).candidates()

    def choose(
        self, need: Need, now: float, shut: Shut | None = None,
        prefer: Mapping[str, float] | None = None,
    ) -> Slot | None:  # fmt: skip
        """What ``choose`` would take of the candidates, but those that are ``shut`` or kept for
        something that stands still there."""
        kind = self.kind(need, now)
        kind.roomy.catch_up(self._eased, kind.candidates(), kind.found)
        first = kind.roomy_beside(self._standing, need.priority).first(shut)
        if not prefer or first is None:
            return first
        liked = [slot for peer in prefer if (slot := self._slots.get(peer)) is not None]
        liked = [slot for slot in liked if kind.admits(slot) and not (shut and shut(slot))]
        return choose([first, *liked], need, (), prefer)

    def nearest(self, kind: Kind) -> Slot | None:
        """The candidate that is nearest to having room."""
        kind.spare.catch_up(self._eased, kind.candidates())
        kind.witness = kind.spare.first()
        return kind.witness

    def is_nearest(self, kind: Kind, slot: Slot) -> bool:
        """Whether that is this one. Mostly one that is nearer is known from before."""
        mine = kind.nearness(slot)
        if mine is None:
            return False
        if kind.witness is not None and kind.witness is not slot:
            other = kind.nearness(kind.witness)
            if other is not None and other < mine:
                return False
        for witness in kind.spare.early():
            other = kind.nearness(witness)
            if other is not None and other < mine:
                kind.witness = witness
                return False
        return self.nearest(kind) is slot

    def kinds(self, now: float) -> list[Kind]:
        """All that are known, up to date."""
        return [self.refreshed(kind, now) for kind in self._kinds.values()]

    def check(self, now: float) -> None:
        """Every kind knows just the providers it should, and finds what a walk would find."""
        assert set(self._by_order.values()) == set(self._slots.values())
        for need in list(self._kind_of):
            kind = self.kind(need, now)
            assert kind in self._kinds.values(), f"{need} has a kind that is forgotten"
            could = [slot for slot in self._slots.values() if feasible(slot, kind.need)]
            if not need.who:
                could = [slot for slot in could if self._permits(need, slot, now)]
                assert set(could) == kind.members.keys(), f"{need} has lost sight of providers"
            there = [slot for slot in kind.candidates() if slot.up and not slot.closed]
            near = min(there, key=lambda slot: kind.nearness(slot) or (), default=None)
            assert self.nearest(kind) is near, f"{self.nearest(kind)!r} is not {near!r}"
            keeps = self._standing.keeps
            walked = choose([x for x in kind.candidates() if not keeps(x.peer, need)], need)
            assert self.choose(need, now) is walked, f"{need} should have {walked!r}"
