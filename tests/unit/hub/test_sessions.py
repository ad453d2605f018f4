"""Sessions: opened by a root caller, ended with it, and where their output goes."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from guactors import messages as m
from tests.unit.hub.bench import ONE, TIMING, Bench, spec


def both(bench: Bench) -> None:
    """A root caller, and one of its tasks that calls as well."""
    bench.caller()
    bench.caller("c-2", root=False)
    bench.provider(cpus=4.0)


@pytest.mark.parametrize("how", ["goodbye", "link", "silence"])
def test_the_end_of_the_root_ends_everything_of_its_session(how: str) -> None:
    bench = Bench()
    both(bench)
    bench.caller("c-9", "s-9")
    bench.leases("c-1")
    (inner,) = bench.leases("c-2")
    bench.actor()
    (other,) = bench.leases("c-9")
    if how == "goodbye":
        bench.say("c-1", m.Goodbye())
    elif how == "link":
        bench.break_link("c-1")
        bench.pass_time(TIMING.relink_grace + 0.1)
    else:
        bench.mute.add("c-1")
        bench.pass_time(3 * TIMING.lost_after + 0.1)
    assert bench.one("p-1", m.EndSession).session == "s-1"
    assert bench.one("c-2", m.LeaseLost).lease == inner
    info = bench.grid("c-9")
    assert (info.sessions, info.leases) == (1, 1)
    assert [(x.spec.actor, x.state) for x in info.actors] == [("a-1", "dead")]
    assert other in bench.core.scheduler.desk.leases.by_id


def test_a_detached_actor_still_computes_when_its_session_is_over() -> None:
    bench = Bench()
    both(bench)
    bench.say("c-1", m.Goodbye())
    assert bench.one("p-1", m.EndSession)
    assert bench.leases("c-2")
    made = spec("a-2", "c-2")
    bench.actor(made)
    bench.break_link("p-1")
    bench.provider()
    assert not bench.heard("p-1", m.EndSession)


def test_the_end_of_another_caller_ends_only_what_is_its_own() -> None:
    bench = Bench()
    both(bench)
    (mine,) = bench.leases("c-1")
    (its,) = bench.leases("c-2")
    bench.actor(spec("a-1", "c-1"))
    bench.actor(spec("a-2", "c-2"))
    bench.say("c-1", m.WatchActor("a-2"))
    bench.heard("c-1", m.ActorUpdate)
    bench.say("c-2", m.Goodbye("done"))
    assert bench.one("p-1", m.StopLease) == m.StopLease(its, kill=True)
    assert bench.one("p-1", m.StopActor).actor == "a-2"
    update = bench.one("c-1", m.ActorUpdate)
    assert (update.actor, update.state) == ("a-2", "dead")
    assert update.death is not None
    assert "its owner c-2" in update.death.detail
    bench.nothing_more()
    assert mine in bench.core.scheduler.desk.leases.by_id


def test_detached_actors_outlive_their_session() -> None:
    bench = Bench()
    both(bench)
    bench.actor(spec(name="keeper", namespace="space", detached=True))
    bench.say("c-1", m.Goodbye())
    bench.caller("c-9", "s-9")
    bench.say("c-9", m.FindActor(5, "keeper", "space"))
    assert bench.one("c-9", m.Found).spec.actor == "a-1"
    assert not bench.heard("p-1", m.StopActor)


def test_a_provider_that_was_away_is_told_of_ended_sessions() -> None:
    bench = Bench()
    both(bench)
    bench.break_link("p-1")
    bench.say("c-1", m.Goodbye())
    bench.provider()
    assert bench.one("p-1", m.EndSession).session == "s-1"


def test_a_root_that_comes_back_opens_its_session_anew() -> None:
    bench = Bench()
    both(bench)
    bench.say("c-1", m.Goodbye())
    bench.heard("p-1", m.EndSession)
    bench.caller()
    assert bench.leases("c-1")
    bench.break_link("p-1")
    bench.provider(
        leases=[m.LeaseReport(x, "s-1", "c-1", ONE, "w", []) for x in list_leases(bench)]
    )
    assert not bench.heard("p-1", m.EndSession)


def list_leases(bench: Bench) -> list[str]:
    return list(bench.core.scheduler.desk.leases.by_id)


def test_output_goes_to_the_root_of_its_session() -> None:
    bench = Bench()
    both(bench)
    bench.demand()
    assert bench.leases("c-1")
    output = m.Output("s-1", "w-1", 7, "box1", 1, "f", ["hello"])
    bench.say("p-1", output)
    assert bench.one("c-1", m.Output) == output
    bench.say("p-1", m.Output("s-unknown", "w-1", 7, "box1", 1, "f", ["x"]))
    bench.provider("p-2")
    bench.say("p-2", replace(output, provider="box2"))
    bench.nothing_more()


def test_a_session_whose_root_does_not_come_back_to_a_new_hub_ends() -> None:
    bench = Bench(young=True)
    report = m.LeaseReport("l-old", "s-1", "c-1", ONE, "w-1", [])
    bench.provider(leases=[report])
    bench.pass_time(TIMING.rejoin_grace - 0.1)
    bench.nothing_more()
    bench.pass_time(0.2)
    assert bench.one("p-1", m.EndSession).session == "s-1"
    assert not list_leases(bench)


def test_a_session_whose_root_comes_back_in_time_goes_on() -> None:
    bench = Bench(young=True)
    bench.caller("c-2", root=False)
    bench.pass_time(TIMING.rejoin_grace - 0.1)
    bench.caller("c-1")
    bench.pass_time(1.0)
    assert bench.grid().sessions == 1
