"""Placement groups as this process made or met them: what it waits for, and what it tells the hub.

Owns: the batches in which groups are made and removed, and who waits for a group to be ready. Must
never: choose a provider (the hub does).
"""

from __future__ import annotations

from msgspec.structs import replace

from guactors import errors
from guactors.caller.effects import SendHub
from guactors.caller.objects import ObjectTable
from guactors.errors import GuactorsError, PlacementGroupRemoved, Unschedulable
from guactors.group_sizes import parts, size_of
from guactors.messages import (
    CreateGroups,
    GroupSpec,
    GroupUpdate,
    RemoveGroups,
    WatchGroups,
)

CREATED, REMOVED, UNKNOWN = "created", "removed", "unknown"


class RemoteGroup:
    """One group as this process knows it. ``spec`` is None where another process made it; ``state``
    as in GroupUpdate; ``known``: a hub has said so; ``waiting``: objects that wait for it, each
    with the value it then gets."""

    __slots__ = (
        "hopeless_since", "id", "kind", "known", "providers", "reason", "spec", "state", "waiting",
    )  # fmt: skip

    def __init__(self, id: str, spec: GroupSpec | None) -> None:
        self.id = id
        self.spec = spec
        self.state = "pending"
        self.providers: list[str] = []
        self.reason = ""
        self.kind = ""
        self.known = False
        self.hopeless_since = 0.0
        self.waiting: list[tuple[int, bytes]] = []

    def __repr__(self) -> str:
        return f"<RemoteGroup {self.id} {self.state} {self.providers}>"


class GroupBook:
    """All groups this process has made or watches. ``patience``: seconds for which a group that no
    provider could hold waits for one that could."""

    def __init__(self, objects: ObjectTable, patience: float) -> None:
        self.groups: dict[str, RemoteGroup] = {}
        self.news = False
        """Something has changed since the shell looked."""
        self._objects = objects
        self._patience = patience
        self._to_create: list[GroupSpec] = []
        self._to_remove: list[str] = []
        self._to_watch: list[str] = []
        self._leaving: dict[str, None] = {}
        """Removed here, and the hub has not said yet that it knows."""
        self._hopeless: dict[str, RemoteGroup] = {}

    # --- what the user asks ---------------------------------------------------------------------

    def create(self, spec: GroupSpec, *, told: bool = False) -> RemoteGroup:
        """A new one; ``told``: the hub has it already."""
        group = self.groups[spec.group] = RemoteGroup(spec.group, spec)
        if told:
            self._to_watch.append(spec.group)
        else:
            self._to_create.append(spec)
        return group

    def watch(self, id: str) -> RemoteGroup:
        """One that another process made."""
        group = self.groups.get(id)
        if group is None:
            group = self.groups[id] = RemoteGroup(id, None)
            if id in self._leaving:
                self._end(group, "it was removed", PlacementGroupRemoved.__name__)
            else:
                self._to_watch.append(id)
        return group

    def remove(self, id: str) -> None:
        """The group is wanted no more."""
        group = self.groups.get(id)
        self._leaving[id] = None
        self._to_remove.append(id)
        if group is not None:
            self._end(group, "it was removed by this process", PlacementGroupRemoved.__name__)

    def when_ready(self, group: RemoteGroup, data: bytes) -> int:
        """An object that gets the value ``data`` as soon as the group has its room."""
        id = self._objects.new_one()
        if group.state == CREATED:
            self._objects.settle(id, data)
        elif group.state == REMOVED:
            self._objects.fail(id, self.error(group))
        else:
            group.waiting.append((id, data))
        return id

    # --- the hub --------------------------------------------------------------------------------

    @property
    def unsaid(self) -> bool:
        """Whether ``flush`` has something to say."""
        return bool(self._to_create or self._to_remove or self._to_watch)

    def flush(self) -> None:
        """Say all at once what was asked since."""
        effects = self._objects.effects
        created, self._to_create = self._to_create, []
        removed, self._to_remove = self._to_remove, []
        watched, self._to_watch = self._to_watch, []
        effects += [SendHub(CreateGroups(part)) for part in parts(created, size_of)]
        effects += [SendHub(WatchGroups(part)) for part in parts(watched, len)]
        effects += [SendHub(RemoveGroups(part)) for part in parts(removed, len)]

    def told_again(self) -> list[SendHub]:
        """For a hub that may know nothing: the groups that no hub has acknowledged, those that it
        will tell of if it knows them, and the ends that it may not have heard of."""
        self._to_create, self._to_remove, self._to_watch = [], [], []
        own: list[GroupSpec] = []
        others: list[str] = []
        for group in self.groups.values():
            if group.state == REMOVED:
                continue
            if group.spec is None or group.known:
                others.append(group.id)
            else:
                own.append(_at(group.spec, group.providers))
        effects = [SendHub(CreateGroups(part)) for part in parts(own, size_of)]
        effects += [SendHub(WatchGroups(part)) for part in parts(others, len)]
        effects += [SendHub(RemoveGroups(part)) for part in parts(self._leaving, len)]
        return effects

    def on_updates(self, updates: list[GroupUpdate], now: float) -> None:
        """The hub's word on some of them."""
        for update in updates:
            group = self.groups.get(update.group)
            if update.state in (REMOVED, UNKNOWN):
                self._leaving.pop(update.group, None)
            if group is not None and group.state != REMOVED:
                self._on_update(group, update, now)
                self.news = True

    def _on_update(self, group: RemoteGroup, update: GroupUpdate, now: float) -> None:
        if update.state == UNKNOWN and group.spec is not None:
            # A hub that took the place of the one that knew it.
            group.known = False
            self._to_create.append(_at(group.spec, group.providers))
            return
        if update.state in (REMOVED, UNKNOWN):
            self._end(group, update.reason, update.kind)
            return
        group.known = True
        group.state, group.providers = update.state, update.providers
        group.reason, group.kind = update.reason, update.kind
        self._hopeless.pop(group.id, None)
        if update.state == CREATED:
            waiting, group.waiting = group.waiting, []
            for id, data in waiting:
                self._objects.settle(id, data)
        elif update.reason:
            group.hopeless_since = now
            self._hopeless[group.id] = group

    def _end(self, group: RemoteGroup, reason: str, kind: str) -> None:
        group.state, group.reason, group.kind = REMOVED, reason, kind
        self._hopeless.pop(group.id, None)
        self.groups.pop(group.id, None)
        self._fail(group)

    def _fail(self, group: RemoteGroup) -> None:
        waiting, group.waiting = group.waiting, []
        for id, _ in waiting:
            self._objects.fail(id, self.error(group))

    @staticmethod
    def error(group: RemoteGroup) -> GuactorsError:
        """Why it is not, or will not be, there."""
        kind = getattr(errors, group.kind, PlacementGroupRemoved)
        if not issubclass(kind, GuactorsError):
            kind = PlacementGroupRemoved
        text = f"placement group {group.id}: {group.reason or 'it is gone'}"
        error: GuactorsError = kind(text)
        return error

    # --- time -----------------------------------------------------------------------------------

    def on_tick(self, now: float) -> None:
        """Whoever waits for a group that nobody could hold is told so after a while; the group
        itself goes on waiting for a provider that could."""
        for group in list(self._hopeless.values()):
            if now - group.hopeless_since >= self._patience:
                del self._hopeless[group.id]
                group.kind = Unschedulable.__name__
                self._fail(group)

    def next_wake(self) -> float | None:
        """When the next one is given up."""
        times = (group.hopeless_since + self._patience for group in self._hopeless.values())
        return min(times, default=None)

    def check(self) -> None:
        """Nobody waits for what is there or gone."""
        for group in self.groups.values():
            assert group.state != REMOVED, group
            assert not (group.waiting and group.state == CREATED), group


def _at(spec: GroupSpec, homes: list[str]) -> GroupSpec:
    if not any(homes):
        return spec
    return replace(spec, homes=homes)
