"""The line to the hub: dialling, telling again, silence, refusals."""

from __future__ import annotations

import pytest

from guactors.errors import Death, UsageError
from guactors.messages import (
    ActorEnded,
    ActorStarted,
    Blocked,
    Fault,
    Goodbye,
    LeaseEnded,
    LeaseStarted,
    MachineInfo,
    Offer,
    Ping,
    Pong,
    Sample,
    StopLease,
    Welcome,
    WorkerBlocked,
)
from guactors.provider_state import Dial, DropHub, GiveUp, TakeSample
from tests.unit.provider.bench import HELLO, HUB, OTHER_HUB, VERSIONS, Bench, endpoint


def dials(bench: Bench) -> list[Dial]:
    return [effect for effect in bench.other if isinstance(effect, Dial)]


def test_it_dials_at_once_and_says_hello_and_offer_when_the_link_is_up() -> None:
    bench = Bench(up=False, labels={"disk": "ssd"})
    assert dials(bench) == [Dial(HUB)]
    bench.hub_up()
    assert bench.to_hub == [
        HELLO, Offer({"CPU": 2.0}, {"disk": "ssd"}, [], [], MachineInfo())
    ]  # fmt: skip


def test_a_provider_without_an_address_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(UsageError, match="tester"):
        Bench(hub=[])


def test_it_dials_again_ever_more_slowly_at_each_address_in_turn() -> None:
    bench = Bench(up=False, hub=[HUB, OTHER_HUB])
    moments = []
    for _ in range(12):
        bench.do(bench.core.on_hub_down("unreachable", "", bench.now))
        before = bench.now
        count = len(dials(bench))
        while len(dials(bench)) == count:
            bench.pass_time(0.01)
        moments.append(bench.now - before)
    assert moments[0] == pytest.approx(0.05 * 0.75, abs=0.02)
    assert moments[-1] == pytest.approx(2.0 * 0.75, abs=0.02)
    assert [dial.endpoint for dial in dials(bench)][:3] == [HUB, OTHER_HUB, HUB]


def test_a_welcome_resets_the_back_off() -> None:
    bench = Bench(up=False)
    for _ in range(10):
        bench.hub_down()
    bench.hub_up()
    bench.hub_down()
    count = len(dials(bench))
    bench.pass_time(0.06)
    assert len(dials(bench)) == count + 1


def test_everything_keeps_running_while_the_hub_is_away_and_the_offer_tells_it() -> None:
    bench = Bench()
    (leased,) = bench.all_up()
    bench.lease()
    (hosting,) = (bench.pass_time(0.1), bench.all_up())[1]
    bench.actor()
    bench.alive(hosting)
    bench.hub_down()
    bench.to_hub.clear()
    bench.pass_time(30.0)
    assert bench.to_hub == []
    assert bench.killed == {}
    bench.hub_up()
    (offer,) = bench.said(Offer)
    (lease,) = offer.leases
    assert (lease.lease, lease.session, lease.caller, lease.worker) == ("l-1", "s-1", "c-1", leased)
    assert lease.endpoints == [endpoint(leased)]
    (actor,) = offer.actors
    assert (actor.incarnation, actor.worker, actor.payload) == (1, hosting, b"class")
    assert actor.endpoints == [endpoint(hosting)]


def test_actors_that_are_not_alive_yet_are_offered_without_endpoints() -> None:
    bench = Bench(warm=0)
    bench.actor("a-1")
    (first,) = bench.all_up()
    bench.actor("a-2")
    bench.hub_down()
    bench.hub_up()
    (offer,) = bench.said(Offer)
    assert [(one.spec.actor, one.worker, one.endpoints) for one in offer.actors] == [
        ("a-1", first, []),
        ("a-2", "", []),
    ]
    bench.alive(first, "a-1")
    assert [one.actor for one in bench.said(ActorStarted)] == ["a-1"]


def test_a_lease_without_a_worker_is_given_back_when_the_line_breaks() -> None:
    bench = Bench(warm=0)
    bench.lease()
    bench.hub_down()
    assert bench.to_hub == []
    bench.hub_up()
    assert [type(message) for message in bench.to_hub] == [type(HELLO), Offer, LeaseEnded]
    (ended,) = bench.said(LeaseEnded)
    assert (ended.lease, ended.death.cause) == ("l-1", "link_lost")
    bench.all_up()
    assert bench.said(LeaseStarted) == []


def test_deaths_while_the_hub_is_away_are_told_after_the_offer() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease()
    bench.hub_down()
    bench.ends(worker, Death("signal", signal=9))
    bench.pass_time(60.0)
    bench.to_hub.clear()
    bench.hub_up()
    assert [type(message) for message in bench.to_hub] == [type(HELLO), Offer, LeaseEnded]
    assert bench.said(Offer)[0].leases == []
    assert bench.said(LeaseEnded)[0].death.signal == 9


def test_deaths_just_before_the_loss_are_told_again_but_old_ones_are_not() -> None:
    bench = Bench(warm=2)
    first, second = bench.all_up()
    bench.lease("l-old")
    bench.lease("l-new")
    bench.ends(first)
    bench.pass_time(15.0)
    bench.ends(second)
    bench.hub_down()
    bench.to_hub.clear()
    bench.hub_up()
    assert [one.lease for one in bench.said(LeaseEnded)] == ["l-new"]


def test_a_blocked_lease_is_said_to_be_blocked_after_the_offer() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease()
    bench.says(worker, Blocked(True))
    bench.hub_down()
    bench.to_hub.clear()
    bench.hub_up()
    assert bench.to_hub[-1] == WorkerBlocked("l-1")


def test_what_is_being_killed_is_not_offered() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.lease()
    bench.hub(StopLease("l-1", kill=True))
    bench.hub_down()
    bench.hub_up()
    assert bench.said(Offer)[-1].leases == []
    bench.ends(worker)
    assert [one.lease for one in bench.said(LeaseEnded)] == ["l-1"]


def test_a_ping_is_answered() -> None:
    bench = Bench()
    bench.hub(Ping(5))
    assert bench.to_hub == [Pong(5)]


def test_a_hub_that_says_nothing_is_left_and_dialled_again() -> None:
    bench = Bench()
    bench.mute.add("hub")
    bench.pass_time(9.0)
    assert not any(isinstance(effect, DropHub) for effect in bench.other)
    bench.pass_time(1.5)
    assert any(isinstance(effect, DropHub) for effect in bench.other)
    assert len(dials(bench)) == 2


def test_a_hub_that_leaves_is_dialled_again() -> None:
    bench = Bench()
    bench.hub(Goodbye("stopping"))
    bench.pass_time(0.1)
    assert len(dials(bench)) == 2


@pytest.mark.parametrize("kind", ["VersionMismatch", "AuthFailed"])
def test_a_refusal_before_the_first_welcome_is_final(kind: str) -> None:
    bench = Bench(up=False)
    bench.do(bench.core.on_hub_up(MachineInfo(), bench.now))
    bench.hub(Fault(kind, "because"))
    assert GiveUp(kind, "because") in bench.other


def test_a_refused_handshake_at_the_first_dial_is_final() -> None:
    bench = Bench(up=False)
    bench.do(bench.core.on_hub_down("auth", "wrong key", bench.now))
    (given_up,) = [effect for effect in bench.other if isinstance(effect, GiveUp)]
    assert given_up.kind == "AuthFailed"
    assert "wrong key" in given_up.detail


@pytest.mark.parametrize("patient", [True, False])
def test_a_hub_that_never_answered_is_waited_for_if_asked_to(patient: bool) -> None:
    bench = Bench(up=False, patient=patient)
    bench.do(bench.core.on_hub_down("unreachable", "nobody there", bench.now))
    given_up = [effect.kind for effect in bench.other if isinstance(effect, GiveUp)]
    assert given_up == ([] if patient else ["HubUnreachable"])


def test_a_hub_that_answered_once_is_always_waited_for() -> None:
    bench = Bench(patient=False)
    bench.do(bench.core.on_hub_down("lost", "gone", bench.now))
    bench.do(bench.core.on_hub_down("unreachable", "nobody there", bench.now))
    assert not any(isinstance(effect, GiveUp) for effect in bench.other)


def test_a_refusal_later_is_only_a_reason_to_try_again() -> None:
    bench = Bench()
    bench.hub(Fault("VersionMismatch", "a new hub"))
    assert not any(isinstance(effect, GiveUp) for effect in bench.other)
    bench.pass_time(5.0)
    assert len(dials(bench)) > 1


def test_a_fault_about_one_message_does_not_cost_the_line() -> None:
    bench = Bench()
    bench.hub(Fault("ProtocolError", "what was that?"))
    assert not any(isinstance(effect, DropHub) for effect in bench.other)


def test_samples_are_taken_every_few_seconds_while_the_hub_listens() -> None:
    bench = Bench()
    bench.all_up()
    bench.pass_time(4.5)
    assert bench.other.count(TakeSample()) == 2
    bench.do(bench.core.on_sample(MachineInfo(cores=2), bench.now))
    assert bench.said(Sample) == [Sample(MachineInfo(cores=2), 1)]
    bench.hub_down()
    bench.do(bench.core.on_sample(MachineInfo(), bench.now))
    assert bench.said(Sample) == []


def test_the_end_of_the_provider_is_a_goodbye_and_nothing_more_is_started() -> None:
    bench = Bench()
    bench.do(bench.core.stop(bench.now))
    assert [type(message) for message in bench.to_hub] == [Goodbye]
    bench.ends(bench.starting[0])
    assert bench.starting == []
    assert bench.core.on_hub_down("closed", "", bench.now) == []


def test_two_welcomes_do_no_harm() -> None:
    bench = Bench()
    bench.all_up()
    bench.to_hub.clear()
    assert bench.hub(Welcome("h-1", VERSIONS)) == []


def test_no_death_of_an_actor_is_lost_with_the_line() -> None:
    bench = Bench()
    (worker,) = bench.all_up()
    bench.actor()
    bench.hub_down()
    bench.ends(worker)
    bench.hub_up()
    assert [one.actor for one in bench.said(ActorEnded)] == ["a-1"]
