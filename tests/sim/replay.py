"""Running seeds: one with its story, or many with the stories of those that fail.

Owns: what a failure looks like. Must never: hide one.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable

from guactors.caller.core import CallerCore
from tests.sim.world import World

LAST_LINES = 150


def story(world: World, error: BaseException, most: int = LAST_LINES) -> str:
    """Why a seed failed, what it looked like, and how to see it again."""
    trace = "".join(traceback.format_exception(error)[-3:])
    flow = "\n".join(world.flow.lines(most))
    keyed = "" if world.keys is None else " --keys"
    return (
        f"seed {world.seed} failed at {world.clock.now - 1000:.4f} s "
        f"(replay: python -m tests.sim {world.seed}{keyed})\n{flow}\n{trace}"
    )


def fails(
    seed: int, caller_core: Callable[..., CallerCore] = CallerCore, *, keyed: bool = False
) -> str:
    """Run one seed; its story if it failed, else an empty text."""
    world = World(seed, caller_core, keyed=keyed)
    try:
        world.run()
    except Exception as error:  # noqa: BLE001 - whatever a core raises is the seed's failure
        return story(world, error)
    return ""


def failures(seeds: Iterable[int], *, keyed: bool = False) -> list[str]:
    """The stories of those that fail."""
    return [text for seed in seeds if (text := fails(seed, keyed=keyed))]


def replay(seed: int, *, loud: bool = False, keyed: bool = False) -> int:
    """Run one seed and print all of it, heartbeats where ``loud``; the exit status."""
    world = World(seed, keyed=keyed)
    world.flow.loud = loud
    try:
        world.run()
    except Exception as error:  # noqa: BLE001 - as above
        print("\n".join(world.flow.lines()))
        print("".join(traceback.format_exception(error)))
        return 1
    print("\n".join(world.flow.lines()))
    took = world.clock.now - 1000
    print(f"seed {seed}: well, {world.clock.events} events in {took:.1f} s of its time")
    return 0
