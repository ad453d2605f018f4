"""What an app may do in the whole hub: by its grant, and not a step further; and what becomes of
its work when the grant changes."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.security.grants import Quotas
from guactors.security.keys import Kind
from tests.unit.hub.bench import endpoint, spec
from tests.unit.hub.keyed_bench import APP, OTHER, OWNER, PROVIDER, KeyedBench, transport_of
from tests.unit.security.samples import secret

IMAGE = "sha3-256:" + "1" * 64


@pytest.fixture
def bench() -> KeyedBench:
    """A keyed provider with two CPUs and two apps without a grant."""
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, OTHER, PROVIDER)
    bench.keyed_provider(labels={"zone": "lab"})
    return bench


def denied(bench: KeyedBench, peer: str = "c-1") -> str:
    told = bench.one(peer, m.DemandInfeasible)
    assert told.kind == "PermissionDenied", told
    assert not bench.heard("p-1", m.StartLease)
    assert any(x.decision == "refused" and x.who == APP.public.text for x in bench.core.decisions)
    return told.reason


def test_without_a_grant_nothing_runs(bench: KeyedBench) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.demand("c-1")
    assert "no grant" in denied(bench)


def test_an_actor_without_a_grant_is_dead_at_once(bench: KeyedBench) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.create(spec())
    update = bench.one("c-1", m.ActorUpdate)
    assert update.state == "dead"
    assert update.death is not None
    assert update.death.cause == "refused"


@pytest.mark.parametrize(
    ("grant", "shape", "words"),
    [
        ({"providers": [secret(Kind.PROVIDER, 9).public.text]}, {}, "provider"),
        ({"providers": ["label:zone=hall"]}, {}, "provider"),
        ({"runtimes": ["docker"]}, {}, "runtime"),
        ({}, {"runtime": "native"}, ""),
        ({"image_hashes": []}, {"runtime": "native", "image": IMAGE}, "image"),
        ({"max_priority": 3}, {"priority": 4}, "priority"),
        ({"actions": ["read_stats"]}, {}, "submit"),
        ({"quotas": Quotas(500, "*", "*", "*", "*")}, {}, "CPU"),
        ({"quotas": Quotas("*", "*", "*", "*", 0)}, {}, "instances"),
    ],
)
def test_a_grant_that_does_not_fit_is_named(
    bench: KeyedBench, grant: dict[str, Any], shape: dict[str, Any], words: str
) -> None:
    bench.grant(**grant)
    bench.come(APP, "c-1", "s-1")
    bench.demand("c-1", **shape)
    if words:
        assert words in denied(bench)
    else:
        assert bench.start_leases()


@pytest.mark.parametrize(
    ("modes", "ways", "found"),
    [
        (["suspend"], [], "suspend"),
        (["requeue", "stop"], [], ""),
        (["requeue"], ["suspend", "requeue"], "requeue"),
        ([], [], ""),
        (["*"], ["stop"], "stop"),
    ],
)
def test_others_are_pushed_aside_only_as_the_grant_allows(
    bench: KeyedBench, modes: list[str], ways: list[str], found: str
) -> None:
    bench.grant(preemption=modes)
    bench.caller("c-9", "s-9")
    bench.leases("c-9", 2, preemption=ways)
    bench.come(APP, "c-1", "s-1")
    bench.demand("c-1", priority=10)
    orders = bench.heard("p-1", m.StartLease)
    assert [word.mode for order in orders for word in order.displaces] == [found] * bool(found)
    assert not bench.heard("c-1", m.DemandInfeasible), "it waits as everybody does"


@pytest.mark.parametrize("place", ["*", PROVIDER.public.text, "label:zone=lab"])
def test_a_provider_is_granted_by_key_label_or_star(bench: KeyedBench, place: str) -> None:
    bench.grant(providers=[place])
    bench.come(APP, "c-1", "s-1")
    assert bench.leases("c-1")
    [warrant] = bench.warrants["p-1"]
    assert (warrant.session, warrant.key) == ("s-1", APP.public.text)
    assert len(warrant.grants) == 1


def test_the_order_names_the_callers_key_and_principal(bench: KeyedBench) -> None:
    bench.grant()
    bench.come(APP, "c-1", "s-1")
    bench.demand("c-1")
    order = bench.one("p-1", m.StartLease)
    assert (order.key, order.principal) == (transport_of(APP), APP.public.text)


def test_a_quota_bounds_what_is_held_at_a_time_and_the_rest_waits(bench: KeyedBench) -> None:
    bench.grant(quotas=Quotas(1000, "*", "*", "*", "*"))
    bench.come(APP, "c-1", "s-1")
    bench.demand("c-1", count=2)
    assert len(bench.start_leases()) == 1
    [lease] = bench.granted("c-1")
    assert not bench.heard("c-1", m.DemandInfeasible)
    bench.say("c-1", m.ReturnLease(lease))
    assert len(bench.start_leases()) == 1


def test_a_quota_is_of_the_app_in_all_its_sessions(bench: KeyedBench) -> None:
    bench.grant(quotas=Quotas("*", "*", "*", "*", 1))
    bench.come(APP, "c-1", "s-1")
    bench.come(APP, "c-2", "s-2")
    assert bench.leases("c-1")
    bench.demand("c-2")
    assert not bench.start_leases()


def test_a_provider_whose_owner_refuses_is_not_asked_again(bench: KeyedBench) -> None:
    bench.grant()
    bench.come(APP, "c-1", "s-1")
    bench.demand("c-1")
    order = bench.one("p-1", m.StartLease)
    bench.say("p-1", m.LeaseEnded(order.lease, m.DeathReport("refused", "not on my machine")))
    assert "not on my machine" in denied(bench)
    second = secret(Kind.PROVIDER, 2)
    bench.approve(second)
    bench.keyed_provider("p-2", second)
    assert bench.start_leases()
    assert bench.granted("c-1")


def test_an_actor_refused_by_one_provider_goes_to_another(bench: KeyedBench) -> None:
    bench.grant()
    second = secret(Kind.PROVIDER, 2)
    bench.approve(second)
    bench.keyed_provider("p-2", second)
    bench.come(APP, "c-1", "s-1")
    bench.create(spec())
    places = []
    for _ in range(2):
        [(place, order)] = [(p, x) for p in ("p-1", "p-2") for x in bench.heard(p, m.StartActor)]
        places.append(place)
        if len(places) == 1:
            ended = m.ActorEnded("a-1", order.incarnation, m.DeathReport("refused", "not here"))
            bench.say(place, ended)
    assert set(places) == {"p-1", "p-2"}
    bench.say(place, m.ActorStarted("a-1", order.incarnation, "w-1", [endpoint("w-1")]))
    assert bench.heard("c-1", m.ActorUpdate)[-1].state == "alive"


# --- others -------------------------------------------------------------------------------------


@pytest.fixture
def two(bench: KeyedBench) -> KeyedBench:
    """Both apps have sessions; the first has an actor with a name."""
    bench.grant(APP)
    bench.grant(OTHER)
    bench.come(APP, "c-1", "s-1")
    bench.come(OTHER, "c-2", "s-2")
    bench.actor(spec(name="counter", namespace="space"))
    return bench


def test_another_apps_actor_is_not_found(two: KeyedBench) -> None:
    two.say("c-2", m.FindActor(5, "counter", "space"))
    two.pass_time(1.0)
    assert two.one("c-2", m.Fault).kind == "UsageError"


def test_another_apps_actor_is_not_watched(two: KeyedBench) -> None:
    two.say("c-2", m.WatchActor("a-1"))
    update = two.one("c-2", m.ActorUpdate)
    assert (update.state, update.endpoints) == ("dead", [])
    assert not two.heard("p-1", m.AdmitCaller)


def test_another_apps_actor_is_not_killed(two: KeyedBench) -> None:
    two.say("c-2", m.KillActor("a-1"))
    assert not two.heard("p-1", m.StopActor)


@pytest.mark.parametrize(("peer", "lives"), [("c-2", True), ("c-1", False), ("c-owner", False)])
def test_another_apps_actor_is_not_killed_before_it_is_known_either(
    two: KeyedBench, peer: str, lives: bool
) -> None:
    """As after a restart of the hub, before the provider has told of it."""
    two.say(peer, m.KillActor("a-2"))
    two.say("c-2", m.KillActor("a-2"))
    two.create(spec("a-2"))
    assert two.heard("c-1", m.ActorUpdate)[-1].state == ("pending" if lives else "dead")


def test_another_apps_actor_is_not_listed(two: KeyedBench) -> None:
    assert two.grid("c-2").actors == []
    assert len(two.grid("c-1").actors) == 1
    assert len(two.grid("c-owner").actors) == 1


def test_another_apps_actor_is_not_made_again(two: KeyedBench) -> None:
    two.create(spec(owner="c-2", session="s-2"), "c-2")
    update = two.one("c-2", m.ActorUpdate)
    assert (update.state, update.endpoints) == ("dead", [])
    assert two.core.scheduler.desk.actors.live["a-1"].spec.owner == "c-1"


def test_an_actor_is_made_in_ones_own_session_only(two: KeyedBench) -> None:
    two.create(spec("a-2", owner="c-2", session="s-1"), "c-2")
    assert two.one("c-2", m.ActorUpdate).state == "dead"


def test_another_apps_name_is_taken_without_a_word_about_it(two: KeyedBench) -> None:
    two.create(spec("a-2", owner="c-2", session="s-2", name="counter", namespace="space"), "c-2")
    fault = two.one("c-2", m.Fault)
    assert fault.kind == "NameTaken"
    assert "a-1" not in fault.detail


def test_another_apps_leases_are_not_returned_or_claimed(two: KeyedBench) -> None:
    [lease] = two.leases("c-1")
    two.say("c-2", m.ReturnLease(lease, dead=True))
    two.say("c-2", m.HeldLeases([lease]))
    assert two.core.scheduler.desk.leases.by_id[lease].caller == "c-1"


def test_nothing_is_relayed_to_another_apps_process(two: KeyedBench) -> None:
    two.say("c-2", m.Relay("c-1", b"hello"))
    assert two.one("c-2", m.Fault).kind == "PeerLost"
    assert not two.heard("c-1", m.Relay)


def test_another_apps_session_is_not_listed_or_closed(two: KeyedBench) -> None:
    answer = two.ask(m.AskSessions(0), "c-2")
    assert isinstance(answer, m.SessionList)
    assert [row.session for row in answer.sessions] == ["s-2"]
    assert isinstance(two.ask(m.CloseSession(0, "s-1"), "c-2"), m.Fault)
    assert "s-1" in two.core.hub.sessions


def test_an_administrator_sees_and_closes_all_sessions(two: KeyedBench) -> None:
    answer = two.ask(m.AskSessions(0))
    assert isinstance(answer, m.SessionList)
    assert {row.principal for row in answer.sessions} == {APP.public.text, OTHER.public.text}
    two.done(m.CloseSession(0, "s-1"))
    assert "s-1" not in two.core.hub.sessions
    assert two.heard("p-1", m.EndSession)
    assert two.one("c-1", m.Goodbye)


def test_an_app_is_no_administrator(two: KeyedBench) -> None:
    for question in (
        m.AskKeys(0), m.ApproveKey(0, OTHER.public.text), m.RevokeKey(0, APP.public.text),
        m.MakeInvitation(0, "app"), m.AskAudit(0),
    ):  # fmt: skip
        answer = two.ask(question, "c-2")
        assert isinstance(answer, m.Fault), question
        assert answer.kind == "PermissionDenied"


def test_a_process_of_the_same_app_may_call_the_actor_and_is_let_in_first(
    two: KeyedBench,
) -> None:
    two.come(APP, "c-3", "s-3")
    two.say("c-3", m.WatchActor("a-1"))
    assert two.one("p-1", m.AdmitCaller) == m.AdmitCaller("a-1", transport_of(APP))
    assert two.one("c-3", m.ActorUpdate).endpoints


# --- changes ------------------------------------------------------------------------------------


@pytest.fixture
def running(bench: KeyedBench) -> KeyedBench:
    """An app with a lease and a detached actor, granted by number 1."""
    bench.grant()
    bench.come(APP, "c-1", "s-1")
    assert bench.leases("c-1")
    bench.actor(spec(name="counter", namespace="space", detached=True))
    return bench


def test_a_revoked_key_is_cut_off_with_all_that_runs(running: KeyedBench) -> None:
    running.done(m.RevokeKey(0, APP.public.text, reason="stolen"))
    fault = running.one("c-1", m.Fault)
    assert (fault.kind, "stolen" in fault.detail) == ("AuthFailed", True)
    assert running.shut_out == [transport_of(APP)]
    assert running.heard("p-1", m.Revoked)[-1].keys == [APP.public.text]
    desk = running.core.scheduler.desk
    assert not desk.leases.by_id
    assert not desk.actors.live
    link, _ = running.knock(APP, "c-9", "s-9")
    assert running.one("c-9", m.Fault).kind == "AuthFailed"
    assert link


def test_what_a_revoked_key_says_next_is_not_heard(running: KeyedBench) -> None:
    link = running.link_of["c-1"]
    running.done(m.RevokeKey(0, APP.public.text))
    running.trays["c-1"].clear()
    running.feed(link, m.SetDemand("d-9", m.Shape({"CPU": 1.0}), 1))
    assert not running.heard("p-1", m.StartLease)
    assert running.trays["c-1"] == []


def test_a_revoked_key_may_let_its_work_finish(running: KeyedBench) -> None:
    running.done(m.RevokeKey(0, APP.public.text, "finish"))
    desk = running.core.scheduler.desk
    assert len(desk.leases.by_id) == 1
    assert running.shut_out == []
    running.demand("c-1", "d-2")
    assert running.one("c-1", m.DemandInfeasible).kind == "PermissionDenied"


def test_a_revoked_grant_ends_what_only_it_allowed(running: KeyedBench) -> None:
    running.done(m.RevokeGrant(0, OWNER.public.text, 1))
    desk = running.core.scheduler.desk
    assert not desk.leases.by_id
    assert not desk.actors.live
    assert running.heard("c-1", m.LeaseLost)[0].death.cause == "revoked"
    assert running.heard("p-1", m.Revoked)[-1].grants == [f"{OWNER.public.text} 1"]
    assert "c-1" in running.core.hub.peers.by_id


def test_who_may_do_nothing_any_more_may_still_give_back_and_end_what_he_has(
    running: KeyedBench,
) -> None:
    running.done(m.RevokeGrant(0, OWNER.public.text, 1, "finish"))
    (lease,) = running.core.scheduler.desk.leases.by_id
    running.say("c-1", m.SetDemand("d-1", m.Shape({"CPU": 1.0}), 0))
    running.say("c-1", m.ReturnLease(lease))
    running.say("c-1", m.KillActor("a-1"))
    assert running.one("p-1", m.StopLease).lease == lease
    assert running.one("p-1", m.StopActor).actor == "a-1"
    assert not running.heard("c-1", m.DemandInfeasible)
    assert not running.heard("c-1", m.Fault)


@pytest.mark.parametrize("lost", [True, False])
def test_a_lease_that_ends_after_its_grant_did_is_refused_and_not_waited_for(
    running: KeyedBench, lost: bool
) -> None:
    """It was held when the grant was revoked, so there was nothing to refuse yet."""
    (lease,) = running.core.scheduler.desk.leases.by_id
    running.done(m.RevokeGrant(0, OWNER.public.text, 1, "finish"))
    assert not running.heard("c-1", m.DemandInfeasible)
    if lost:
        running.say("p-1", m.LeaseEnded(lease, m.DeathReport("signal")))
    else:
        running.say("c-1", m.ReturnLease(lease, True))
    assert running.one("c-1", m.DemandInfeasible).kind == "PermissionDenied"


def test_a_revoked_grant_leaves_what_another_allows(running: KeyedBench) -> None:
    running.grant()
    running.done(m.RevokeGrant(0, OWNER.public.text, 1))
    assert len(running.core.scheduler.desk.leases.by_id) == 1
    assert running.warrants["p-1"][-1].grants != running.warrants["p-1"][0].grants


def test_a_new_grant_serves_what_was_refused(bench: KeyedBench) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.demand("c-1")
    denied(bench)
    bench.grant()
    bench.demand("c-1")
    assert bench.start_leases()


def test_a_grant_that_expires_ends_what_it_allowed(bench: KeyedBench) -> None:
    bench.grant(expires=int(bench.wall(bench.now)) + 5)
    bench.come(APP, "c-1", "s-1")
    assert bench.leases("c-1")
    bench.pass_time(7.0)
    assert not bench.core.scheduler.desk.leases.by_id


def test_a_provider_that_joins_later_hears_what_was_revoked(running: KeyedBench) -> None:
    running.done(m.RevokeKey(0, APP.public.text))
    second = secret(Kind.PROVIDER, 2)
    running.approve(second)
    running.come(second, "p-2")
    assert running.one("p-2", m.Revoked).keys == [APP.public.text]


def test_a_revoked_provider_is_gone_with_all_that_it_had(running: KeyedBench) -> None:
    running.done(m.RevokeKey(0, PROVIDER.public.text))
    assert not running.core.scheduler.desk.slots
    assert running.one("c-1", m.LeaseLost).death.cause == "provider_lost"
