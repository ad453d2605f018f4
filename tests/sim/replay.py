"""Running seeds: one with its story, or many with the stories of those that fail.

Owns: what a failure looks like. Must never: hide one.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing.pool import Pool

from guactors.caller.core import CallerCore
from tests.sim.order import Tally
from tests.sim.world import World

LAST_LINES = 150
PER_TURN = 25
"""Seeds that a process of the crew takes at a time."""


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
    seed: int,
    caller_core: Callable[..., CallerCore] = CallerCore,
    *,
    keyed: bool = False,
    tally: Tally | None = None,
) -> str:
    """Run one seed; its story if it failed, else an empty text. What happened is added to
    ``tally``."""
    world = World(seed, caller_core, keyed=keyed)
    try:
        world.run()
    except Exception as error:  # noqa: BLE001 - whatever a core raises is the seed's failure
        return story(world, error)
    finally:
        if tally is not None:
            tally.add(world.tally)
    return ""


def failures(seeds: Iterable[int], *, keyed: bool = False) -> list[str]:
    """The stories of those that fail."""
    return outcome(seeds, keyed=keyed)[0]


def outcome(seeds: Iterable[int], *, keyed: bool = False) -> tuple[list[str], Tally]:
    """The stories of those that fail, and what happened in all of them."""
    tally = Tally()
    found = [fails(seed, keyed=keyed, tally=tally) for seed in seeds]
    return [text for text in found if text], tally


def crew() -> Pool:
    """One process a core; started afresh, so that no seed depends on what pytest has imported."""
    return multiprocessing.get_context("spawn").Pool(os.cpu_count())


def stories(pool: Pool, seeds: range, *, keyed: bool, tally: Tally | None = None) -> Iterator[str]:
    """Of those of ``seeds`` that fail, as they do. What happened is added to ``tally``."""
    turns = [seeds[at : at + PER_TURN] for at in range(0, len(seeds), PER_TURN)]
    for found, happened in pool.imap_unordered(partial(outcome, keyed=keyed), turns):
        if tally is not None:
            tally.add(happened)
        yield from found


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
