"""The life of a user actor, from its creation to its certificate of death."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from guactors import messages as m
from guactors.scheduling.actors import MOST_DEAD
from tests.unit.hub.bench import Bench, death, endpoint, spec


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.caller()
    made.provider(cpus=2.0)
    return made


def end(bench: Bench, cause: str = "signal", incarnation: int = 0, error: bytes = b"") -> None:
    bench.say("p-1", m.ActorEnded("a-1", incarnation, death(cause), error))


def states(bench: Bench, peer: str = "c-1") -> list[str]:
    return [update.state for update in bench.heard(peer, m.ActorUpdate)]


def test_created_placed_alive(bench: Bench) -> None:
    made = spec(max_concurrency=3)
    bench.create(made)
    assert states(bench) == ["pending"]
    order = bench.one("p-1", m.StartActor)
    marked = replace(made, principal="local")
    assert (order.spec, order.incarnation, order.payload) == (marked, 0, b"class")
    bench.say("p-1", m.ActorStarted("a-1", 0, "w-1", [endpoint("w-1")]))
    update = bench.one("c-1", m.ActorUpdate)
    assert (update.state, update.worker, update.endpoints) == ("alive", "w-1", [endpoint("w-1")])
    bench.nothing_more()


def test_told_twice_is_made_once(bench: Bench) -> None:
    bench.actor()
    bench.create(spec())
    assert states(bench) == ["alive"]
    bench.nothing_more()


def test_a_constructor_that_raises_is_final_and_its_error_is_passed_on(bench: Bench) -> None:
    bench.create(spec(max_restarts=-1))
    bench.heard("c-1", m.ActorUpdate)
    bench.heard("p-1", m.StartActor)
    end(bench, "creation_failed", error=b"pickle")
    update = bench.one("c-1", m.ActorUpdate)
    assert (update.state, update.error) == ("dead", b"pickle")
    bench.nothing_more()


def test_restarts_are_counted_and_the_last_death_is_final(bench: Bench) -> None:
    bench.actor(spec(max_restarts=2))
    for incarnation in range(2):
        end(bench, incarnation=incarnation)
        bench.pass_time(1.0)
        assert [x.incarnation for x in bench.start_actors()] == [incarnation + 1]
        assert states(bench) == ["restarting", "alive"]
    end(bench, "out_of_memory", 2)
    update = bench.one("c-1", m.ActorUpdate)
    assert update.state == "dead"
    assert update.death is not None
    assert update.death.cause == "out_of_memory"


def test_endless_restarts_pause_longer_and_longer_but_not_for_ever(bench: Bench) -> None:
    bench.actor(spec(max_restarts=-1))
    pauses = []
    for incarnation in range(9):
        before = bench.now
        end(bench, incarnation=incarnation)
        while not bench.start_actors():
            bench.pass_time(0.1)
        pauses.append(round(bench.now - before, 1))
    assert pauses[0] == 0.0
    assert pauses == sorted(pauses)
    assert 5.0 <= pauses[-1] <= 5.2
    bench.pass_time(11.0)
    end(bench, incarnation=9)
    assert bench.start_actors(), "after a long life the first restart has no pause again"


@pytest.mark.parametrize("cause", ["killed", "released", "session_ended"])
def test_ends_on_purpose_are_not_restarted(bench: Bench, cause: str) -> None:
    bench.actor(spec(max_restarts=-1))
    end(bench, cause)
    assert states(bench) == ["dead"]


def test_a_death_told_twice_or_of_another_incarnation_is_ignored(bench: Bench) -> None:
    bench.actor(spec(max_restarts=1))
    end(bench)
    end(bench)
    bench.start_actors()
    end(bench)
    assert states(bench) == ["restarting", "alive"]


def test_failed_starts_are_tried_three_times(bench: Bench) -> None:
    bench.create(spec(max_restarts=0))
    for incarnation in range(3):
        bench.pass_time(1.0)
        assert bench.one("p-1", m.StartActor).incarnation == incarnation
        end(bench, "start_failed", incarnation)
    assert states(bench)[-1] == "dead"


# --- kill ---------------------------------------------------------------------------------------


def test_kill_is_final_even_where_restarts_are_left(bench: Bench) -> None:
    bench.actor(spec(max_restarts=-1))
    bench.say("c-1", m.KillActor("a-1"))
    assert bench.one("p-1", m.StopActor) == m.StopActor("a-1", "killed", incarnation=0)
    bench.say("c-1", m.KillActor("a-1"))
    bench.nothing_more()
    end(bench, "killed")
    assert states(bench) == ["dead"]


def test_kill_with_restart_counts_as_a_crash(bench: Bench) -> None:
    bench.actor(spec(max_restarts=1))
    bench.say("c-1", m.KillActor("a-1", no_restart=False))
    assert bench.one("p-1", m.StopActor)
    end(bench, "killed")
    bench.start_actors()
    assert states(bench) == ["restarting", "alive"]
    bench.say("c-1", m.KillActor("a-1", no_restart=False))
    end(bench, "killed", 1)
    assert states(bench) == ["dead"]


def test_release_is_graceful_and_can_be_overruled_by_kill(bench: Bench) -> None:
    bench.actor()
    bench.say("c-1", m.KillActor("a-1", released=True))
    assert bench.one("p-1", m.StopActor) == m.StopActor(
        "a-1", "released", graceful=True, incarnation=0
    )
    bench.say("c-1", m.KillActor("a-1"), m.KillActor("a-1", released=True))
    assert bench.one("p-1", m.StopActor) == m.StopActor("a-1", "killed", incarnation=0)
    end(bench, "killed")
    assert states(bench) == ["dead"]


@pytest.mark.parametrize(("released", "cause"), [(False, "killed"), (True, "released")])
def test_an_end_names_the_incarnation_that_is_to_end(
    bench: Bench, released: bool, cause: str
) -> None:
    """It may overtake the start of that, and the provider had another one a moment ago."""
    bench.actor(spec(max_restarts=1))
    end(bench)
    bench.say("c-1", m.KillActor("a-1", released=released))
    told = m.StopActor("a-1", cause, graceful=released, incarnation=1)
    assert bench.one("p-1", m.StopActor) == told


def test_what_has_no_place_yet_dies_at_once(bench: Bench) -> None:
    bench.create(spec(shape=m.Shape({"GPU": 1.0})))
    bench.say("c-1", m.KillActor("a-1"))
    assert states(bench) == ["pending", "dead"]
    bench.provider("p-2", GPU=1.0)
    assert not bench.heard("p-2", m.StartActor)


def test_a_provider_lost_in_the_middle_of_a_stop_is_no_reason_to_restart(bench: Bench) -> None:
    bench.actor(spec(max_restarts=-1))
    bench.say("c-1", m.KillActor("a-1"))
    bench.say("p-1", m.Goodbye())
    assert states(bench) == ["dead"]


def test_a_kill_that_overtakes_the_creation_is_remembered(bench: Bench) -> None:
    bench.say("c-1", m.KillActor("a-1", released=True))
    bench.create(spec())
    assert states(bench) == ["dead"]
    assert not bench.heard("p-1", m.StartActor)
    bench.say("c-1", m.KillActor("a-2"))
    bench.pass_time(6.0)
    bench.actor(spec("a-2"))


# --- watching and finding -----------------------------------------------------------------------


def test_watchers_hear_what_is_and_what_becomes(bench: Bench) -> None:
    bench.caller("c-2", "s-2")
    bench.actor(spec(max_restarts=1))
    bench.say("c-2", m.WatchActor("a-1"))
    end(bench)
    bench.start_actors()
    end(bench, incarnation=1)
    assert states(bench, "c-2") == ["alive", "restarting", "alive", "dead"]
    bench.say("c-2", m.WatchActor("a-1"))
    assert states(bench, "c-2") == ["dead"]


def test_a_watch_that_overtakes_the_creation_waits_for_it(bench: Bench) -> None:
    bench.caller("c-2", "s-2")
    for peer in ("c-1", "c-2"):
        bench.say(peer, m.WatchActor("a-1"))
    bench.pass_time(1.0)
    bench.nothing_more()
    bench.actor()
    assert states(bench, "c-2") == ["pending", "alive"]
    bench.say("c-2", m.WatchActor("a-9"))
    bench.pass_time(2.1)
    assert states(bench, "c-2") == ["dead"]


def test_names_are_unique_in_their_namespace_and_free_after_death(bench: Bench) -> None:
    named = {"name": "n", "namespace": "x"}
    bench.actor(spec("a-1", **named))
    bench.create(spec("a-2", **named))
    fault = bench.one("c-1", m.Fault)
    assert (fault.kind, fault.request) == ("NameTaken", 1)
    assert "a-1" in fault.detail
    assert "c-1" in fault.detail
    bench.actor(spec("a-3", name="n", namespace="y"))
    end(bench)
    bench.heard("c-1", m.ActorUpdate)
    bench.actor(spec("a-4", **named))


def test_a_killed_actors_name_is_free_at_once(bench: Bench) -> None:
    bench.actor(spec("a-1", name="n", namespace="x"))
    bench.say("c-1", m.KillActor("a-1"))
    bench.actor(spec("a-2", name="n", namespace="x"))
    bench.say("c-1", m.FindActor(2, "n", "x"))
    assert bench.one("c-1", m.Found).spec.actor == "a-2"
    end(bench, "killed")
    bench.say("c-1", m.FindActor(2, "n", "x"))
    assert bench.one("c-1", m.Found).spec.actor == "a-2"


def test_find_waits_a_moment_for_a_creation_on_the_other_lane(bench: Bench) -> None:
    bench.say("c-1", m.FindActor(2, "n", "x"))
    bench.nothing_more()
    bench.create(spec(name="n", namespace="x"))
    assert bench.one("c-1", m.Found).request == 2
    bench.say("c-1", m.FindActor(3, "other", "x"))
    bench.pass_time(0.2)
    fault = bench.one("c-1", m.Fault)
    assert (fault.kind, fault.request) == ("UsageError", 3)
    assert "'other'" in fault.detail


def test_a_detached_actor_must_have_a_name(bench: Bench) -> None:
    bench.create(spec(detached=True))
    assert bench.one("c-1", m.Fault).kind == "UsageError"


# --- placing ------------------------------------------------------------------------------------


def test_placement_is_what_must_be_there_and_shape_what_is_held(bench: Bench) -> None:
    for number in range(5):
        bench.actor(spec(f"a-{number}"))
    assert bench.grid().peers[1].free == {"CPU": 2.0}
    bench.create(spec("a-9", placement={"CPU": 3.0}))
    refusal = bench.one("c-1", m.DemandInfeasible)
    assert refusal.key == "a-9"
    assert "asked 3 CPU" in refusal.reason
    assert states(bench) == ["pending"]


def test_actors_are_spread(bench: Bench) -> None:
    bench.provider("p-2")
    for number in range(4):
        bench.create(spec(f"a-{number}"))
    assert len(bench.heard("p-1", m.StartActor)) == 2
    assert len(bench.heard("p-2", m.StartActor)) == 2


def test_held_resources_are_waited_for_and_come_back(bench: Bench) -> None:
    two = m.Shape({"CPU": 2.0})
    bench.actor(spec("a-1", shape=two))
    bench.create(spec("a-2", shape=two))
    assert not bench.heard("p-1", m.StartActor)
    assert bench.grid().waiting == 1
    end(bench)
    assert bench.one("p-1", m.StartActor).spec.actor == "a-2"


def test_a_lost_provider_s_actors_restart_elsewhere_or_die(bench: Bench) -> None:
    bench.actor(spec("a-1", max_restarts=1))
    bench.actor(spec("a-2", max_restarts=0))
    bench.provider("p-2")
    bench.say("p-1", m.Goodbye())
    assert bench.one("p-2", m.StartActor).spec.actor == "a-1"
    found = {update.actor: update.state for update in bench.heard("c-1", m.ActorUpdate)}
    assert found == {"a-1": "restarting", "a-2": "dead"}


def test_a_provider_lost_before_the_actor_ran_costs_no_restart(bench: Bench) -> None:
    bench.create(spec(max_restarts=0))
    bench.say("p-1", m.Goodbye())
    bench.provider("p-2")
    assert bench.one("p-2", m.StartActor).incarnation == 1


def test_an_actor_that_nobody_knows_is_stopped(bench: Bench) -> None:
    bench.say("p-1", m.ActorStarted("a-7", 0, "w-1", []))
    assert bench.one("p-1", m.StopActor).actor == "a-7"


def test_another_python_version_cannot_host_it(bench: Bench) -> None:
    bench.caller("c-2", "s-2", python="3.13.0")
    bench.create(spec(owner="c-2", session="s-2"))
    assert "3.13" in bench.one("c-2", m.DemandInfeasible).reason


def test_the_memory_of_the_dead_is_bounded(bench: Bench) -> None:
    book = bench.core.scheduler.desk.actors
    for number in range(MOST_DEAD + 5):
        made = spec(f"a-{number}", shape=m.Shape({"GPU": 1.0}))
        bench.core.on_message(bench.link_of["c-1"], m.CreateActor(1, made, b""), bench.now)  # type: ignore[arg-type]
        bench.core.on_message(bench.link_of["c-1"], m.KillActor(made.actor), bench.now)  # type: ignore[arg-type]
    assert book.find("a-4") is None
    assert book.find("a-5") is not None
    assert not book.live


def test_the_infeasible_is_told_again_after_every_other_answer_about_it(bench: Bench) -> None:
    made = spec(shape=m.Shape({"GPU": 1.0}))
    bench.create(made)
    for word in (m.CreateActor(1, made, b""), m.WatchActor("a-1"), m.Ping(1)):
        told = [type(x) for x in bench.heard("c-1", m.Message)]
        assert told == [m.ActorUpdate, m.DemandInfeasible]
        bench.say("c-1", word)


def test_the_last_provider_that_could_serve_leaves(bench: Bench) -> None:
    bench.provider("p-2", GPU=1.0)
    bench.actor(spec("a-0", shape=m.Shape({"GPU": 1.0})))
    bench.create(spec("a-1", shape=m.Shape({"GPU": 1.0})))
    bench.demand(resources={"GPU": 1.0})
    assert not bench.heard("c-1", m.DemandInfeasible)
    bench.say("p-2", m.Goodbye())
    assert {told.key for told in bench.heard("c-1", m.DemandInfeasible)} == {"a-1", "d-1"}


def test_news_of_an_older_incarnation_is_old(bench: Bench) -> None:
    bench.actor(spec(max_restarts=1))
    end(bench)
    bench.heard("c-1", m.ActorUpdate)
    bench.say("p-1", m.ActorStarted("a-1", 0, "w-1", [endpoint("w-1")]))
    assert not bench.heard("c-1", m.ActorUpdate)
    assert [order.incarnation for order in bench.start_actors()] == [1]
    assert states(bench) == ["alive"]
