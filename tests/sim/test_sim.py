"""Ten thousand seeds: whatever breaks, nobody is left hanging and nothing runs that must not.

The seeds are run in a few processes; a seed that fails prints itself and the flow of its messages,
and ``python -m tests.sim SEED`` plays it again.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.pool import Pool

import pytest

from tests.sim.replay import failures

SEEDS = 10_000
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
    turns = [range(at, at + PER_TURN) for at in range(first, first + PER_TEST, PER_TURN)]
    stories = [story for told in pool.imap_unordered(failures, turns) for story in told]
    assert not stories, f"{len(stories)} seeds failed\n" + "\n\n".join(stories[:SHOWN])
