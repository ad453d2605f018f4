"""``python -m tests.sim SEED [--all] [--keys]``: replay one seed and print its flow, with
``--keys`` its grid of keys. ``python -m tests.sim FIRST END [--keys]``: run all seeds of a range;
the tests run the first few thousand. The stories of those that fail are printed, and in the end how
often something gave way, and how far what had aged was beyond the bound."""

from __future__ import annotations

import sys

from tests.sim.order import Tally
from tests.sim.replay import crew, replay, stories


def run(first: int, end: int, *, keyed: bool) -> int:
    """All of these; the exit status."""
    count, tally = 0, Tally()
    with crew() as pool:
        for story in stories(pool, range(first, end), keyed=keyed, tally=tally):
            count += 1
            print(story, flush=True)
    print(f"{count} of {end - first} seeds failed")
    print(
        f"{tally.settled} calls settled, {tally.runs} runs; {tally.cycles} preemption cycles: "
        f"{tally.suspended} suspended, {tally.resumed} resumed, {tally.requeued} requeued, "
        f"{tally.stopped} stopped; {tally.aged} starts after aging, {tally.ripe} of them at the "
        f"bound, the latest {tally.overdue:.3f} s beyond it"
    )
    return 1 if count else 0


if __name__ == "__main__":
    keyed = "--keys" in sys.argv
    seeds = [int(word) for word in sys.argv[1:] if not word.startswith("--")]
    if len(seeds) == 2:
        sys.exit(run(*seeds, keyed=keyed))
    sys.exit(replay(seeds[0], loud="--all" in sys.argv, keyed=keyed))
