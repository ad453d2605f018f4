"""Tokens, budget, crowd, pace, rates: bookkeeping without a clock or a socket."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from guactors.web import bearers, rates
from guactors.web.bearers import Bearer, Bearers
from guactors.web.budget import Budget, Hold
from guactors.web.crowd import Crowd
from guactors.web.pace import Pace, Phase
from guactors.web.rates import Rates
from guactors.web.settings import Limits

# --- tokens -------------------------------------------------------------------------------------


def test_a_token_is_its_bearers_while_it_is_good() -> None:
    book = Bearers()
    book.gave("t", "gu_app_a", 10.0)
    assert book.find("t", 9.9) == Bearer("t", "gu_app_a")
    assert book.find("u", 9.9) is None
    assert book.find("t", 10.0) is None
    assert book.find("t", 9.9) is None, "what is old does not come back"


def test_a_dropped_token_is_good_no_more() -> None:
    book = Bearers()
    book.gave("t", "gu_app_a", 10.0)
    book.drop("t")
    book.drop("t")
    assert book.find("t", 0.0) is None


def test_tokens_are_shown_nowhere() -> None:
    book = Bearers()
    book.gave("gu_token_secret", "gu_app_a", 10.0)
    assert "gu_token_secret" not in repr(book) + repr(vars(book))
    assert "gu_token_secret" not in repr(book.find("gu_token_secret", 0.0))


def test_the_oldest_token_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bearers, "MOST", 2)
    book = Bearers()
    for text in "abc":
        book.gave(text, "k", 10.0)
    assert [book.find(text, 0.0) is not None for text in "abc"] == [False, True, True]


# --- budget -------------------------------------------------------------------------------------


def test_one_holder_cannot_take_all() -> None:
    budget = Budget(100, 60)
    assert budget.take("a", 60)
    assert not budget.take("a", 1)
    assert budget.take("b", 40)
    assert not budget.take("b", 1), "all of it is taken"
    budget.give("a", 60)
    assert budget.take("b", 20)
    budget.check()


def test_a_hold_gives_back_what_it_took() -> None:
    budget = Budget(100, 60)
    hold = Hold(budget)
    assert hold.take("a", 30)
    assert hold.take("a", 30)
    assert not hold.take("a", 1)
    hold.release()
    hold.release()
    assert budget.take("a", 60)
    budget.check()


# --- crowd --------------------------------------------------------------------------------------


def test_a_newcomer_takes_the_place_of_who_asked_nothing_for_longest() -> None:
    crowd: Crowd[int] = Crowd(100, 3)
    assert [crowd.enter(key, "a") for key in (1, 2, 3)] == [None] * 3
    assert crowd.enter(4, "a") == 1
    crowd.leave(1)
    assert crowd.enter(5, "a") == 2
    assert crowd.enter(6, "b") is None, "another address has places of its own"


def test_who_was_served_stays_longer_than_who_never_asked() -> None:
    crowd: Crowd[int] = Crowd(100, 2)
    crowd.enter(1, "a")
    crowd.busy(1)
    crowd.idle(1)
    crowd.enter(2, "a")
    assert crowd.enter(3, "a") == 2
    crowd.leave(2)
    crowd.busy(3)
    assert crowd.enter(4, "a") == 1


def test_nobody_who_is_served_makes_way() -> None:
    crowd: Crowd[int] = Crowd(100, 2)
    for key in (1, 2):
        crowd.enter(key, "a")
        crowd.busy(key)
    assert crowd.enter(3, "a") == 3


def test_when_all_places_are_taken_the_busiest_address_gives_one_up() -> None:
    crowd: Crowd[int] = Crowd(4, 3)
    for key, network in ((1, "a"), (2, "b"), (3, "b"), (4, "b")):
        assert crowd.enter(key, network) is None
    assert crowd.enter(5, "c") == 2


class CrowdRules(RuleBasedStateMachine):
    """Any order of events, some of them for connections that are gone."""

    def __init__(self) -> None:
        super().__init__()
        self.crowd: Crowd[int] = Crowd(6, 3)
        self.busy: set[int] = set()
        self.last = 0

    @rule(network=st.sampled_from("abc"))
    def enter(self, network: str) -> None:
        self.last += 1
        victim = self.crowd.enter(self.last, network)
        assert victim not in self.busy
        if victim is not None:
            self.crowd.leave(victim)

    @rule(data=st.data(), what=st.sampled_from(["busy", "idle", "leave"]))
    def event(self, data: st.DataObject, what: str) -> None:
        key = data.draw(st.integers(0, self.last + 1))
        known = key in self.crowd._known
        getattr(self.crowd, what)(key)
        if what == "busy" and known:
            self.busy.add(key)
        else:
            self.busy.discard(key)

    @invariant()
    def holds(self) -> None:
        self.crowd.check()
        assert len(self.crowd) <= 6


CrowdRules.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCrowd = CrowdRules.TestCase


# --- pace ---------------------------------------------------------------------------------------

LIMITS = Limits(head=10.0, window=10.0, pace=100.0, rest=15.0, stall=30.0)


def test_a_head_has_its_time_from_the_connection_on() -> None:
    pace = Pace(LIMITS, 5.0)
    pace.got(10**9)
    assert pace.late(15.0) == ""
    assert "head" in pace.late(15.1)


def test_bytes_of_a_head_buy_no_time() -> None:
    pace = Pace(LIMITS, 0.0)
    for second in range(10):
        pace.enter(Phase.HEAD, float(second))
        pace.got(1)
    assert pace.late(10.1) != ""


def test_a_rest_is_longer_than_a_head() -> None:
    pace = Pace(LIMITS, 0.0)
    pace.enter(Phase.WORK, 1.0)
    assert pace.late(1000.0) == "", "our own time is nobody's fault"
    pace.enter(Phase.REST, 1000.0)
    assert pace.late(1015.0) == ""
    assert "further" in pace.late(1015.1)
    pace.enter(Phase.HEAD, 1015.0)
    assert pace.late(1025.0) == ""


def test_a_body_must_keep_its_pace_in_each_window() -> None:
    pace = Pace(LIMITS, 0.0)
    pace.enter(Phase.BODY, 0.0)
    pace.got(10**6)
    assert pace.late(10.5) == ""
    pace.got(999)
    assert pace.late(20.5) == ""
    assert "body" in pace.late(20.6), "what came before the window buys nothing"


def test_nobody_is_blamed_while_we_do_not_read() -> None:
    pace = Pace(LIMITS, 0.0)
    pace.enter(Phase.BODY, 0.0)
    pace.not_reading(9.0)
    assert pace.late(19.0) == ""
    assert pace.late(19.1) != ""


def test_an_answer_must_be_taken() -> None:
    pace = Pace(LIMITS, 0.0)
    pace.enter(Phase.WORK, 0.0)
    pace.stalled(0.0)
    pace.stalled(20.0)
    assert pace.late(30.0) == ""
    assert "taken" in pace.late(30.1)
    pace.moving()
    assert pace.late(30.1) == ""


# --- rates --------------------------------------------------------------------------------------


def test_a_burst_and_then_a_pace() -> None:
    book = Rates(2.0, 100.0)
    assert [book.wait("a", 0.0) for _ in range(4)] == [0.0] * 4
    assert book.wait("a", 0.0) == pytest.approx(0.5)
    assert book.wait("b", 0.0) == 0.0
    assert book.wait("a", 0.5) == 0.0
    assert book.wait("a", 0.5) > 0


def test_all_together_have_a_pace_too() -> None:
    book = Rates(10.0, 1.0)
    assert [book.wait(name, 0.0) for name in "ab"] == [0.0, 0.0]
    assert book.wait("c", 0.0) == pytest.approx(1.0)


def test_made_up_addresses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST", 3)
    book = Rates(1.0, 1000.0)
    for number in range(10):
        book.wait(str(number), 0.0)
    assert repr(book) == "<Rates 3 names>"


@given(st.lists(st.floats(0, 100), max_size=60))
def test_nobody_gets_more_than_a_burst_and_the_pace(times: list[float]) -> None:
    book = Rates(1.0, 5.0)
    passed = sum(book.wait("a", now) == 0.0 for now in sorted(times))
    span = max(times) - min(times) if times else 0.0
    assert passed <= 2 + span + 1e-6
    if times:
        wait = book.wait("a", 100.0)
        assert not wait or book.wait("a", 100.0 + wait + 1e-6) == 0.0
