"""What is on each provider, as those see it who want to be near to it, or apart from it.

Owns: the count of that, and where it has changed. Must never: judge it (``company`` does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations

from guactors.scheduling.company import in_the_way
from guactors.scheduling.placement import Need, Slot
from guactors.scheduling.standing import Tenant


class Neighbours:
    """Keeps ``Slot.company``."""

    def __init__(self) -> None:
        self.altered: dict[Slot, None] = {}
        """Providers where somebody has come or gone, until somebody has taken note."""

    def came(self, tenant: Tenant) -> None:
        """It has its place now."""
        if tenant.need.company is not None:
            self._count(tenant, 1)

    def left(self, tenant: Tenant) -> None:
        """It loses its place; called while it still has it."""
        if tenant.need.company is not None:
            self._count(tenant, -1)

    def _count(self, tenant: Tenant, change: int) -> None:
        if tenant.slot is not None:
            keep_company(tenant.slot, tenant.need, change)
            self.altered[tenant.slot] = None


def keep_company(slot: Slot, need: Need, change: int) -> None:
    """Something of this need has come to the provider, or has gone."""
    if need.company is not None:
        key = need.who, need.company
        slot.company[key] = slot.company.get(key, 0) + change
        if not slot.company[key]:
            del slot.company[key]


def check_company(slot: Slot, tenants: Iterable[Tenant]) -> None:
    """Just what is there is counted, and no two are where they may not be together."""
    found = Counter((x.need.who, x.need.company) for x in tenants if x.need.company is not None)
    assert slot.company == found, f"{slot!r} has {found}, and counts {slot.company}"
    for (who, one), (other_who, other) in combinations(found.elements(), 2):
        assert who != other_who or not in_the_way(one, other), f"{slot!r} has {one} with {other}"
