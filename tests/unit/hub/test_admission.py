"""Who gets in to the whole hub, whose process somebody may be, and whose session he may join."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from guactors import messages as m
from guactors.security.keys import Kind
from guactors.security.statements import HELLO_TYPE, make_statement
from guactors.transport.base import Lane
from tests.unit.hub.bench import VERSIONS, spec
from tests.unit.hub.keyed_bench import (
    APP,
    HUB,
    OTHER,
    OWNER,
    PROVIDER,
    KeyedBench,
    transport_of,
)
from tests.unit.security.samples import secret


@pytest.fixture
def bench() -> KeyedBench:
    bench = KeyedBench()
    bench.owner()
    return bench


def turned_away(bench: KeyedBench, peer: str, kind: str = "AuthFailed") -> str:
    """It heard one refusal and no welcome; the text."""
    assert not bench.heard(peer, m.Welcome)
    fault = bench.one(peer, m.Fault)
    assert fault.kind == kind, fault
    assert peer not in bench.core.hub.peers.by_id
    return fault.detail


def refusals(bench: KeyedBench) -> list[tuple[str, str]]:
    return [(x.action, x.reason) for x in bench.core.decisions if x.decision == "refused"]


def test_an_owner_needs_no_approval(bench: KeyedBench) -> None:
    assert bench.core.hub.peers.by_id["c-owner"].standing.rights.everything


def test_an_app_waits_for_its_approval_and_then_comes_in(bench: KeyedBench) -> None:
    link, hello = bench.knock(APP, "c-1", "s-1")
    bench.prove(APP, link, hello)
    assert APP.public.text in turned_away(bench, "c-1", "PendingApproval")
    bench.approve(APP)
    bench.come(APP, "c-1", "s-1")


def test_without_a_key_nobody_comes_in_from_elsewhere(bench: KeyedBench) -> None:
    bench.link_of["c-1"], bench.user_of["k-1"] = "k-1", "some curve key"
    bench.feed("k-1", m.Hello("c-1", "caller", VERSIONS, 1, "there", "s-1", True))
    assert "gu key new app" in turned_away(bench, "c-1")
    assert refusals(bench) == [("join", "no_key")]


def test_of_a_stranger_nothing_is_heard_and_nothing_kept(bench: KeyedBench) -> None:
    bench.link_of["c-1"], bench.user_of["k-1"] = "k-1", "some curve key"
    bench.feed("k-1", m.CreateActor(1, spec(), b"x" * 1000), Lane.DATA)
    bench.feed("k-1", m.SetDemand("d", m.Shape({}), 1), Lane.CONTROL)
    assert bench.one("c-1", m.Fault).kind == "ProtocolError"
    bench.approve(APP)
    link = bench.come(APP, "c-2", "s-1")
    assert bench.core.scheduler.desk.actors.find("a-1") is None
    assert link in bench.user_of


def test_what_is_said_before_the_proof_counts_for_nothing(bench: KeyedBench) -> None:
    bench.approve(APP)
    bench.grant()
    link, hello = bench.knock(APP, "c-1", "s-1")
    bench.feed(link, m.CreateActor(1, spec(), b"class"), Lane.DATA)
    bench.prove(APP, link, hello)
    bench.one("c-1", m.Welcome)
    assert bench.core.scheduler.desk.actors.find("a-1") is None


def test_a_proof_by_another_key_is_refused(bench: KeyedBench) -> None:
    bench.approve(APP, OTHER)
    link, hello = bench.knock(APP, "c-1", "s-1")
    bench.prove(OTHER, link, hello)
    turned_away(bench, "c-1")


def test_a_proof_that_came_over_another_connection_is_refused(bench: KeyedBench) -> None:
    """Somebody passes on, over a connection of his own, what a victim signs."""
    bench.approve(APP)
    link, hello = bench.knock(APP, "c-1", "s-1")
    bench.user_of[link] = transport_of(OTHER)
    bench.prove(APP, link, hello)
    turned_away(bench, "c-1")


def test_each_message_must_come_from_the_key_that_began_the_link(bench: KeyedBench) -> None:
    bench.approve(APP)
    bench.grant()
    link = bench.come(APP, "c-1", "s-1")
    bench.user_of[link] = transport_of(OTHER)
    bench.say("c-1", m.AskGrid(1))
    assert not bench.heard("c-1", m.Grid)
    assert "another key" in bench.one("c-1", m.Fault).detail


def test_nobody_takes_the_name_of_anothers_process(bench: KeyedBench) -> None:
    bench.approve(APP, OTHER)
    bench.come(APP, "c-1", "s-1")
    link, hello = bench.knock(OTHER, "c-1", "s-2")
    bench.prove(OTHER, link, hello)
    fault = bench.one("c-1", m.Fault)
    assert "somebody else's process" in fault.detail
    assert bench.core.hub.peers.by_id["c-1"].standing.principal == APP.public.text
    assert ("join", "session") in refusals(bench)


@pytest.mark.parametrize("root", [True, False])
def test_nobody_enters_anothers_session(bench: KeyedBench, root: bool) -> None:
    bench.approve(APP, OTHER)
    bench.come(APP, "c-1", "s-1")
    link, hello = bench.knock(OTHER, "c-2", "s-1", root=root)
    bench.prove(OTHER, link, hello)
    assert "belongs to somebody else" in turned_away(bench, "c-2")


def test_a_share_above_everybodys_is_the_owners(bench: KeyedBench) -> None:
    bench.approve(APP)
    link, hello = bench.knock(APP, "c-1", "s-1", share=1.5)
    bench.prove(APP, link, hello)
    fault = bench.one("c-1", m.Fault)
    assert (fault.kind, fault.detail) == (
        "PermissionDenied", "share=1.5: more than 1 is for the grid's owner",
    )  # fmt: skip
    assert ("join", "share") in refusals(bench)
    bench.come(APP, "c-2", "s-1", share=0.5)
    bench.come(OWNER, "c-3", "s-3", share=100.0)
    shares = bench.core.scheduler.desk.demands.shares
    assert (shares.share("s-1"), shares.share("s-3")) == (0.5, 100.0)


def test_a_key_of_the_wrong_kind_is_refused_by_name(bench: KeyedBench) -> None:
    bench.knock(secret(Kind.SIGNER), "c-1", "s-1")
    assert "signer" in turned_away(bench, "c-1")
    link, _ = bench.knock(PROVIDER, "p-1")
    bench.knock(PROVIDER, "c-3", "s-1", root=True)
    assert ("join", "wrong_kind") in refusals(bench)
    assert link


def test_an_app_is_no_provider(bench: KeyedBench) -> None:
    bench.approve(APP)
    hello = m.Hello(
        "p-1", "provider", VERSIONS, 1, "there",
        key=APP.public.text, transport=transport_of(APP),
    )  # fmt: skip
    bench.link_of["p-1"], bench.user_of["k-p"] = "k-p", transport_of(APP)
    bench.feed("k-p", hello, Lane.CONTROL)
    assert "provider" in turned_away(bench, "p-1")


def test_a_replayed_proof_opens_no_second_door(bench: KeyedBench) -> None:
    bench.approve(APP)
    link, _ = bench.knock(APP, "c-1", "s-1")
    challenge = bench.one("c-1", m.Challenge)
    statement = make_statement(
        hub=HUB.public.text, key=APP.public.text, link=link, nonce=challenge.nonce, peer="c-1",
        role="caller", session="s-1", transport=transport_of(APP), at=bench.wall(bench.now),
    )  # fmt: skip
    proof = m.Proof(statement, APP.sign(HELLO_TYPE, statement))
    bench.feed(link, proof, Lane.CONTROL)
    bench.one("c-1", m.Welcome)
    again, _ = bench.knock(APP, "c-2", "s-1")
    bench.feed(again, proof, Lane.CONTROL)
    turned_away(bench, "c-2")


# --- workers ------------------------------------------------------------------------------------


def worker(bench: KeyedBench, peer: str = "c-w", session: str = "s-1", **more: object) -> m.Hello:
    """A worker's nested session says Hello over TCP, with a CURVE key and no other."""
    hello = m.Hello(peer, "caller", VERSIONS, 1, "there", session, transport="worker key")
    hello = replace(hello, **more)
    bench.link_of[peer], bench.user_of[f"k-{peer}"] = f"k-{peer}", "worker key"
    bench.feed(f"k-{peer}", hello, Lane.CONTROL)
    return hello


@pytest.fixture
def working(bench: KeyedBench) -> KeyedBench:
    """An app's session with a lease on a keyed provider."""
    bench.approve(APP, PROVIDER)
    bench.grant()
    bench.keyed_provider()
    bench.come(APP, "c-1", "s-1")
    assert bench.leases("c-1")
    return bench


def test_a_worker_works_with_the_rights_of_its_session(working: KeyedBench) -> None:
    working.say("p-1", m.Vouch("w-1", "worker key", "s-1"))
    worker(working)
    working.one("c-w", m.Welcome)
    standing = working.core.hub.peers.by_id["c-w"].standing
    assert standing.principal == APP.public.text
    assert not standing.rights.everything
    assert working.leases("c-w")


def test_a_worker_that_was_faster_than_its_provider_waits(working: KeyedBench) -> None:
    worker(working)
    assert not working.heard("c-w", m.Welcome)
    working.say("p-1", m.Vouch("w-1", "worker key", "s-1"))
    working.one("c-w", m.Welcome)


def test_a_worker_nobody_vouches_for_is_turned_away(working: KeyedBench) -> None:
    worker(working)
    working.mute.add("c-w")
    working.pass_time(6.0)
    turned_away(working, "c-w")
    assert ("join", "no_key") in refusals(working)


@pytest.mark.parametrize("more", [{"session": "s-2"}, {"root": True}, {"role": "provider"}])
def test_a_worker_is_nothing_but_a_worker(working: KeyedBench, more: dict[str, Any]) -> None:
    working.say("p-1", m.Vouch("w-1", "worker key", "s-1"))
    worker(working, **more)
    turned_away(working, "c-w")


def test_a_provider_cannot_vouch_for_a_session_it_never_worked_for(working: KeyedBench) -> None:
    second = secret(Kind.PROVIDER, 2)
    working.approve(second)
    working.keyed_provider("p-2", second)
    working.say("p-2", m.Vouch("w-1", "worker key", "s-1"))
    assert "never worked" in working.one("p-2", m.Fault).detail
    worker(working)
    assert not working.heard("c-w", m.Welcome)


def test_the_word_of_a_provider_ends_with_it(working: KeyedBench) -> None:
    working.say("p-1", m.Vouch("w-1", "worker key", "s-1"))
    working.say("p-1", m.Goodbye("done"))
    worker(working)
    assert not working.heard("c-w", m.Welcome)


# --- a new hub ----------------------------------------------------------------------------------


def test_a_new_hub_knows_the_keys_and_grants_of_the_old_one(working: KeyedBench) -> None:
    working.restart()
    working.keyed_provider()
    working.come(APP, "c-1", "s-1")
    assert working.leases("c-1")


def test_a_worker_waits_for_its_root_before_it_may_anything_at_a_new_hub(
    working: KeyedBench,
) -> None:
    working.restart()
    working.come(PROVIDER, "p-1")
    mark = working.core.scheduler.desk.mark("lease", "l-9", "s-1", "c-w", APP.public.text)
    report = m.LeaseReport(
        "l-9", "s-1", "c-w", m.Shape({"CPU": 1.0}), "w-9", [], APP.public.text, mark
    )
    working.say("p-1", m.Offer({"CPU": 2.0}, {}, [report], [], m.MachineInfo()))
    working.say("p-1", m.Vouch("w-9", "worker key", "s-1"))
    worker(working)
    working.one("c-w", m.Welcome)
    working.demand("c-w")
    assert not working.heard("p-1", m.StartLease)
    working.come(APP, "c-1", "s-1")
    assert working.start_leases()


def test_owners_are_judged_by_nothing() -> None:
    bench = KeyedBench()
    bench.owner()
    bench.approve(PROVIDER)
    bench.keyed_provider()
    bench.come(OWNER, "c-1", "s-1")
    assert bench.leases("c-1", priority=99)
    [warrant] = bench.warrants["p-1"]
    assert (warrant.key, warrant.grants) == (OWNER.public.text, [])
