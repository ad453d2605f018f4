"""What is on a provider adds up to what is taken of it.

Owns: this invariant. Must never: change anything.
"""

from __future__ import annotations

from collections.abc import Collection

from guactors.scheduling.placement import Slot
from guactors.scheduling.standing import Tenant


def check_sums(slot: Slot, tenants: Collection[Tenant]) -> None:
    """Of the provider and of each bundle on it; ``tenants``: all that is there."""
    for pool, inside in ((slot.pool, None), *((bundle.pool, bundle) for bundle in slot.bundles)):
        used: dict[str, int] = {}
        holdings = [tenant.taken() for tenant in tenants if tenant.bundle is inside]
        if inside is None:
            holdings += [bundle.need.hold for bundle in slot.bundles]
        for units in holdings:
            for name, amount in units:
                used[name] = used.get(name, 0) + amount
        taken = {name: amount for name, amount in pool.used.items() if amount}
        where = inside or slot
        assert taken == used, f"{where!r} has {taken} taken, its holdings sum to {used}"
    assert slot.forced or not slot.pool.overbooked(), f"{slot!r} was given too much"
    for bundle in slot.bundles:
        assert bundle.slot is slot, f"{bundle} is not on {slot!r}"
        assert bundle.forced or not bundle.pool.overbooked(), f"{bundle} holds too much"
