"""Delays between tries: they double, they are bounded, they differ."""

from __future__ import annotations

import random

import pytest

from guactors.transport.backoff import Backoff


def test_ceilings_double_up_to_the_most() -> None:
    backoff = Backoff(0.05, 1.0, lambda: 1.0)
    assert [round(backoff.next(), 3) for _ in range(7)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_reset_begins_anew() -> None:
    backoff = Backoff(0.05, 1.0, lambda: 0.0)
    assert [backoff.next(), backoff.next()] == [0.025, 0.05]
    backoff.reset()
    assert backoff.next() == 0.025


def test_jitter_spreads_over_the_upper_half() -> None:
    rng = random.Random(7)
    delays = [Backoff(1.0, 8.0, rng.random).next() for _ in range(500)]
    assert 0.5 <= min(delays) < 0.55
    assert 0.95 < max(delays) < 1.0


@pytest.mark.parametrize(("first", "most"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_bounds_that_make_no_sense(first: float, most: float) -> None:
    with pytest.raises(ValueError, match="0 < first <= most"):
        Backoff(first, most, random.random)
