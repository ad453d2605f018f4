"""Seven thousand seeds: whatever breaks, nobody is left hanging and nothing runs that must not. And
two thousand more in which everybody has a key, and a grant is revoked and given again.

The seeds are run in a few processes; a seed that fails prints itself and the flow of its messages,
and ``python -m tests.sim SEED`` plays it again. ``python -m tests.sim FIRST END`` runs more.
"""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.pool import Pool

import pytest

from tests.sim.order import Tally
from tests.sim.replay import crew, stories

SEEDS = 7000
KEYED_SEEDS = 2000
PER_TEST = 1000
SHOWN = 3
LEAST_CYCLES = {False: 50, True: 5}
"""Each thousand seeds: something gave way, and went on or ended."""
LEAST_RIPE = 50
"""Each thousand seeds: something that had aged as far as it can was served."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with crew() as pool:
        yield pool
        pool.close()
        pool.join()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_seeds(pool: Pool, first: int) -> None:
    run(pool, first, keyed=False)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, KEYED_SEEDS, PER_TEST))
def test_seeds_with_keys(pool: Pool, first: int) -> None:
    run(pool, first, keyed=True)


def run(pool: Pool, first: int, *, keyed: bool) -> None:
    tally = Tally()
    found = list(stories(pool, range(first, first + PER_TEST), keyed=keyed, tally=tally))
    assert not found, f"{len(found)} seeds failed\n" + "\n\n".join(found[:SHOWN])
    assert tally.cycles >= LEAST_CYCLES[keyed], f"preemption is hardly tested: {tally}"
    assert tally.ripe >= LEAST_RIPE, f"aging is hardly tested: {tally}"
