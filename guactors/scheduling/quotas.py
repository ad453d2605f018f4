"""How much a session lets itself have at a time.

Owns: the bounds that sessions were given when they began, and how many tasks and actors those run.
Must never: know what a principal may (``permission`` does), or what waits.

What waits in ``get`` and what stands still takes no processor and is no task that runs: so a call
inside a call finds room under any bound, and the bound is passed for a while when both run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Final, NamedTuple

from guactors.scheduling.placement import Bound, Need
from guactors.scheduling.resources import STEP, to_units
from guactors.scheduling.shares import ShareBook

if TYPE_CHECKING:
    from guactors.scheduling.actors import ActorRecord
    from guactors.scheduling.leases import Lease

TASKS: Final = "tasks"
ACTORS: Final = "actors"
COUNTED: Final = (TASKS, ACTORS)
"""Names in a quota that are no resources."""


class Excess(NamedTuple):
    """A bound that would be passed, in steps."""

    name: str
    asked: int
    used: int
    bound: int

    def __str__(self) -> str:
        return (
            f"asked {self.asked / STEP:g} {self.name}, its session uses {self.used / STEP:g} of "
            f"the {self.bound / STEP:g} of its quota"
        )


class Quotas:
    """Of sessions; what they use of resources is in ``shares``."""

    def __init__(self, shares: ShareBook) -> None:
        self._shares = shares
        self._bounds: dict[str, dict[str, int]] = {}
        self._counts: dict[str, dict[str, int]] = {}
        self._planned: dict[str, dict[str, int]] = {}
        """Taken in a dry run only."""

    def __contains__(self, session: str) -> bool:
        return session in self._bounds

    def bind(self, session: str, quota: Mapping[str, float], counts: Mapping[str, int]) -> None:
        """From now on; empty for none. ``counts``: the tasks and actors of it that run."""
        self.forget(session)
        if quota:
            units = dict(to_units(quota))
            self._bounds[session] = {name: units.get(name, 0) for name in quota}
            self._counts[session] = dict(counts)

    def forget(self, session: str) -> None:
        """It has none."""
        self._bounds.pop(session, None)
        self._counts.pop(session, None)

    def of(self, session: str) -> dict[str, float]:
        """As it was given."""
        return {name: bound / STEP for name, bound in self._bounds.get(session, {}).items()}

    def bound(self, session: str, kind: str) -> Bound | None:
        """For the need of a task or actor of the session."""
        return Bound(session, kind) if session in self._bounds else None

    def count(self, session: str, kind: str, more: int) -> None:
        """So many more of its tasks or actors run."""
        counts = self._counts.get(session)
        if counts is not None:
            counts[kind] = counts.get(kind, 0) + more

    def take(self, need: Need) -> None:
        """In a dry run."""
        if need.bound is not None:
            planned = self._planned.setdefault(need.bound.session, {})
            for name, amount in _asked(need):
                planned[name] = planned.get(name, 0) + amount

    def sketch(self) -> Quotas:
        """A copy for a dry run."""
        made = copy(self)
        made._planned = {}
        return made

    def excess(self, need: Need) -> Excess | None:
        """The first bound that would be passed if this were had beside what there is."""
        if need.bound is None:
            return None
        return self._excess(need.bound.session, _asked(need))

    def excess_of(self, session: str, needs: list[Need]) -> Excess | None:
        """As ``excess``, of all bundles of a placement group."""
        if session not in self._bounds:
            return None
        asked: dict[str, int] = {}
        for need in needs:
            for name, amount in need.hold:
                asked[name] = asked.get(name, 0) + amount
        return self._excess(session, list(asked.items()))

    def never(self, need: Need) -> Excess | None:
        """The bound that this passes alone."""
        if need.bound is None:
            return None
        bounds = self._bounds.get(need.bound.session, {})
        for name, amount in _asked(need):
            if name in bounds and amount > bounds[name]:
                return Excess(name, amount, 0, bounds[name])
        return None

    def _excess(self, session: str, asked: list[tuple[str, int]]) -> Excess | None:
        bounds = self._bounds.get(session, {})
        planned = self._planned.get(session, {})
        for name, amount in asked:
            bound = bounds.get(name)
            if bound is not None:
                used = self._used(session, name) + planned.get(name, 0)
                if used + amount > bound:
                    return Excess(name, amount, used, bound)
        return None

    def _used(self, session: str, name: str) -> int:
        if name in COUNTED:
            return self._counts.get(session, {}).get(name, 0) * STEP
        return self._shares.used(session).get(name, 0)

    def check(self, session: str, counts: Mapping[str, int]) -> None:
        """The counts are these."""
        known = self._counts.get(session, counts)
        for kind in COUNTED:
            assert known.get(kind, 0) == counts[kind], f"{session} runs {counts}, counted: {known}"


def count_running(leases: Iterable[Lease], actors: Iterable[ActorRecord]) -> dict[str, int]:
    """Counted anew, of all of one session."""
    return {
        TASKS: sum(not lease.idle for lease in leases),
        ACTORS: sum(record.slot is not None for record in actors),
    }


def _asked(need: Need) -> list[tuple[str, int]]:
    """What one more takes; inside a placement group the room is its own already."""
    assert need.bound is not None
    asked = [] if need.wish.group else list(need.hold)
    return [*asked, (need.bound.kind, STEP)]
