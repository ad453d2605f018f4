"""The life of a placement group: asked for, placed, used, rescheduled, removed.

Owns: what is said to callers and providers about groups, and what ends with one. Must never: search
for room (``bundles`` does), or serve who waits inside (``inside`` does).

A group is asked for as leases are: the rights and the quota of its principal count for each bundle.
It looks for room before single leases do. One that waits long enough has leases asked back for it,
and the providers that it could have then are kept from others (``claims``).
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from guactors import messages as m
from guactors.group_sizes import LARGEST, parts, size_of, size_of_update
from guactors.ids import RESERVED
from guactors.scheduling.actor_rules import ActorRules
from guactors.scheduling.bundles import STRATEGIES, Want, arrange, free_ever
from guactors.scheduling.desk import SETTLING, Caller, Desk, sees
from guactors.scheduling.groups import (
    CREATED,
    PENDING,
    REMOVED,
    RESCHEDULING,
    UNKNOWN,
    Bundle,
    Group,
)
from guactors.scheduling.lease_rules import LeaseRules
from guactors.scheduling.placement import Slot, bundle_need, explain, feasible
from guactors.scheduling.reserving import free_again, move_in, seize, set_aside
from guactors.scheduling.resources import to_units
from guactors.security.marks import group_mark

MOST_GROUPS = 10_000
"""Of one session at a time."""
LISTED = 2000
ENDED = "group_removed"


class GroupRules:
    """Works on ``desk``; every method takes what happened and leaves effects there."""

    def __init__(self, desk: Desk, leases: LeaseRules, actors: ActorRules) -> None:
        self._desk = desk
        self._leases = leases
        self._actors = actors
        self._news: dict[str, dict[str, Group]] = {}
        self.seize: Callable[[Group, float], bool] = lambda group, now: False
        """Sets the room of a reservation aside, on which others may still be."""

    # --- callers --------------------------------------------------------------------------------

    def heard(self, caller: Caller, message: m.Message, now: float) -> None:
        """Any message about groups."""
        match message:
            case m.CreateGroups():
                self.create(caller, message, now)
            case m.RemoveGroups():
                self.remove(caller, message, now)
            case m.WatchGroups():
                self.watch(caller, message)
            case m.FindGroup():
                self.find(caller, message)
            case m.AskGroups():
                self.listing(caller, message)

    def create(self, caller: Caller, message: m.CreateGroups, now: float) -> None:
        """New groups, or groups told again after a reconnect."""
        desk = self._desk
        for spec in message.groups:
            known = desk.groups.live.get(spec.group) or desk.groups.gone.get(spec.group)
            if known is not None and known.spec.principal == caller.principal:
                self._watch(known, caller)
                continue
            holder = desk.groups.named(spec.namespace, spec.name) if spec.name else None
            refusal = self._refusal(caller, spec)
            if holder is not None and not refusal:
                refusal = (
                    f"the name {spec.name!r} in namespace {spec.namespace!r} is taken by another "
                    "placement group: choose another, or get that one by its name"
                )
                if message.request:
                    desk.say(caller.peer, m.Fault("NameTaken", refusal, message.request))
                    return
            if refusal:
                update = m.GroupUpdate(spec.group, REMOVED, reason=refusal, kind="UsageError")
                desk.say(caller.peer, m.GroupsAre([update]))
                continue
            own = replace(spec, principal=caller.principal, python=caller.python)
            self._add(own, caller.who, now)
            self._watch(desk.groups.live[spec.group], caller)
        if message.request:
            desk.say(caller.peer, m.Done(message.request))

    def _refusal(self, caller: Caller, spec: m.GroupSpec) -> str:
        groups = self._desk.groups
        if (spec.session, spec.owner) != (caller.session, caller.peer) or not spec.session:
            return f"{caller.peer} cannot make {spec.group} in session {spec.session}: not its own"
        if spec.group.startswith(RESERVED):
            return f"{spec.group}: such ids are those of reservations"
        if spec.group in groups.live or spec.group in groups.gone:
            return f"{spec.group} is somebody else's"
        if spec.strategy not in STRATEGIES:
            return f"{spec.strategy!r} is no strategy; there are {', '.join(STRATEGIES)}"
        if size_of(spec) > LARGEST:
            return f"its description is larger than {LARGEST >> 10} KiB"
        if not spec.bundles or not all(to_units(bundle) for bundle in spec.bundles):
            return "it has no bundle, or one that asks for nothing"
        if len(groups.of_session(spec.session)) >= MOST_GROUPS:
            return f"the session has {MOST_GROUPS} placement groups already: remove some"
        return ""

    def _add(self, spec: m.GroupSpec, who: str, now: float) -> Group:
        desk = self._desk
        homes, labels = [*spec.homes], [*spec.labels]
        group = Group(replace(spec, homes=[]), desk.groups.number())
        for index, amounts in enumerate(spec.bundles):
            wanted = labels[index] if index < len(labels) else {}
            need = bundle_need(to_units(amounts), wanted, spec.python, who, spec.priority)
            home = homes[index] if index < len(homes) else ""
            group.bundles.append(Bundle(group, index, need, home=home))
        group.state = RESCHEDULING if any(homes) else PENDING
        desk.groups.add(group)
        desk.reopen(spec.session)
        desk.groups.wait(group)
        if group.state == RESCHEDULING:
            desk.agenda.put(max(now, desk.rejoined_at()), lambda _: desk.groups.look_again())
        return group

    def remove(self, caller: Caller, message: m.RemoveGroups, now: float) -> None:
        """Their makers, or who may see them, want them no more."""
        desk = self._desk
        for id in message.groups:
            group = desk.groups.live.get(id)
            if group is not None and group.reservation is None and sees(caller, group):
                self.end(group, f"it was removed by {caller.peer}")
            elif now < desk.rejoined_at():
                desk.groups.end_early(id, caller)
        self._look_up(caller, message.groups)
        if message.request:
            desk.say(caller.peer, m.Done(message.request))

    def watch(self, caller: Caller, message: m.WatchGroups) -> None:
        """Tell it now, and from now on."""
        self._look_up(caller, message.groups)

    def _look_up(self, caller: Caller, ids: list[str]) -> None:
        groups, unknown = self._desk.groups, []
        for id in ids:
            group = groups.live.get(id) or groups.gone.get(id)
            if group is None or not sees(caller, group):
                unknown.append(m.GroupUpdate(id, UNKNOWN, [], "unknown to this hub"))
            else:
                self._watch(group, caller)
        if unknown:
            self._desk.say(caller.peer, m.GroupsAre(unknown))

    def _watch(self, group: Group, caller: Caller) -> None:
        if group.state != REMOVED:
            self._desk.groups.watch(group, caller.peer)
        self._news.setdefault(caller.peer, {})[group.id] = group

    def find(self, caller: Caller, message: m.FindGroup) -> None:
        """The group of that name."""
        group = self._desk.groups.named(message.namespace, message.name)
        if group is not None and sees(caller, group):
            self._desk.say(caller.peer, m.GroupList(message.request, [group.row()]))
            return
        text = (
            f"no placement group is called {message.name!r} in namespace {message.namespace!r}: "
            "check both, and that its maker still runs or made it with lifetime='detached'"
        )
        self._desk.say(caller.peer, m.Fault("UsageError", text, message.request))

    def listing(self, caller: Caller, message: m.AskGroups) -> None:
        """Those that the caller may see."""
        groups = self._desk.groups
        if message.group:
            one = groups.live.get(message.group) or groups.gone.get(message.group)
            found = [one] if one is not None else []
        else:
            found = groups.listing(LISTED)
        rows = [group.row() for group in found if sees(caller, group)]
        self._desk.say(caller.peer, m.GroupList(message.request, rows))

    # --- placing --------------------------------------------------------------------------------

    def place(self, now: float) -> None:
        """Let those look for room for which something may have changed, the highest priority
        first."""
        groups = self._desk.groups
        for key in groups.in_turn(groups.waiting if self._desk.roomier else groups.fresh):
            fresh = key in groups.fresh
            if not fresh and not self._gained(key):
                continue
            while key in groups.waiting:
                group = next(iter(groups.waiting[key].values()))
                if not self._put(group, now):
                    groups.fresh.pop(key, None)
                    if fresh:
                        self._judge(key, now)
                    break

    def _gained(self, key: tuple[object, ...]) -> bool:
        """Whether a provider that has more room now has enough for one of the bundles."""
        group = next(iter(self._desk.groups.waiting[key].values()))
        if group.reservation is not None:
            return True  # it takes room on which others are
        roomier = self._desk.roomier.values()
        return any(
            slot.pool.fits(bundle.need.hold) and slot in self._desk.candidates(bundle.need)
            for bundle in group.unplaced()
            for slot in roomier
        )

    def _put(self, group: Group, now: float) -> bool:
        """Place all that is missing of the group, or nothing of it."""
        desk = self._desk
        if group.reservation is not None:
            if not self.seize(group, now):
                return False
            self._placed(group)
            return True
        young = now < desk.rejoined_at()
        for bundle in group.unplaced():
            self.go_home(bundle)
        missing = group.unplaced()
        if missing and not (young and any(bundle.home for bundle in missing)):
            found = self._arranged(group, missing, now)
            if found is None:
                group.blocked_since = now if group.blocked_since is None else group.blocked_since
                return False
            for bundle, slot in zip(missing, found, strict=True):
                set_aside(desk, bundle, slot)
        elif missing:
            return False
        self._placed(group)
        return True

    def _placed(self, group: Group) -> None:
        desk = self._desk
        desk.groups.settled(group)
        group.state, group.reason, group.kind, group.blocked_since = CREATED, "", "", None
        desk.demands.stir(group.id)
        self._tell(group)
        self._keep(group)

    def _arranged(self, group: Group, missing: list[Bundle], now: float) -> list[Slot] | None:
        desk = self._desk
        if not desk.allowance.group_within(group):
            return None
        wants = [Want(b.need.hold, desk.candidates(b.need)) for b in missing]
        if not all(want.slots for want in wants):
            return None
        return arrange(wants, group.spec.strategy, group.beside())

    def go_home(self, bundle: Bundle) -> None:
        """Where it was before the hub was replaced its room is still in use: it goes back there,
        fitting or not."""
        slot = self._desk.slots.get(bundle.home) if bundle.home else None
        if slot is None or not slot.offered or not feasible(slot, bundle.need):
            return
        seize(self._desk, bundle, slot)
        for lease in [self._desk.leases.by_id[x] for x in sorted(slot.leases)]:
            if lease.bundle is None and self._is_for(lease.need.wish, bundle):
                move_in(self._desk, lease, bundle)
        for record in [self._desk.actors.live[x] for x in sorted(slot.actors)]:
            if record.bundle is None and self._is_for(record.need.wish, bundle):
                move_in(self._desk, record, bundle)

    @staticmethod
    def _is_for(wish: object, bundle: Bundle) -> bool:
        group, index = getattr(wish, "group", ""), getattr(wish, "bundle", -1)
        return group == bundle.group.id and index in (-1, bundle.index)

    def _judge(self, key: tuple[object, ...], now: float) -> None:
        """Tell those that wait with this key, once, that no provider that is here could ever hold
        them; and, should one come that could, that there is hope again."""
        desk = self._desk
        line = list(desk.groups.waiting.get(key, {}).values())
        if not line or line[0].state != PENDING:
            return
        wants = [Want(b.need.hold, desk.candidates(b.need)) for b in line[0].bundles]
        kind = reason = ""
        if not all(want.slots for want in wants) or not arrange(
            wants, line[0].spec.strategy, free=free_ever
        ):
            coming = [slot.joined + SETTLING for slot in desk.coming.values()]
            later = max([desk.settled_at(), *coming])
            if later > now:
                desk.agenda.put(later, lambda then: self._judge(key, then))
                return
            kind, reason = self._why(line[0], wants, now)
        for group in line:
            if reason != group.reason:
                group.kind, group.reason = kind, reason
                self._tell(group)
            if kind == "PermissionDenied":
                self.end(group, reason, kind)

    def _why(self, group: Group, wants: list[Want], now: float) -> tuple[str, str]:
        """The name of the error, and its words."""
        desk = self._desk
        for bundle, want in zip(group.bundles, wants, strict=True):
            if want.slots:
                continue
            could = [slot for slot in desk.slots.values() if feasible(slot, bundle.need)]
            denied = desk.permission.explain(bundle.need, could, now)
            if denied is not None:
                return "PermissionDenied", f"bundle {bundle.index}: {denied.detail}"
            why = explain(desk.slots.values(), bundle.need)
            return "Unschedulable", f"bundle {bundle.index}: {why}"
        return "Unschedulable", (
            f"the providers could hold each of its {len(wants)} bundles, but not all of them as "
            f"{group.spec.strategy}"
        )

    # --- ends -----------------------------------------------------------------------------------

    def end(self, group: Group, reason: str, kind: str = "PlacementGroupRemoved") -> None:
        """It is gone for good, and what runs in it ends."""
        desk = self._desk
        death = m.DeathReport(ENDED, f"its placement group {group.id} is gone: {reason}"[:4000])
        peers = {slot.peer for slot in group.beside()}
        for bundle in group.bundles:
            for lease in [desk.leases.by_id[x] for x in sorted(bundle.leases)]:
                self._leases.revoke(lease, death)
            for record in [desk.actors.live[x] for x in sorted(bundle.actors)]:
                self._actors.finish(record, death)
            free_again(desk, bundle)
        for demand in desk.demands.waiting_inside(group.id):
            if demand.is_actor:
                self._actors.finish(desk.actors.live[demand.key], death)
            else:
                desk.bereft.append(demand)
        if group.kept:
            for peer in sorted(peers):
                desk.say(peer, m.DropGroups([group.id]))
        self.bury(group, reason, kind)

    def bury(self, group: Group, reason: str, kind: str = "PlacementGroupRemoved") -> None:
        """Nothing of it is in use any more."""
        group.state, group.reason, group.kind = REMOVED, reason, kind
        self._tell(group)
        self._desk.groups.bury(group)

    def provider_left(self, slot: Slot) -> None:
        """Its bundles are put elsewhere; the others stay where they are."""
        for bundle in list(slot.bundles):
            free_again(self._desk, bundle)
            group = bundle.group
            group.state = RESCHEDULING
            self._desk.groups.wait(group)
            self._tell(group)

    def session_over(self, session: str, reason: str) -> None:
        """What it made ends with it, but what is detached, or was made by an actor that lives."""
        for group in self._desk.groups.of_session(session):
            if not group.spec.detached and group.spec.actor not in self._desk.actors.live:
                self.end(group, f"its session is over: {reason}")

    def orphaned(self, now: float) -> None:
        """What an actor made outlives it as long as its session does."""
        desk = self._desk
        groups, desk.orphaned = desk.orphaned, []
        for group in groups:
            session = group.spec.session
            rooted = any(c.root and c.session == session for c in desk.callers.values())
            over = session in desk.ended_sessions or now >= desk.rejoined_at()
            if group.state != REMOVED and not group.spec.detached and over and not rooted:
                self.end(group, "the actor that made it has ended, and its session is over")

    def who_changed(self, who: str, now: float) -> None:
        """A principal may do other things than before: groups it may not have any more end."""
        desk = self._desk
        for group in [x for x in desk.groups if x.bundles[0].need.who == who]:
            for bundle in group.bundles:
                slot = bundle.slot
                if slot is not None and not desk.permission.permits(bundle.need, slot, now):
                    self.end(group, "its grant allows it no longer", "PermissionDenied")
                    break

    def caller_left(self, peer: str) -> None:
        """It asks no more."""
        self._desk.groups.forget(peer)
        self._news.pop(peer, None)

    # --- after a new hub ------------------------------------------------------------------------

    def kept_by(self, slot: Slot, specs: list[m.GroupSpec], now: float) -> None:
        """What a provider kept in mind for who may not come back."""
        desk = self._desk
        for spec in specs:
            mine = replace(spec, homes=[], seal=b"")
            sealed = spec.seal == group_mark(desk.mark, mine)
            group = desk.groups.live.get(spec.group)
            if not sealed or (group is None and spec.group in desk.groups.gone):
                desk.say(slot.peer, m.DropGroups([spec.group]))
            elif group is None:
                self._adopt(replace(spec, seal=b""), now)
            elif slot.peer not in group.homes() and group.state == CREATED:
                desk.say(slot.peer, m.DropGroups([spec.group]))

    def _adopt(self, spec: m.GroupSpec, now: float) -> None:
        group = self._add(spec, self._desk.who_is(spec.principal), now)
        group.kept = True
        if any(sees(caller, group) for caller in self._desk.groups.ended_early.pop(group.id, ())):
            self.end(group, "it was removed before it was known here")

    def _keep(self, group: Group) -> None:
        """Have its providers keep in mind what nobody else would tell a new hub."""
        if not group.spec.detached or group.reservation is not None:
            return
        group.kept = True
        seal = group_mark(self._desk.mark, group.spec)
        told = replace(group.spec, homes=group.homes(), seal=seal)
        for peer in sorted(set(group.homes())):
            self._desk.say(peer, m.KeepGroups([told]))

    # --- telling --------------------------------------------------------------------------------

    def _tell(self, group: Group) -> None:
        for peer in group.watchers:
            self._news.setdefault(peer, {})[group.id] = group

    def conclude(self) -> None:
        """Say all at once what has become of the groups since."""
        if not self._news:
            return
        news, self._news = self._news, {}
        for peer in sorted(news):
            if peer in self._desk.callers:
                updates = (group.update() for group in news[peer].values())
                for part in parts(updates, size_of_update):
                    self._desk.say(peer, m.GroupsAre(part))
