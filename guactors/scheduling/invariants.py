"""What holds between the books of the scheduler after every event.

Owns: these assertions. Must never: run but in tests, or mend anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guactors.scheduling.leases import LeaseState
from guactors.scheduling.neighbours import check_company
from guactors.scheduling.sums import check_sums

if TYPE_CHECKING:
    from guactors.scheduling.desk import Desk
    from guactors.scheduling.resources import Units


def check(desk: Desk) -> None:
    """Everything agrees with everything else."""
    desk.demands.check()
    desk.leases.check()
    desk.actors.check()
    desk.groups.check()
    desk.index.check(desk.now)
    desk.lines.check(desk.now)
    assert desk.coming == {k: slot for k, slot in desk.slots.items() if not slot.offered}
    for slot in desk.slots.values():
        leases = [desk.leases.by_id[x] for x in slot.leases]
        actors = [desk.actors.live[x] for x in slot.actors]
        check_sums(slot, [*leases, *actors])
        check_company(slot, [*leases, *actors])
        for bundle in slot.bundles:
            assert desk.groups.live.get(bundle.group.id) is bundle.group, f"{bundle} leaked"
    desk.demands.shares.check(_use(desk))
    for session in desk.namespaces:
        desk.quotas.check(session, desk.allowance.running(session))
    desk.standing.check([*desk.leases, *desk.actors])
    desk.seats.check([*desk.leases, *desk.actors], desk.index.kinds(desk.now))
    for lease in desk.leases:
        assert desk.slots.get(lease.slot.peer) is lease.slot, f"{lease.id} is on a lost provider"
        demand = desk.demands.find(lease.caller, lease.key)
        assert demand is None or lease.id in demand.held
        waits = lease.state is LeaseState.UNCLAIMED
        assert waits or lease.caller in desk.callers, f"{lease.id} of a lost caller"
    for demand in desk.demands:
        if not demand.is_actor:
            assert demand.caller in desk.callers, f"{demand} of a lost caller"
            assert demand.held <= desk.leases.by_id.keys()


def _use(desk: Desk) -> dict[str, dict[str, int]]:
    """What each session takes of providers, summed up anew."""
    found: dict[str, dict[str, int]] = {}
    for lease in desk.leases:
        if lease.bundle is None:
            _add(found.setdefault(lease.session, {}), lease.taken())
    for record in desk.actors:
        if record.bundle is None and record.slot is not None:
            _add(found.setdefault(record.spec.session, {}), record.taken())
    for slot in desk.slots.values():
        for bundle in slot.bundles:
            _add(found.setdefault(bundle.group.spec.session, {}), bundle.need.hold)
    return {session: used for session, used in found.items() if used}


def _add(sums: dict[str, int], units: Units) -> None:
    for name, amount in units:
        sums[name] = sums.get(name, 0) + amount
