"""Fetching an image: whatever the sources do, it ends, and ends right (``transfer_state.py``)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guactors.images.transfer_state import (
    ANSWER_WITHIN,
    MISTAKES,
    PATIENCE,
    Ask,
    Done,
    Download,
    Drop,
    Effect,
    Failed,
    Flights,
    Write,
)
from tests.unit.images.making import manifest_of

A, B = "a" * 64, "b" * 64
DATA = b"chunk"


def download(
    count: int = 4, sources: Iterable[str] = ("one", "two"), window: int = 2, **options: float
) -> Download:
    return Download(manifest_of(), {A: range(count)}, sources, window, **options)


def asks(effects: Iterable[Effect]) -> list[tuple[str, int]]:
    return [(one.source, one.index) for one in effects if isinstance(one, Ask)]


def reason(effects: list[Effect]) -> str:
    """Why it failed, which it must have, and nothing is to be done after that."""
    assert isinstance(effects[-1], Failed), effects
    assert not asks(effects)
    return effects[-1].reason


def deliver(it: Download, source: str, index: int, now: float = 0.0) -> list[Effect]:
    """A right chunk arrives and is written."""
    assert it.on_chunk(source, A, index, DATA, now) == [Write(source, A, index, DATA)]
    return it.on_written(A, index, now)


def test_all_sources_are_asked_up_to_the_window() -> None:
    it = download(count=6)
    assert asks(it.begin(0)) == [("one", 0), ("two", 1), ("one", 2), ("two", 3)]
    assert asks(deliver(it, "two", 1)) == [("two", 4)]
    assert asks(deliver(it, "two", 3)) == [("two", 5)]
    assert asks(deliver(it, "one", 0)) == []
    it.check()
    assert deliver(it, "two", 4) == deliver(it, "two", 5) == []
    assert it.written == (5, 6)
    assert deliver(it, "one", 2) == [Done()]
    assert it.ended
    assert it.wake_at is None


def test_several_blobs() -> None:
    it = Download(manifest_of(), {A: [1], B: [0, 2]}, ["one"], 9)
    assert it.begin(0) == [Ask("one", A, 1), Ask("one", B, 0), Ask("one", B, 2)]


def test_nothing_missing() -> None:
    assert download(count=0, sources=()).begin(0) == [Done()]


def test_no_source() -> None:
    assert "no source is left for chunk 0" in reason(download(sources=()).begin(0))


def test_what_is_being_written_counts_for_the_window() -> None:
    it = download(count=4, sources=["one"], window=2)
    it.begin(0)
    it.on_chunk("one", A, 0, DATA, 0)
    it.on_chunk("one", A, 1, DATA, 0)
    it.check()
    assert asks(it.on_tick(1)) == []
    assert asks(it.on_written(A, 0, 1)) == [("one", 2)]


def test_a_lying_source_is_dropped_for_good() -> None:
    it = download(count=6)
    it.begin(0)
    it.on_chunk("one", A, 0, b"lie", 0)
    effects = it.on_wrong(A, 0, 0)
    assert effects == [Drop("one", f"sent a wrong chunk 0 of the blob {A}")]
    assert asks(deliver(it, "two", 1)) == [("two", 2)]
    assert it.on_source("one", 0) == []
    assert it.on_chunk("one", A, 2, DATA, 0) == []
    assert asks(deliver(it, "two", 3)) == [("two", 0)]
    it.check()


def test_only_liars() -> None:
    it = download(count=1)
    it.begin(0)
    it.on_chunk("one", A, 0, b"lie", 0)
    assert asks(it.on_wrong(A, 0, 0)) == [("two", 0)]
    it.on_chunk("two", A, 0, b"lie", 0)
    said = reason(it.on_wrong(A, 0, 0))
    assert "one sent a wrong chunk" in said
    assert "two sent a wrong chunk" in said
    assert it.on_source("three", 0) == []


def test_a_liar_that_left_before_it_was_found_out_is_not_welcome_again() -> None:
    it = download(count=2, sources=["one", "two"], window=1)
    it.begin(0)
    it.on_chunk("one", A, 0, b"lie", 0)
    it.on_source_lost("one", 0)
    it.on_wrong(A, 0, 0)
    assert it.on_source("one", 0) == []
    it.check()


def test_a_lost_source_is_replaced_and_may_return() -> None:
    it = download(count=4, window=1)
    it.begin(0)
    assert it.on_source_lost("one", 0) == [Drop("one", "was lost")]
    assert it.on_source_lost("one", 0) == []
    assert asks(it.on_source("one", 0)) == [("one", 0)]
    assert it.on_source("one", 0) == []
    it.check()


def test_all_sources_lost() -> None:
    it = download()
    it.begin(0)
    deliver(it, "one", 0)
    it.on_source_lost("one", 0)
    said = reason(it.on_source_lost("two", 0))
    assert "one was lost; two was lost; 1 of 4 chunks are here" in said


def test_what_is_written_when_the_last_source_goes_still_counts() -> None:
    it = download(count=1, sources=["one"])
    it.begin(0)
    it.on_chunk("one", A, 0, DATA, 0)
    assert it.on_source_lost("one", 0) == [Drop("one", "was lost")]
    assert it.on_written(A, 0, 0) == [Done()]


def test_a_source_is_not_asked_again_for_what_it_does_not_have() -> None:
    it = download(count=2, window=2)
    assert asks(it.begin(0)) == [("one", 0), ("two", 1)]
    assert asks(it.on_refused("one", A, 0, 0)) == [("two", 0)]
    assert it.on_refused("one", A, 0, 0) == []
    it.check()
    assert "no source is left for chunk 0" in reason(it.on_refused("two", A, 0, 0))


def test_a_late_chunk_is_asked_of_another() -> None:
    it = download(count=2, window=1)
    it.begin(0)
    deliver(it, "two", 1, 1.0)
    assert it.wake_at == ANSWER_WITHIN
    assert it.on_tick(ANSWER_WITHIN - 1) == []
    assert asks(it.on_tick(ANSWER_WITHIN)) == [("two", 0)]
    assert it.on_chunk("one", A, 0, DATA, ANSWER_WITHIN) == [], "it is asked of another by now"
    it.check()


def test_each_answer_gives_the_next_chunk_its_time() -> None:
    it = download(count=3, sources=["one"], window=3)
    it.begin(0)
    deliver(it, "one", 0, 50.0)
    assert it.on_tick(ANSWER_WITHIN + 10) == []
    assert it.wake_at == 50 + ANSWER_WITHIN


def test_a_silent_source_is_asked_again_with_care_and_then_dropped() -> None:
    it = download(count=4, sources=["one"], window=4)
    assert len(asks(it.begin(0))) == 4
    assert asks(it.on_tick(ANSWER_WITHIN)) == [("one", 0)]
    assert asks(it.on_tick(2 * ANSWER_WITHIN)) == [("one", 0)]
    assert it.on_tick(2.5 * ANSWER_WITHIN) == []
    said = reason(it.on_tick(3 * ANSWER_WITHIN))
    assert f"one did not answer {MISTAKES} times in a row" in said


def test_a_source_that_recovers_gets_its_window_back() -> None:
    it = download(count=6, sources=["one"], window=3)
    it.begin(0)
    it.on_tick(ANSWER_WITHIN)
    assert asks(deliver(it, "one", 0, 70)) == [("one", 1), ("one", 2), ("one", 3)]


def test_a_late_chunk_that_nobody_else_was_asked_for_is_taken() -> None:
    it = download(count=2, sources=["one"], window=2)
    it.begin(0)
    assert asks(it.on_tick(ANSWER_WITHIN)) == [("one", 0)]
    assert it.on_chunk("one", A, 1, DATA, 61) == [Write("one", A, 1, DATA)]
    it.check()
    assert it.on_chunk("one", A, 1, DATA, 61) == []
    assert it.on_written(A, 1, 62) == []
    assert deliver(it, "one", 0, 63) == [Done()]


def test_without_progress_it_gives_up() -> None:
    it = download(sources=["one"], answer_within=10 * PATIENCE)
    it.begin(0)
    assert it.wake_at == PATIENCE
    assert "no chunk arrived for 300 s" in reason(it.on_tick(PATIENCE))
    assert it.on_tick(2 * PATIENCE) == []


def test_a_writer_that_never_reports_does_not_hang_it() -> None:
    it = download(count=1, sources=["one"])
    it.begin(0)
    it.on_chunk("one", A, 0, DATA, 0)
    assert it.wake_at == PATIENCE
    reason(it.on_tick(PATIENCE))


def test_a_full_disk_ends_it() -> None:
    it = download()
    it.begin(0)
    it.on_chunk("one", A, 0, DATA, 0)
    assert "does not fit" in reason(it.on_failed("the disk: it does not fit", 0))
    assert it.on_failed("again", 0) == []
    assert it.on_written(A, 0, 0) == []


@pytest.mark.parametrize(
    "event",
    [
        lambda it: it.on_chunk("one", A, 1, DATA, 0),  # asked of the other
        lambda it: it.on_chunk("one", A, 99, DATA, 0),
        lambda it: it.on_chunk("one", B, 0, DATA, 0),
        lambda it: it.on_chunk("nobody", A, 0, DATA, 0),
        lambda it: it.on_refused("two", A, 0, 0),
        lambda it: it.on_refused("nobody", A, 0, 0),
        lambda it: it.on_written(A, 0, 0),
        lambda it: it.on_wrong(A, 0, 0),
        lambda it: it.on_source_lost("nobody", 0),
    ],
)
def test_what_was_not_asked_for_changes_nothing(event) -> None:  # type: ignore[no-untyped-def]
    it = download(count=2, window=1)
    it.begin(0)
    before = repr(it)
    assert event(it) == []
    assert repr(it) == before
    it.check()


# Whatever happens.

BEHAVIOURS = ("honest", "lies", "silent", "lossy", "refuses", "leaves", "slow", "picky")


class World:
    """Sources of given behaviours, a writer, and a clock; every effect has its consequence."""

    def __init__(
        self, count: int, behaviours: list[str], window: int, seed: int, returns: bool
    ) -> None:
        self.rng = random.Random(seed)
        self.behaviour = {f"s{i}": kind for i, kind in enumerate(behaviours)}
        self.it = Download(
            manifest_of(), {A: range(count), B: range(count // 2)}, self.behaviour, window
        )
        self.window = window
        self.returns = returns
        self.now = 0.0
        self.inbox: list[Effect] = []
        self.written: Counter[tuple[str, int]] = Counter()
        self.wrong: Counter[str] = Counter()
        self.end: Effect | None = None
        self.steps = 0

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert self.end is None, f"{effect} after {self.end}"
            if isinstance(effect, Done | Failed):
                self.end = effect
            elif not isinstance(effect, Drop) or (self.returns and self.rng.random() < 0.5):
                self.inbox.append(effect)
        self.it.check()

    def run(self) -> Effect:
        self.take(self.it.begin(self.now))
        while self.end is None:
            self.steps += 1
            assert self.steps < 5000, f"it goes on for ever: {self.it}"
            under_way = sum(isinstance(one, Write) for one in self.inbox)
            assert under_way <= self.window * len(self.behaviour) * 2
            if self.inbox and self.rng.random() < 0.8:
                effect = self.inbox.pop(self.rng.randrange(len(self.inbox)))
                self.take(self.answer(effect))
            else:
                wake_at = self.it.wake_at
                assert wake_at is not None
                self.now = max(self.now, wake_at if not self.inbox else self.now + 1)
                self.take(self.it.on_tick(self.now))
        return self.end

    def answer(self, effect: Effect) -> list[Effect]:
        it, now = self.it, self.now
        match effect:
            case Write(source, blob, index, data):
                if data != DATA:
                    self.wrong[source] += 1
                    return it.on_wrong(blob, index, now)
                self.written[blob, index] += 1
                return it.on_written(blob, index, now)
            case Drop(source):
                return it.on_source(source, now)
            case Ask(source, blob, index):
                return self.ask(source, blob, index)
        raise AssertionError(effect)

    def ask(self, source: str, blob: str, index: int) -> list[Effect]:
        it, now = self.it, self.now
        kind, chance = self.behaviour[source], self.rng.random()
        if kind == "silent" or (kind == "lossy" and chance < 0.3):
            return []
        if kind == "refuses" or (kind == "picky" and (index + len(source)) % 2):
            return it.on_refused(source, blob, index, now)
        if kind == "leaves" and chance < 0.3:
            return it.on_source_lost(source, now)
        if kind == "slow":
            self.now += ANSWER_WITHIN * 0.9
        lie = kind == "lies" and chance < 0.5
        return it.on_chunk(source, blob, index, b"lie" if lie else DATA, self.now)


@given(
    st.integers(0, 12),
    st.lists(st.sampled_from(BEHAVIOURS), max_size=5),
    st.integers(1, 4),
    st.integers(0, 2**32),
    st.booleans(),
)
@settings(max_examples=500, deadline=None)
def test_it_always_ends(
    count: int, behaviours: list[str], window: int, seed: int, returns: bool
) -> None:
    world = World(count, behaviours, window, seed, returns)
    end = world.run()
    total = count + count // 2
    if isinstance(end, Done):
        assert set(world.written.values()) <= {1}, "written twice"
        assert len(world.written) == total
    else:
        assert total
    assert all(count <= 2 * window for count in world.wrong.values()), "a liar was believed"
    if "honest" in behaviours and "slow" not in behaviours:  # who keeps all others waiting, too
        assert isinstance(end, Done), "one honest source is enough"


def test_flights() -> None:
    flights: Flights[str] = Flights()
    assert flights.join("i", "a")
    assert not flights.join("i", "b")
    assert not flights.join("i", "b")
    assert flights.join("j", "a")
    assert not flights.leave("i", "a")
    assert not flights.leave("i", "a")
    assert flights.finish("i") == ["b"]
    assert flights.finish("i") == []
    assert flights.leave("j", "a")
    assert not len(flights)
    assert flights.join("j", "c"), "it begins anew"
