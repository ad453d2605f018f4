"""What is decided about an actor that failed, and what those who wait for a dead one are told."""

from __future__ import annotations

import pytest

from guactors.actors.supervision import (
    AllForOne,
    Cause,
    Completed,
    Decision,
    End,
    Escalate,
    Escalated,
    Failed,
    GoOn,
    Killed,
    Lost,
    Restart,
    RestartAfter,
    RestartBudget,
    Resume,
    StartFailed,
    Stop,
    Stopped,
    Supervision,
    SystemShutdown,
    death_error,
    decide,
)
from guactors.errors import DEATH_CAUSES, ActorDied, ActorKilled, UsageError


@pytest.mark.parametrize(
    ("supervision", "decision"),
    [
        (Stop(), End()),
        (Resume(), GoOn()),
        (Escalate(), End(escalate=True)),
        (Restart(), RestartAfter(0.0)),
        (AllForOne(Restart(backoff=0.5)), RestartAfter(0.5)),
        (AllForOne(Stop()), End()),
        (Restart(max_restarts=0), End()),
        (Restart(max_restarts=0, then_escalate=True), End(escalate=True)),
    ],
)
def test_a_first_failure(supervision: Supervision, decision: Decision) -> None:
    assert decide(supervision, RestartBudget(), 0.0) == decision


def test_restarts_within_the_window_run_out_and_come_back() -> None:
    strategy, budget = Restart(max_restarts=2, within=10.0), RestartBudget()
    decisions = [decide(strategy, budget, now) for now in (0.0, 4.0, 9.9, 10.0, 13.9)]
    again = RestartAfter(0.0)
    assert decisions == [again, again, End(), again, End()]
    budget.check()


def test_each_restart_waits_twice_as_long_up_to_the_most() -> None:
    strategy = Restart(max_restarts=-1, within=1e6, backoff=0.1, backoff_most=1.0)
    budget = RestartBudget()
    delays = [decide(strategy, budget, float(now)) for now in range(6)]
    assert delays == [RestartAfter(d) for d in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0)]


def test_endless_restarts_neither_end_nor_remember_endlessly() -> None:
    strategy = Restart(max_restarts=-1, within=1e9, backoff=0.1, backoff_most=1.0)
    budget = RestartBudget()
    for now in range(5000):
        assert isinstance(decide(strategy, budget, float(now)), RestartAfter)
    assert len(budget.spent) < 100


def test_many_finite_restarts_are_counted_exactly() -> None:
    strategy, budget = Restart(max_restarts=500, within=1e9), RestartBudget()
    decisions = [decide(strategy, budget, float(now)) for now in range(501)]
    assert decisions == [RestartAfter(0.0)] * 500 + [End()]


@pytest.mark.parametrize(
    "arguments", [{"max_restarts": -2}, {"within": 0.0}, {"backoff": -1.0}, {"backoff_most": -1.0}]
)
def test_impossible_strategies_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Restart(**arguments)  # type: ignore[arg-type]


ERROR = ValueError("broken pipe organ")


@pytest.mark.parametrize(
    ("cause", "death", "said"),
    [
        (Completed(), "exited", "completed"),
        (Stopped("boss"), "released", "stopped by boss"),
        (Killed("boss"), "killed", "killed by boss"),
        (Failed(ERROR), "exited", "broken pipe organ"),
        (StartFailed(ERROR), "creation_failed", "broken pipe organ"),
        (Escalated("boss/child", ERROR), "exited", "boss/child"),
        (SystemShutdown(), "session_ended", "shut down"),
        (Lost("unplugged"), "link_lost", "unplugged"),
    ],
)
def test_every_cause_has_an_error_that_tells_it(cause: Cause, death: str, said: str) -> None:
    error = death_error("'organist'", cause)
    assert error.death is not None
    assert error.death.cause == death
    assert death in DEATH_CAUSES
    assert said in str(error)
    assert "'organist'" in str(error)
    on_purpose = isinstance(cause, Stopped | Killed)
    assert type(error) is (ActorKilled if on_purpose else ActorDied)
