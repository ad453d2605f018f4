"""Whether to look again and again before sleeping."""

from __future__ import annotations

from guactors.caller.spinning import EXPLORE, Spinning

MOST = 0.0002


def wait(spinning: Spinning, count: int, *, spun: float, slept: float) -> float:
    """So many waits, which take that long in either way; the share of those that looked."""
    looked = 0
    for _ in range(count):
        looks = spinning.choose()
        looked += looks
        spinning.learn(spun if looks else slept, spun=looks)
    return looked / count


def test_looking_where_it_is_quicker() -> None:
    assert wait(Spinning(MOST), 1000, spun=100e-6, slept=150e-6) > 0.9


def test_sleeping_where_looking_keeps_the_answer_from_coming() -> None:
    assert wait(Spinning(MOST), 1000, spun=240e-6, slept=60e-6) < 0.1


def test_what_is_quicker_may_change() -> None:
    spinning = Spinning(MOST)
    wait(spinning, 500, spun=100e-6, slept=150e-6)
    wait(spinning, 20 * EXPLORE, spun=240e-6, slept=60e-6)
    assert wait(spinning, 500, spun=240e-6, slept=60e-6) < 0.1
    wait(spinning, 20 * EXPLORE, spun=100e-6, slept=150e-6)
    assert wait(spinning, 500, spun=100e-6, slept=150e-6) > 0.9


def test_answers_that_take_long_are_slept_for() -> None:
    spinning = Spinning(MOST)
    wait(spinning, 500, spun=100e-6, slept=150e-6)
    wait(spinning, 10, spun=0.1, slept=0.1)
    assert wait(spinning, 500, spun=0.1, slept=0.1) == 0.0


def test_a_few_quick_answers_after_a_slow_one_count_again() -> None:
    spinning = Spinning(MOST)
    wait(spinning, 500, spun=100e-6, slept=150e-6)
    spinning.learn(2.0, spun=True)
    assert not spinning.choose()
    for _ in range(12):
        spinning.learn(150e-6, spun=False)
    assert wait(spinning, 10, spun=100e-6, slept=150e-6) > 0.8


def test_never() -> None:
    assert wait(Spinning(0.0), 100, spun=0.0, slept=100e-6) == 0.0
