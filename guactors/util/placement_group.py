"""Placement groups, with Ray's names: room that is set aside on providers, all of it or none.

::

    from guactors.util.placement_group import placement_group, remove_placement_group
    from guactors.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="SPREAD")
    gu.get(group.ready())
    f.options(scheduling_strategy=PlacementGroupSchedulingStrategy(group)).remote()
    remove_placement_group(group)

Owns: the user's view of a group. Must never: know how it is placed. Groups are made and removed in
batches: the messages of many leave together, at the latest when somebody waits for one of them.
"""

from __future__ import annotations

import pickle
import sys
import time
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from guactors.assigned import assigned
from guactors.context import runtime_context
from guactors.errors import (
    HubUnreachable,
    NoSuchGroup,
    NotInitialized,
    UnknownOption,
    UsageError,
)
from guactors.group_sizes import LARGEST, MOST_BUNDLES, size_of
from guactors.ids import fresh
from guactors.messages import (
    AskGroups,
    CreateGroups,
    FindGroup,
    GroupList,
    GroupRow,
    GroupSpec,
    Message,
    RemoveGroups,
)
from guactors.placing import is_selector
from guactors.refs import ObjectRef, current_session

if TYPE_CHECKING:
    from guactors.caller.groups import RemoteGroup
    from guactors.session import Session

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
LEAST = 0.0001
"""The step in which amounts are counted."""
ASK_AGAIN = 2.0
ANSWERED_WITHIN = 60.0
"""Seconds."""


class GroupId(str):
    """The id of a group, a text; ``hex()`` is for programs written for Ray."""

    __slots__ = ()

    def hex(self) -> str:
        """The id."""
        return str(self)


class PlacementGroup:
    """A handle. It can be passed to other processes; the group ends with the session that made it,
    or when it is removed, not with its handles."""

    def __init__(self, id: str, bundles: Sequence[Mapping[str, float]] | None) -> None:
        self._id = str(id)
        self._bundles = None if bundles is None else [dict(bundle) for bundle in bundles]
        self._group: RemoteGroup | None = None

    @property
    def id(self) -> GroupId:
        """Its name in the grid."""
        return GroupId(self._id)

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """What each bundle holds."""
        if self._bundles is None:
            rows = _ask(_need_session("bundle_specs"), lambda request: AskGroups(request, self._id))
            if not rows.groups:
                raise NoSuchGroup(f"placement group {self._id} is unknown to the hub")
            self._bundles = [dict(bundle) for bundle in rows.groups[0].spec.bundles]
        return self._bundles

    @property
    def bundle_count(self) -> int:
        """How many bundles there are."""
        return len(self.bundle_specs)

    def ready(self) -> ObjectRef:
        """A ref that is there when all of its room is: ``get`` of it returns this group. It fails
        with PlacementGroupRemoved, with PermissionDenied, or with Unschedulable, where no provider
        that is here could hold the group and none comes for a while."""
        session, group = self._met()
        with session.lock:
            id = session.core.groups.when_ready(group, pickle.dumps(self, 5))
        session.pump.kick()
        return ObjectRef(id, session)

    def wait(self, timeout_seconds: float | None = 30) -> bool:
        """Whether all of its room is there, at the latest after so many seconds."""
        session, group = self._met()
        if group.state != "created":
            session.pump.wait(lambda: group.state in ("created", "removed"), timeout_seconds)
        return group.state == "created"

    def _met(self) -> tuple[Session, RemoteGroup]:
        session = _need_session("a placement group")
        if self._group is None:
            with session.lock:
                self._group = session.core.groups.watch(self._id)
        return session, self._group

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self._id, self._bundles)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and other._id == self._id

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"<PlacementGroup {self._id} {self._bundles}>"


def placement_group(
    bundles: list[dict[str, float]],
    strategy: str = "PACK",
    name: str = "",
    lifetime: str | None = None,
    *,
    bundle_label_selector: list[dict[str, str]] | None = None,
    priority: int = 0,
) -> PlacementGroup:
    """Set room aside for each of ``bundles``, as PACK (few providers), SPREAD (many), STRICT_PACK
    (one) or STRICT_SPREAD (each on its own) says. Returns at once, see ``ready`` and ``wait``.

    ``name``: by which ``get_placement_group`` finds it in this namespace; ``lifetime="detached"``:
    it outlives its session, until it is removed; ``bundle_label_selector``: labels of each bundle's
    provider; ``priority``: of groups that wait, the bigger goes first. Raises UnknownOption (a
    ValueError), NameTaken (a ValueError)."""
    from guactors.api import auto_init

    checked = _bundles(bundles)
    labels = _labels(bundle_label_selector, len(checked))
    if strategy not in STRATEGIES:
        raise UnknownOption(f"strategy={strategy!r}: there are {', '.join(STRATEGIES)}")
    if lifetime not in (None, "detached"):
        raise UnknownOption(f"lifetime={lifetime!r}: it takes None or 'detached'")
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) >= 2**31:
        raise UnknownOption(f"priority={priority!r}: it takes an integer, bigger goes first")
    if not isinstance(name, str) or len(name) > 256:
        raise UnknownOption(f"name={name!r}: it takes a text of at most 256 characters")
    session = auto_init()
    if session.refused is not None:
        raise type(session.refused)(str(session.refused))
    spec = GroupSpec(
        fresh("group"), session.id, session.peer, checked, strategy, name,
        session.namespace if name else "", lifetime == "detached", labels,
        runtime_context().get_actor_id() or "", priority=priority,
    )  # fmt: skip
    if size_of(spec) > LARGEST:
        raise UnknownOption(f"the bundles and their labels are larger than {LARGEST >> 10} KiB")
    made = PlacementGroup(spec.group, checked)
    # Of one that others may find, or that outlives us, the hub must have taken note.
    sure = bool(name) or spec.detached
    if sure:
        _say_rest(session)
        _ask(session, lambda request: CreateGroups([spec], request))
    with session.lock:
        made._group = session.core.groups.create(spec, told=sure)
    session.pump.kick()
    return made


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """End it, and soon all that runs in it: tasks fail with PlacementGroupRemoved, actors die."""
    if not isinstance(placement_group, PlacementGroup):
        raise TypeError(f"it takes a placement group, not {type(placement_group).__name__}")
    session = _need_session("remove_placement_group()")
    known = placement_group._group
    with session.lock:
        session.core.groups.remove(placement_group._id)
    session.pump.kick()
    if known is None or known.spec is None or known.spec.detached:
        # Nobody would remove it if this process ended now.
        _say_rest(session)
        _ask(session, lambda request: RemoveGroups([placement_group._id], request))


def get_placement_group(placement_group_name: str) -> PlacementGroup:
    """The live group of that name in this namespace. Raises NoSuchGroup (a ValueError)."""
    from guactors.api import auto_init

    if not placement_group_name:
        raise NoSuchGroup("get_placement_group() needs the name of a placement group")
    session = auto_init()
    _say_rest(session)
    try:
        found: GroupList = _ask(
            session, lambda request: FindGroup(request, placement_group_name, session.namespace)
        )
    except UsageError as error:
        raise NoSuchGroup(str(error)) from None
    spec = found.groups[0].spec
    return PlacementGroup(spec.group, spec.bundles)


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """One group, or all that may be seen by their ids: name, bundles, where they are, strategy,
    state."""
    session = _need_session("placement_group_table()")
    _say_rest(session)
    wanted = "" if placement_group is None else placement_group._id
    found: GroupList = _ask(session, lambda request: AskGroups(request, wanted))
    rows = {row.spec.group: _row(row) for row in found.groups}
    return rows if placement_group is None else rows.get(wanted, {})


def get_current_placement_group() -> PlacementGroup | None:
    """The group that this task or actor runs in, None outside."""
    group = assigned().group
    return PlacementGroup(group, None) if group else None


def _row(row: GroupRow) -> dict[str, Any]:
    spec, update = row.spec, row.update
    return {
        "placement_group_id": spec.group,
        "name": spec.name,
        "bundles": dict(enumerate(dict(bundle) for bundle in spec.bundles)),
        "bundles_to_node_id": {i: peer for i, peer in enumerate(update.providers) if peer},
        "strategy": spec.strategy,
        "state": update.state.upper(),
        "is_detached": spec.detached,
        "creator": spec.owner,
        "reason": update.reason,
    }


def _ask(session: Session, question: Callable[[int], Message]) -> Any:
    """The hub's answer. A question that a dying hub took along is asked again: each of them may be
    asked twice."""
    deadline = time.monotonic() + ANSWERED_WITHIN
    while True:
        try:
            return session.ask(question, timeout=ASK_AGAIN)
        except HubUnreachable:
            if session.closed or time.monotonic() > deadline:
                raise


def _say_rest(session: Session) -> None:
    """What waits to be said goes first."""
    with session.lock:
        session.core.flush()
        session.after_core()


def _need_session(what: str) -> Session:
    session = current_session()
    if session is None or session.closed:
        raise NotInitialized(f"{what} needs a grid: call init() first")
    return session


def _bundles(given: Any) -> list[dict[str, float]]:
    if not isinstance(given, list) or not given:
        raise UnknownOption(f"bundles={given!r}: it takes a list of one or more dicts")
    if len(given) > MOST_BUNDLES:
        raise UnknownOption(f"{len(given)} bundles are too many, {MOST_BUNDLES} are the most")
    return [_bundle(one) for one in given]


def _bundle(given: Any) -> dict[str, float]:
    if not isinstance(given, Mapping):
        raise UnknownOption(f"the bundle {given!r} is no dict of resources")
    found = {}
    for name, amount in given.items():
        known = isinstance(name, str) and 0 < len(name) <= 256
        number = isinstance(amount, int | float) and not isinstance(amount, bool)
        if not (known and number and 0 <= amount <= 1e15):
            raise UnknownOption(f"the bundle {given!r}: {name!r}: {amount!r} is no amount")
        if name == "GPU" and amount > 1 and amount != int(amount):
            raise UnknownOption(f"the bundle {given!r}: above 1, GPU takes whole numbers")
        found[name] = float(amount)
    if not any(amount >= LEAST / 2 for amount in found.values()):
        raise UnknownOption(f"the bundle {given!r} asks for nothing")
    return found


def _labels(given: Any, count: int) -> list[dict[str, str]]:
    if not given:
        return []
    if not isinstance(given, list) or len(given) != count or not all(map(is_selector, given)):
        raise UnknownOption(f"bundle_label_selector={given!r}: it takes {count} dicts of labels")
    return [dict(one) for one in given]


class _Callable(types.ModuleType):
    """Ray has the function and the module under one name, ``util.placement_group``."""

    def __call__(self, *args: Any, **kwargs: Any) -> PlacementGroup:
        return placement_group(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
