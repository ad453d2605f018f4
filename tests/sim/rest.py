"""When all is quiet: what may still be there, and what may not.

Owns: the invariants of a grid at rest and of an empty one. Must never: change anything.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from guactors.caller.lookout import OUTCOMES, Lookout
from guactors.provider_state.workers import Hosting, Leased, Preparing
from guactors.scheduling.groups import REMOVED
from guactors.scheduling.resources import LIGHT

if TYPE_CHECKING:
    from tests.sim.caller import SimCaller
    from tests.sim.provider import SimProvider
    from tests.sim.world import World


def unrest(world: World) -> list[str]:
    """What keeps the grid busy although nobody wants anything: no call is pending, no reference and
    no handle is held."""
    found = []
    for driver in world.living_drivers():
        core = driver.caller.core
        if not driver.caller.hub.up:
            found.append(f"{driver.caller.peer} has no line to the hub")
        if core.objects.entries:
            found.append(f"{driver.caller.peer} keeps {list(core.objects.entries.values())}")
        if core.objects.lends():
            found.append(f"{driver.caller.peer} still lends")
        if core.leases.by_id:
            found.append(f"{driver.caller.peer} holds {list(core.leases.by_id)}")
        alive = [a for a in core.actors.actors.values() if a.state != "dead"]
        if alive:
            found.append(f"{driver.caller.peer} has {alive}")
        found += [f"{driver.caller.peer} doubts {x}" for x in core.doubts]
        found += [
            f"{driver.caller.peer} wants {d.told} of {d.key}"
            for d in core.leases.demands.values()
            if d.told
        ]
        found += _miscounted(driver.caller)
    found += world.memory.left(set(world.workers))
    found += _hub(world)
    for provider in world.living_providers():
        found += _provider(provider)
    for worker in world.workers.values():
        if worker.running:
            found.append(f"{worker.id} runs {[r.program.uid for r in worker.running]}")
    return found


def _miscounted(caller: SimCaller) -> list[str]:
    """Calls that those who look inside would see twice, or not at all."""
    summary = Lookout(caller.core, caller.session)._summary(0.0)
    ended = len(OUTCOMES)
    counted = sum(sum(row[-ended:]) for row in summary.rows)  # type: ignore[arg-type]
    under_way = sum(sum(row[2:-ended]) for row in summary.rows)  # type: ignore[arg-type]
    if (counted, under_way) == (caller.submitted, 0):
        return []
    return [f"{caller.peer} counts {counted} of {caller.submitted} calls, {under_way} under way"]


def _hub(world: World) -> list[str]:
    if world.hub is None:
        return ["there is no hub"]
    desk = world.hub.core.scheduler.desk
    found = [f"the hub has lease {lease.id} of {lease.caller}" for lease in desk.leases]
    found += [f"the hub has actor {actor.id} {actor.state}" for actor in desk.actors]
    found += [f"the hub has demand {d.key} of {d.caller}" for d in desk.demands if d.waiting]
    for slot in desk.slots.values():
        used = Counter(slot.pool.used)
        for bundle in slot.bundles:
            used.subtract(dict(bundle.need.hold))
        used = {name: n for name, n in used.items() if n and name != LIGHT}
        if used or not slot.up:
            found.append(f"the hub thinks that {slot!r} has {used} taken")
    found += _groups(world)
    missing = {p.peer for p in world.living_providers()} - desk.slots.keys()
    found += [f"the hub misses {peer}" for peer in missing]
    return found


def _groups(world: World) -> list[str]:
    """Groups that nobody who is there has made, and that were not made to stay."""
    assert world.hub is not None
    wanted = {x.id for d in world.living_drivers() for x in d.groups.made if x.state != REMOVED}
    wanted |= {id for driver in world.drivers for id in driver.groups.detached}
    live = world.hub.core.scheduler.desk.groups.live
    found = [f"the hub has {group}" for id, group in live.items() if id not in wanted]
    for driver in world.living_drivers():
        mine = (x for x in driver.groups.made if x.state != REMOVED)
        found += [f"the hub lost {group}" for group in mine if group.id not in live]
    return found


def _provider(provider: SimProvider) -> list[str]:
    pool = provider.core._pool
    gate = provider.core._orders.gate
    found = [f"{provider.peer} has {key} waiting" for key in (*pool.pending, *gate.waiting)]
    for worker in pool.workers.values():
        if isinstance(worker.state, Preparing | Leased | Hosting):
            found.append(f"{provider.peer} has {worker.worker} at {worker.state}"[:200])
    return found


def leftovers(world: World) -> list[str]:
    """What is left of sessions that are over: nothing may be."""
    found = unrest(world)
    assert world.hub is None or not world.living_drivers()
    if world.hub is not None:
        core = world.hub.core
        found += [f"the hub has session {session}" for session in core.sessions]
        found += [f"the hub knows {p!r}" for p in core.hub.peers if p.role == "caller"]
        found += [f"the hub knows {x}" for x in core.scheduler.desk.callers]
    for worker in world.workers.values():
        if worker.session_id:
            found.append(f"{worker.id} lives on for session {worker.session_id}")
    for provider in world.living_providers():
        known = provider.core._pool.workers.keys()
        found += [
            f"{w} runs and its provider does not know" for w in provider.workers.keys() - known
        ]
        found += [f"{w} is gone and has a directory" for w in provider.roots - known]
    return found
