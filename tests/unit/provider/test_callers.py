"""The keys of workers and of those who call them."""

from __future__ import annotations

from msgspec.structs import replace

from guactors.config import Identity
from guactors.messages import (
    Admit,
    AdmitCaller,
    Bind,
    LoadActor,
    Refusal,
    Report,
    StopActor,
    StopLease,
    Vouch,
)
from guactors.provider_state import StartWorker, binder
from tests.unit.provider.authority import Guarded
from tests.unit.provider.bench import Bench, start_actor


def test_every_worker_has_a_pair_of_its_own_where_somebody_is_met_by_tcp() -> None:
    bench = Guarded(warm=2, up=False)
    first, second = bench.identities.values()
    assert first.client_public != second.client_public
    assert first.client_secret == "secret-1"
    assert first.client_secret not in repr(StartWorker("w-1", first))


def test_workers_of_a_grid_on_one_machine_have_none_and_nobody_vouches_for_them() -> None:
    bench = Bench()
    bench.all_up()
    bench.lease()
    assert list(bench.identities.values()) == [Identity()]
    assert bench.said(Vouch) == []


def test_the_caller_of_a_lease_is_admitted_when_the_worker_is_bound() -> None:
    bench = Guarded()
    (worker,) = bench.all_up()
    bench.show()
    bench.lease(key="caller-1")
    assert bench.told(worker, Bind) == [Bind("s-1", "space", "l-1", ["caller-1"])]


def test_the_next_caller_of_the_same_worker_is_admitted_beside_the_first() -> None:
    bench = Guarded()
    (worker,) = bench.all_up()
    bench.show()
    bench.lease("l-1", key="caller-1")
    bench.hub(StopLease("l-1"))
    bench.lease("l-2", key="caller-2")
    assert bench.told(worker, Admit) == [Admit(["caller-2"])]
    assert len(bench.told(worker, Bind)) == 1
    bench.hub(StopLease("l-2"))
    bench.lease("l-3")
    assert bench.told(worker, Admit) == []


def test_an_actors_callers_are_those_of_its_order_and_those_told_since() -> None:
    bench = Guarded(warm=0)
    bench.show()
    bench.hub(AdmitCaller("a-1", "early"))
    bench.actor(keys=["first", "early"])
    bench.hub(AdmitCaller("a-1", "between"))
    (worker,) = bench.all_up()
    (bind,) = bench.told(worker, Bind)
    assert bind.keys == ["first", "early", "between"]
    bench.hub(AdmitCaller("a-1", "late"))
    assert bench.told(worker, Admit) == [Admit(["late"])]


def test_callers_of_an_actor_that_has_ended_are_forgotten() -> None:
    bench = Guarded()
    (worker,) = bench.all_up()
    bench.show()
    bench.actor()
    bench.hub(StopActor("a-1", "killed"))
    bench.hub(AdmitCaller("a-1", "late"))
    bench.ends(worker)
    bench.pass_time(10.0)
    (other,) = bench.all_up()
    bench.actor(incarnation=2)
    assert bench.told(other, Bind)[0].keys == []


def test_callers_of_actors_that_never_come_are_not_kept_without_end() -> None:
    bench = Guarded()
    (worker,) = bench.all_up()
    bench.show()
    bench.hub(AdmitCaller("a-1", "oldest"))
    for number in range(binder.MOST_ACTORS):
        bench.hub(AdmitCaller(f"a-other-{number}", "key"))
    bench.actor()
    assert bench.told(worker, Bind)[0].keys == []


def test_signatures_of_an_actors_class_reach_its_worker_and_the_next_hub() -> None:
    bench = Guarded()
    (worker,) = bench.all_up()
    bench.show()
    order = replace(start_actor(), signatures=b"signed")
    bench.hub(order)
    assert bench.told(worker, LoadActor) == [LoadActor(order.spec, 1, b"class", b"signed")]
    bench.hub_down()
    bench.hub_up()
    (actor,) = [report for m in bench.to_hub if hasattr(m, "actors") for report in m.actors]
    assert actor.signatures == b"signed"


def test_what_a_worker_refuses_is_reported_with_its_session() -> None:
    bench = Guarded()
    (worker,) = bench.all_up()
    bench.show()
    bench.lease()
    bench.says(worker, Refusal("caller", "call", "fn", "function_signer", "not signed"))
    assert bench.said(Report) == [
        Report("caller", "call", "fn", "function_signer", "not signed", "s-1")
    ]
