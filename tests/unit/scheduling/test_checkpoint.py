"""Actors that give way with their state: what they hold is free, and they go on elsewhere."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.scheduling.displacing import STEADY
from guactors.scheduling.preemption import GAP
from tests.unit.hub.bench import Bench, death, endpoint, spec

STATE = b"the state"


def grid(*modes: str, checkpoints: bool = True, **shape: object) -> Bench:
    """One processor, which an actor has; and a second caller."""
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 1.0, memory=100.0)
    needs = {"CPU": 1.0, "memory": 60.0}
    wanted = m.Shape(needs, preemption=list(modes or ("checkpoint",)), **shape)  # type: ignore[arg-type]
    bench.actor(spec("a-1", shape=wanted, placement={}, checkpoints=checkpoints))
    return bench


def urgent(bench: Bench) -> None:
    """Needs memory, too, so that standing still would not help."""
    bench.demand("c-2", "d-9", 1, priority=GAP, resources={"CPU": 1.0, "memory": 60.0})


def asked(bench: Bench) -> m.StartLease:
    urgent(bench)
    return bench.one("p-1", m.StartLease)


def saved(bench: Bench, order: m.StartLease) -> None:
    (word,) = order.displaces
    assert (word.key, word.mode) == ("a-1", "checkpoint")
    bench.say("p-1", m.ActorSaved("a-1", word.number, STATE))


def start(bench: Bench, peer: str, worker: str = "w-2") -> m.StartActor:
    order = bench.one(peer, m.StartActor)
    bench.say(peer, m.ActorStarted("a-1", order.incarnation, worker, [endpoint(worker)]))
    return order


def test_it_ends_with_its_state_and_goes_on_where_there_is_room() -> None:
    bench = grid()
    order = asked(bench)
    assert bench.heard("p-1", m.StopActor) == [], "not before its state is here"
    saved(bench, order)
    stop = bench.one("p-1", m.StopActor)
    assert (stop.cause, stop.graceful) == ("checkpointed", True)
    update = bench.one("c-1", m.ActorUpdate)
    assert update.state == "restarting" and update.death is not None
    assert update.death.cause == "checkpointed"
    bench.say("p-1", m.ActorEnded("a-1", 0, death("checkpointed")))
    bench.provider("p-2", 1.0, memory=100.0)
    again = start(bench, "p-2")
    assert (again.state, again.incarnation) == (STATE, 1)
    assert bench.one("c-1", m.ActorUpdate).state == "alive"
    record = bench.core.scheduler.desk.actors.live["a-1"]
    assert (record.state_taken, record.restarts) == (b"", 0)


def test_it_comes_back_to_the_same_place() -> None:
    bench = grid()
    order = asked(bench)
    saved(bench, order)
    bench.say("p-1", m.LeaseStarted(order.lease, "w-new", []))
    bench.demand("c-2", "d-9", 0)
    bench.say("c-2", m.ReturnLease(order.lease))
    assert start(bench, "p-1").state == STATE


def test_a_state_that_could_not_be_taken_undoes_it_and_the_next_way_is_gone_next_time() -> None:
    bench = grid("checkpoint", "requeue")
    order = asked(bench)
    number = order.displaces[0].number
    bench.say("p-1", m.Suspended("a-1", number, "C.__checkpoint__() failed: ValueError('no')"))
    bench.say("p-1", m.LeaseEnded(order.lease, death("not_displaced")))
    desk = bench.core.scheduler.desk
    assert desk.actors.live["a-1"].suspension is None
    assert bench.heard("p-1", m.StartLease) == [], "at once it is left alone"
    bench.pass_time(STEADY + 1.0)
    (again,) = bench.heard("p-1", m.StartLease)
    assert [word.mode for word in again.displaces] == ["requeue"]
    assert bench.one("p-1", m.StopActor).cause == "requeued"


@pytest.mark.parametrize(
    ("modes", "used"), [(("checkpoint",), None), (("checkpoint", "stop"), "stop")]
)
def test_where_a_class_cannot_tell_its_state_the_word_means_nothing(
    modes: tuple[str, ...], used: str | None
) -> None:
    bench = grid(*modes, checkpoints=False)
    urgent(bench)
    orders = bench.heard("p-1", m.StartLease)
    assert [word.mode for order in orders for word in order.displaces] == ([used] if used else [])


def test_of_a_lease_the_word_means_nothing() -> None:
    bench = Bench()
    bench.caller("c-1", "s-1")
    bench.caller("c-2", "s-2")
    bench.provider("p-1", 1.0)
    bench.leases("c-1", 1, preemption=["checkpoint"])
    bench.demand("c-2", "d-9", 1, priority=GAP)
    assert bench.heard("p-1", m.StartLease) == []


def test_its_provider_is_lost_before_its_state_is_here() -> None:
    bench = grid()
    asked(bench)
    bench.break_link("p-1")
    bench.pass_time(30.0)
    assert bench.heard("c-1", m.ActorUpdate)[-1].state == "dead"


def test_where_it_begins_again_is_lost_before_it_has_begun() -> None:
    """The hub has the state until the actor is there."""
    bench = grid()
    saved(bench, asked(bench))
    bench.provider("p-2", 1.0, memory=100.0)
    assert bench.one("p-2", m.StartActor).state == STATE
    bench.break_link("p-2")
    bench.pass_time(30.0)
    bench.provider("p-3", 1.0, memory=100.0)
    assert start(bench, "p-3").state == STATE


def test_an_error_of_restoring_is_its_death() -> None:
    bench = grid()
    saved(bench, asked(bench))
    bench.provider("p-2", 1.0, memory=100.0)
    order = bench.one("p-2", m.StartActor)
    bench.say("p-2", m.ActorEnded("a-1", order.incarnation, death("creation_failed"), b"pickled"))
    update = bench.heard("c-1", m.ActorUpdate)[-1]
    assert (update.state, update.error) == ("dead", b"pickled")


def test_after_a_broken_link_it_goes_on_and_a_late_state_is_nothing() -> None:
    bench = grid()
    order = asked(bench)
    number = order.displaces[0].number
    bench.break_link("p-1")
    report = m.ActorReport(
        bench.core.scheduler.desk.actors.live["a-1"].spec, 0, "w-1", [endpoint("w-1")], b""
    )
    bench.provider("p-1", 1.0, memory=100.0, actors=[report])
    assert number in [word.number for word in bench.heard("p-1", m.Resume)]
    bench.say("p-1", m.ActorSaved("a-1", number, STATE))
    record = bench.core.scheduler.desk.actors.live["a-1"]
    assert record.slot is not None and not record.state_taken


def test_killed_while_its_state_is_taken() -> None:
    bench = grid()
    order = asked(bench)
    bench.say("c-1", m.KillActor("a-1"))
    assert bench.one("p-1", m.StopActor).cause == "killed"
    bench.say("p-1", m.ActorSaved("a-1", order.displaces[0].number, STATE))
    bench.say("p-1", m.ActorEnded("a-1", 0, death("killed")))
    assert bench.heard("c-1", m.ActorUpdate)[-1].state == "dead"
