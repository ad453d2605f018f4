"""Pulling a value in chunks, over a network of the test that loses, damages, delays and stalls."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guactors.objects.pulling import (
    CHUNK,
    FAULTS,
    STALLED,
    WINDOW,
    Arrived,
    Ask,
    Effect,
    Lost,
    Pull,
    Spread,
)


class Network:
    """Answers in random order. ``faults``: per source, how often it sends rubbish (0 to 1);
    ``mute``: sources that never answer; ``mortal``: sources that are lost at some answer."""

    def __init__(self, pull: Pull, rng: random.Random) -> None:
        self.pull = pull
        self.rng = rng
        self.faults: dict[str, float] = {}
        self.mute: set[str] = set()
        self.mortal: dict[str, int] = {}
        self.flying: list[Ask] = []
        self.asked: list[Ask] = []
        self.written: list[int] = []
        self.end: Effect | None = None
        self.now = 0.0

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert self.end is None, "something after the end"
            if isinstance(effect, Ask):
                self.asked.append(effect)
                self.flying.append(effect)
            else:
                self.end = effect
        for source in {ask.source for ask in self.flying}:
            owed = [ask.index for ask in self.flying if ask.source == source]
            assert len(owed) == len(set(owed)) <= WINDOW

    def run(self) -> Effect:
        self.take(self.pull.start(self.now))
        for _ in range(100_000):
            if self.end is not None:
                return self.end
            able = [ask for ask in self.flying if ask.source not in self.mute]
            self.now += 0.1
            if not able:
                self.now += STALLED
                self.forget(self.pull.on_tick(self.now))
                continue
            self.answer(self.rng.choice(able))
        raise AssertionError("it never ends")

    def answer(self, ask: Ask) -> None:
        if self.mortal.get(ask.source) == 0:
            self.flying = [other for other in self.flying if other.source != ask.source]
            self.take(self.pull.on_lost(ask.source, "gone", self.now))
            return
        if ask.source in self.mortal:
            self.mortal[ask.source] -= 1
        self.flying.remove(ask)
        whole = self.rng.random() >= self.faults.get(ask.source, 0.0)
        if whole and self.pull.wants(ask.source, ask.index):
            self.written.append(ask.index)
        effects = self.pull.on_chunk(ask.source, ask.index, whole=whole, now=self.now)
        self.take(effects)

    def forget(self, effects: list[Effect]) -> None:
        """Sources that stalled are asked no more, so that what they owed counts no more."""
        self.flying = [ask for ask in self.flying if ask.source not in self.mute]
        self.take(effects)


def names(count: int) -> list[str]:
    return [f"m{i}" for i in range(count)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_it_arrives_once_as_long_as_one_source_is_good(data: st.DataObject) -> None:
    rng = data.draw(st.randoms(use_true_random=False))
    size = data.draw(st.integers(1, 40 * CHUNK))
    sources = names(data.draw(st.integers(1, 5)))
    spare = ["good"] if data.draw(st.booleans()) else []
    pull = Pull(size, sources if spare else [*sources, "good"], 0.0, spare)
    network = Network(pull, rng)
    for source in sources:
        kind = data.draw(st.sampled_from(["good", "faulty", "mute", "mortal"]))
        if kind == "faulty":
            network.faults[source] = data.draw(st.floats(0.1, 1))
        elif kind == "mute":
            network.mute.add(source)
        elif kind == "mortal":
            network.mortal[source] = data.draw(st.integers(0, 10))
    assert network.run() == Arrived()
    assert sorted(network.written) == list(range(pull.count))
    assert pull.missing == 0


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40 * CHUNK), st.integers(1, 4), st.randoms(use_true_random=False))
def test_without_a_good_source_it_is_lost_and_says_why(
    size: int, count: int, rng: random.Random
) -> None:
    network = Network(Pull(size, names(count), 0.0, ["spare"]), rng)
    network.mortal = dict.fromkeys(names(count), 0)
    network.faults = {"spare": 1.0}
    end = network.run()
    assert isinstance(end, Lost)
    assert set(end.reasons) == {*names(count), "spare"}
    assert "damaged" in end.reasons["spare"]


def test_spans_cover_the_value() -> None:
    pull = Pull(2 * CHUNK + 5, ["a"], 0.0)
    assert [pull.span(i) for i in range(pull.count)] == [
        (0, CHUNK),
        (CHUNK, CHUNK),
        (2 * CHUNK, 5),
    ]


def test_what_has_arrived_is_not_asked_for_again() -> None:
    pull = Pull(10 * CHUNK, ["a"], 0.0, ["b"])
    first = pull.start(0.0)
    assert first == [Ask("a", i) for i in range(WINDOW)]
    pull.on_chunk("a", 0, whole=True, now=1.0)
    pull.on_chunk("a", 1, whole=True, now=1.0)
    after = pull.on_lost("a", "gone", 2.0)
    assert {ask.index for ask in after if isinstance(ask, Ask)} == {2, 3, 4, 5}
    assert {ask.source for ask in after if isinstance(ask, Ask)} == {"b"}


def test_several_sources_share_the_work() -> None:
    network = Network(Pull(100 * CHUNK, names(4), 0.0), random.Random(1))
    assert network.run() == Arrived()
    for source in names(4):
        share = sum(ask.source == source for ask in network.asked)
        assert 10 <= share <= 50
    assert len(network.asked) < 100 + 4 * WINDOW


def test_a_damaged_chunk_is_asked_for_again_and_a_bad_source_is_left() -> None:
    pull = Pull(CHUNK, ["a"], 0.0)
    pull.start(0.0)
    for _ in range(FAULTS):
        assert pull.on_chunk("a", 0, whole=False, now=0.0) == [Ask("a", 0)]
    (end,) = pull.on_chunk("a", 0, whole=False, now=0.0)
    assert isinstance(end, Lost)


def test_chunks_that_nobody_asked_for_are_ignored() -> None:
    pull = Pull(3 * CHUNK, ["a"], 0.0)
    assert not pull.wants("a", 0)
    pull.start(0.0)
    assert pull.wants("a", 0)
    assert not pull.wants("b", 0)
    assert pull.on_chunk("b", 0, whole=True, now=0.0) == []
    assert pull.missing == 3
    assert not pull.has(0)


def test_a_source_that_waits_itself_is_waited_for() -> None:
    pull = Pull(CHUNK, ["a"], 0.0, ["b"])
    pull.start(0.0)
    assert pull.on_tick(STALLED - 1) == []
    assert pull.on_tick(STALLED) == [Ask("b", 0)]


# --- the tree ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100])
def test_nobody_feeds_more_than_two_while_all_receive(count: int) -> None:
    spread = Spread("m0")
    parents = {}
    for name in names(count)[1:]:
        (parent,), _ = spread.sources_for(name)
        parents[name] = parent
    fed = list(parents.values())
    assert all(fed.count(parent) <= Spread.FAN for parent in fed)

    def depth(name: str) -> int:
        return 0 if name == "m0" else 1 + depth(parents[name])

    assert all(depth(name) <= count.bit_length() for name in names(count))


def test_who_has_it_asks_nobody_and_helps_the_next() -> None:
    spread = Spread("m0")
    spread.sources_for("m1")
    spread.on_whole("m1")
    assert spread.sources_for("m1") == ([], [])
    assert spread.sources_for("m2") == (["m0", "m1"], [])


def test_a_lost_machine_is_nobodys_source() -> None:
    spread = Spread("m0")
    for name in names(5)[1:]:
        spread.sources_for(name)
    spread.on_whole("m1")
    assert spread.on_lost("m0")
    asked, spares = spread.sources_for("m3")
    assert "m0" not in asked + spares
    assert not spread.on_lost("m1")


def test_the_origin_can_be_asked_for_it_back() -> None:
    spread = Spread("m0")
    spread.sources_for("m1")
    spread.on_whole("m1")
    spread.on_lost("m0")
    assert spread.sources_for("m0") == (["m1"], [])
