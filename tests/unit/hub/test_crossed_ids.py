"""What app, worker and provider of one principal try on those of another, by ids that they chose or
saw."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.scheduling import events as e
from guactors.scheduling.events import Decision
from guactors.security.keys import Kind
from guactors.security.rights import Rights
from guactors.security.signing import envelope_text
from guactors.security.succession import name_successor
from guactors.transport.base import Lane
from tests.unit.hub.bench import VERSIONS, death, endpoint, spec
from tests.unit.hub.keyed_bench import (
    APP,
    EPOCH,
    OTHER,
    OWNER,
    PROVIDER,
    KeyedBench,
    transport_of,
)
from tests.unit.security.samples import secret

SECOND = secret(Kind.PROVIDER, 2)


@pytest.fixture
def bench() -> KeyedBench:
    made = KeyedBench()
    made.owner()
    made.approve(APP, OTHER, PROVIDER, SECOND)
    made.grant(APP)
    made.grant(OTHER)
    made.keyed_provider("p-1", cpus=8.0)
    return made


def worker(bench: KeyedBench, session: str, peer: str = "w-1", link: str = "k-evil") -> None:
    """A process of the provider p-1 comes as a worker of ``session``, with the peer id it likes."""
    bench.user_of[link] = "T-evil"
    bench.say("p-1", m.Vouch("w-1", "T-evil", session))
    hello = m.Hello(peer, "caller", VERSIONS, 1, "there", session)
    bench.link_of[peer] = link
    bench.feed(link, hello, Lane.CONTROL)
    bench.feed(link, hello, Lane.DATA)
    bench.trays.setdefault(peer, []).clear()


def link_of_peer(bench: KeyedBench, peer: str) -> str | None:
    return bench.core.hub.peers.by_id[peer].link


# --- ids of peers ---------------------------------------------------------------------------------


def test_the_peer_id_of_an_owner_that_left_gives_nobody_its_detached_actor(
    bench: KeyedBench,
) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.actor(spec(name="db", namespace="space", detached=True, max_restarts=3))
    bench.say("c-1", m.Goodbye("done"))
    bench.pass_time(1)
    bench.trays.clear()
    # The id is in the listing that every app with read_stats sees.
    link, hello = bench.knock(OTHER, "c-1", "s-2")
    bench.prove(OTHER, link, hello)
    bench.say("p-1", m.ActorEnded("a-1", 0, death()))
    [order] = bench.heard("p-1", m.StartActor)
    bench.say("p-1", m.ActorStarted("a-1", 1, "w-2", [endpoint("w-2")]))
    assert transport_of(OTHER) not in order.keys
    assert bench.heard("c-1", m.ActorUpdate) == []


@pytest.mark.parametrize("session", ["s-1", "s-2"])
def test_a_worker_cannot_take_the_place_of_a_root_caller(bench: KeyedBench, session: str) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.leases("c-1")
    root = "c-1" if session == "s-1" else "c-2"
    if root == "c-2":
        bench.come(APP, "c-2", "s-2")
    before = link_of_peer(bench, root)
    worker(bench, "s-1", peer=root)
    assert link_of_peer(bench, root) == before


def test_a_worker_of_a_local_session_cannot_take_the_place_of_a_local_tool(
    bench: KeyedBench,
) -> None:
    bench.caller("c-loc", "s-l")
    bench.leases("c-loc")
    bench.hello(m.Hello("c-http", "caller", VERSIONS, 1, "here"))
    before = link_of_peer(bench, "c-http")
    worker(bench, "s-l", peer="c-http")
    assert link_of_peer(bench, "c-http") == before


def test_the_owner_of_an_actor_is_who_made_it(bench: KeyedBench) -> None:
    """Else its maker speaks in the name of the other: news, refusals, and demands."""
    bench.come(APP, "c-1", "s-1")
    bench.come(OTHER, "c-2", "s-2")
    bench.trays["c-1"].clear()
    made = spec("d-1", "c-1", "s-2", placement={"CPU": 100.0})
    bench.say("c-2", m.CreateActor(1, made, b"class"))
    assert bench.trays["c-1"] == []


# --- sessions -------------------------------------------------------------------------------------


def test_nobody_joins_a_session_ahead_of_whom_it_belongs_to(bench: KeyedBench) -> None:
    link, hello = bench.knock(OTHER, "c-2", "s-1", root=False)
    bench.prove(OTHER, link, hello)
    bench.come(APP, "c-1", "s-1")
    bench.demand("c-2")
    assert bench.heard("p-1", m.StartLease) == []


def test_a_session_id_used_again_by_another_does_not_run_by_the_old_warrant(
    bench: KeyedBench,
) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.leases("c-1")
    bench.say("c-1", m.Goodbye("done"))
    bench.pass_time(1)
    link, hello = bench.knock(OTHER, "c-2", "s-1")
    bench.prove(OTHER, link, hello)
    bench.trays["p-1"].clear()
    bench.demand("c-2")
    if bench.heard("p-1", m.StartLease):
        assert bench.warrants["p-1"][-1].key == OTHER.public.text


def test_a_worker_closes_no_other_session(bench: KeyedBench) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.come(APP, "c-2", "s-2")
    bench.leases("c-1")
    worker(bench, "s-1")
    bench.say("w-1", m.CloseSession(1, "s-2"))
    assert "s-2" in bench.core.hub.sessions
    bench.say("w-1", m.AskSessions(2))
    assert all(x.session == "s-1" for a in bench.heard("w-1", m.SessionList) for x in a.sessions)


def test_a_worker_of_an_owner_has_no_power_over_others(bench: KeyedBench) -> None:
    bench.come(OWNER, "c-o", "s-o")
    bench.come(APP, "c-1", "s-1")
    bench.leases("c-o")
    bench.actor(spec())
    worker(bench, "s-o")
    bench.say("w-1", m.WatchActor("a-1"), m.KillActor("a-1"), m.CloseSession(1, "s-1"))
    assert bench.heard("p-1", m.AdmitCaller) == []
    assert bench.heard("p-1", m.StopActor) == []
    assert "s-1" in bench.core.hub.sessions


def test_a_worker_of_a_session_that_is_over_sees_nothing(bench: KeyedBench) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.leases("c-1")
    bench.say("c-1", m.Goodbye("done"))
    bench.pass_time(1)
    worker(bench, "s-1")
    bench.say("w-1", m.AskGrid(1))
    assert bench.heard("w-1", m.Grid) == []


# --- what one may do to another -------------------------------------------------------------------


def test_nobody_kills_an_actor_of_another_ahead_of_its_creation(bench: KeyedBench) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.come(OTHER, "c-2", "s-2")
    bench.say("c-2", m.KillActor("a-1"))
    assert bench.actor(spec()).state == "alive"


def test_a_provider_cannot_vouch_away_the_worker_of_another(bench: KeyedBench) -> None:
    bench.come(SECOND, "p-2")
    bench.say("p-2", m.Offer({"CPU": 1.0}, {}, [], [], m.MachineInfo()))
    bench.come(APP, "c-1", "s-1")
    bench.leases("c-1", provider="p-1")
    bench.come(OTHER, "c-2", "s-2")
    bench.leases("c-2", provider="p-2")
    bench.user_of["k-w"], bench.link_of["w-9"] = "T-w", "k-w"
    bench.say("p-1", m.Vouch("w-9", "T-w", "s-1"))
    bench.say("p-2", m.Vouch("w-9", "T-w", "s-2"))
    bench.feed("k-w", m.Hello("w-9", "caller", VERSIONS, 1, "there", "s-1"), Lane.CONTROL)
    assert bench.heard("w-9", m.Welcome)


def test_work_pinned_by_a_name_does_not_follow_who_takes_the_name(bench: KeyedBench) -> None:
    bench.come(SECOND, "p-2", name="p-1")
    bench.say("p-2", m.Offer({"CPU": 1000.0}, {}, [], [], m.MachineInfo()))
    bench.come(APP, "c-1", "s-1")
    bench.demand("c-1", provider="p-1")
    assert bench.heard("p-2", m.StartLease) == []


def test_what_a_provider_reports_is_not_written_down_as_of_others(bench: KeyedBench) -> None:
    before = len(bench.core.decisions)
    bench.say("p-1", m.Report(OWNER.public.text, "revoke", "x", "revoked", "forged"))
    [line] = bench.core.decisions[before:]
    assert isinstance(line, Decision)
    assert PROVIDER.public.text in (line.who, line.where)


# --- revocation -----------------------------------------------------------------------------------


def test_a_worker_that_comes_late_does_not_bring_a_revoked_key_back(bench: KeyedBench) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.leases("c-1")
    bench.done(m.RevokeKey(0, APP.public.text, "finish"))
    worker(bench, "s-1")
    bench.demand("w-1", "d-2")
    assert bench.heard("p-1", m.StartLease) == []


def test_a_reserved_session_is_kept_as_long_as_was_said(bench: KeyedBench) -> None:
    """And nobody else can take its id meanwhile."""
    standing = e.Standing(APP.public.text, "app", "app", Rights(), transport_of(APP))
    reserved = e.SessionReserved("s-r", standing, "later", 3600.0)
    bench.carry(bench.core.on_event(reserved, bench.now))
    bench.pass_time(60)
    assert "s-r" in bench.core.hub.sessions


# --- limits ---------------------------------------------------------------------------------------


def control_only(bench: KeyedBench, key: Any, peer: str) -> None:
    """Comes in, but never opens its data lane."""
    transport = transport_of(key)
    hello = m.Hello(peer, "caller", VERSIONS, 1, "there", key=key.public.text, transport=transport)
    link = f"k-{peer}"
    bench.link_of[peer], bench.user_of[link] = link, transport
    bench.feed(link, hello, Lane.CONTROL)
    bench.prove(key, link, hello)


def test_answers_for_a_data_lane_that_never_opens_have_a_bound(bench: KeyedBench) -> None:
    control_only(bench, APP, "c-1")
    for request in range(12_000):
        bench.core.on_message(
            bench.link_of["c-1"], m.AskGrants(request), bench.now, None, transport_of(APP)
        )
    peer = bench.core.hub.peers.by_id.get("c-1")
    assert peer is None or len(peer.held) <= 10_000


def test_strangers_do_not_keep_the_data_lanes_of_members_shut(bench: KeyedBench) -> None:
    for number in range(1000):
        link = f"k-x{number}"
        bench.user_of[link] = f"T-x{number}"
        bench.feed(link, m.Hello("z", "caller", VERSIONS, 1, "far"), Lane.DATA)
    bench.come(APP, "c-1", "s-1")  # both lanes say Hello at once
    assert bench.core.hub.peers.by_id["c-1"].data_open


def test_what_a_proof_brings_that_nobody_verified_is_not_kept(bench: KeyedBench) -> None:
    bench.come(APP, "c-1")
    new = secret(Kind.APP, 5)
    bench.ask(m.PutSuccession(0, envelope_text(name_successor(APP, new, int(EPOCH)))), "c-1")
    link, hello = bench.knock(new, "c-2", "s-2")
    bench.prove(new, link, hello, successions=[b"j" * 262_144] * 3)
    kept = bench.core.hub.sessions._warrants.get("s-2")
    assert kept is None or kept.successions == []


def test_one_link_is_one_peer(bench: KeyedBench) -> None:
    bench.come(APP, "c-1", "s-1")
    bench.leases("c-1")
    link, transport = "k-two", transport_of(OTHER)
    bench.user_of[link], bench.link_of["c-2"] = transport, link
    bench.feed(link, m.Hello("w-7", "caller", VERSIONS, 1, "there", "s-1"), Lane.CONTROL)
    hello = m.Hello(
        "c-2", "caller", VERSIONS, 1, "there", "s-2", True,
        key=OTHER.public.text, transport=transport,
    )  # fmt: skip
    bench.feed(link, hello, Lane.CONTROL)
    bench.prove(OTHER, link, hello)
    bench.say("p-1", m.Vouch("w-7", transport, "s-1"))  # check() fails here
