"""What goes wrong, and when: drawn in advance from the seed.

Owns: the kinds of faults. Must never: do what a real network or a real ``kill`` could not.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from guactors.errors import Death

if TYPE_CHECKING:
    from tests.sim.world import World

Fault = Callable[["World"], None]


def plan(rng: Random, count: int, span: float) -> list[tuple[float, Fault]]:
    """``count`` faults with their times, in order."""
    times = sorted(rng.random() * span for _ in range(count))
    return [(time, rng.choices(_MAKERS, _WEIGHTS)[0](rng)) for time in times]


def _kill_hub(rng: Random) -> Fault:
    away = rng.choice((0.0, 0.05, 0.5, 3.0, 12.0))
    polite = rng.random() < 0.3

    def fault(world: World) -> None:
        if world.hub is not None:
            world.end_hub(polite=polite)
            world.later(away, world.start_hub)

    return fault


def _kill_provider(rng: Random) -> Fault:
    pick, away = rng.random(), rng.choice((0.05, 0.5, 3.0))
    polite, back, same = rng.random() < 0.2, rng.random() < 0.8, rng.random() < 0.5

    def fault(world: World) -> None:
        provider = world.pick(world.living_providers(), pick)
        if provider is None:
            return
        world.note(f"FAULT: provider {provider.peer} ends")
        if polite:
            provider.stop()
        else:
            provider.kill()
        if back:
            world.later(away, lambda: world.restart_provider(provider, same=same))

    return fault


def _power_off(rng: Random) -> Fault:
    pick = rng.random()

    def fault(world: World) -> None:
        provider = world.pick(world.living_providers(), pick)
        if provider is not None:
            world.note(f"FAULT: power of {provider.name} is off")
            provider.power_off()

    return fault


def _kill_worker(rng: Random) -> Fault:
    pick, cause = rng.random(), rng.choice((Death("signal", signal=9), Death("out_of_memory")))

    def fault(world: World) -> None:
        busy = [w for w in world.workers.values() if w.running]
        worker = world.pick(busy or list(world.workers.values()), pick)
        if worker is not None:
            world.note(f"FAULT: worker {worker.id} is killed")
            worker.vanish(cause)

    return fault


def _kill_caller(rng: Random) -> Fault:
    pick, polite = rng.random(), rng.random() < 0.3

    def fault(world: World) -> None:
        driver = world.pick(world.living_drivers(), pick)
        if driver is not None:
            world.note(f"FAULT: caller {driver.caller.peer} ends")
            world.end_caller(driver, polite=polite)

    return fault


def _snap_link(rng: Random) -> Fault:
    pick = rng.random()

    def fault(world: World) -> None:
        link = world.pick(list(world.network.links.values()), pick)
        if link is not None:
            end = link.listener.party.process if link.listener is not None else "?"
            world.note(f"FAULT: link {link.key} of {link.party.process} to {end} breaks")
            world.network.snap(link)

    return fault


def _partition(rng: Random) -> Fault:
    picks = rng.random(), rng.random()
    seconds = rng.choice((0.2, 1.0, 4.0, 13.0)) if rng.random() < 0.97 else 45.0
    broken = rng.random() < 0.5

    def fault(world: World) -> None:
        one = world.pick(world.hosts(), picks[0])
        other = world.pick([host for host in world.hosts() if host != one], picks[1])
        if one is None or other is None:
            return
        world.note(f"FAULT: nothing passes between {one} and {other} for {seconds} s")
        world.network.cut(one, other)
        world.later(seconds, lambda: world.heal(one, other, broken=broken))

    return fault


def _slow_way(rng: Random) -> Fault:
    picks = rng.random(), rng.random()
    seconds, factor = rng.choice((1.0, 5.0)), rng.choice((5.0, 50.0))

    def fault(world: World) -> None:
        one, other = (world.pick(world.hosts(), pick) for pick in picks)
        if one is None or other is None:
            return
        way = frozenset((one, other))
        world.note(f"FAULT: the way between {one} and {other} is {factor:g} times as long")
        world.network.slow[way] = factor
        world.later(seconds, lambda: world.network.slow.pop(way, None))

    return fault


_KINDS: list[tuple[Callable[[Random], Fault], int]] = [
    (_kill_worker, 6),
    (_snap_link, 6),
    (_kill_hub, 4),
    (_partition, 4),
    (_kill_provider, 3),
    (_slow_way, 3),
    (_kill_caller, 1),
    (_power_off, 1),
]
_MAKERS = [maker for maker, _ in _KINDS]
_WEIGHTS = [weight for _, weight in _KINDS]
