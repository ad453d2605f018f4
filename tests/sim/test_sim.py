"""Ten thousand seeds: whatever breaks, nobody is left hanging and nothing runs that must not. And
two thousand more in which everybody has a key, and a grant is revoked and given again.

The seeds are run in a few processes; a seed that fails prints itself and the flow of its messages,
and ``python -m tests.sim SEED`` plays it again.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from functools import partial
from multiprocessing.pool import Pool

import pytest

from tests.sim.replay import failures

SEEDS = 10_000
KEYED_SEEDS = 2000
PER_TEST = 1000
PER_TURN = 25
SHOWN = 3


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """One process a core; started afresh, so that no seed depends on what pytest has imported."""
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
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
    turns = [range(at, at + PER_TURN) for at in range(first, first + PER_TEST, PER_TURN)]
    told = pool.imap_unordered(partial(failures, keyed=keyed), turns)
    stories = [story for stories in told for story in stories]
    assert not stories, f"{len(stories)} seeds failed\n" + "\n\n".join(stories[:SHOWN])
