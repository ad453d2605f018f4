"""Who is in, over which link, and when somebody counts as gone."""

from __future__ import annotations

import pytest

from guactors import messages as m
from guactors.hub_state.peers import Peer, PeerBook
from guactors.scheduling.events import Standing
from guactors.transport.base import Lane
from guactors.transport.liveness import Liveness
from tests.unit.hub.bench import TIMING, VERSIONS, Bench, spec


def test_hello_is_answered_with_the_hubs_own_versions() -> None:
    bench = Bench()
    bench.feed("k-9", m.Hello("c-1", "caller", VERSIONS, 1, "here"))
    assert bench.trays["k-9"] == [m.Welcome("h-1", VERSIONS)]


def test_ping_is_answered_with_its_number() -> None:
    bench = Bench()
    bench.caller()
    bench.say("c-1", m.Ping(41))
    assert bench.one("c-1", m.Pong).number == 41


def test_a_stranger_is_told_to_dial_again() -> None:
    bench = Bench()
    bench.feed("k-9", m.Ping(1))
    assert "dial again" in bench.one("k-9", m.Goodbye).reason
    bench.feed("k-9", m.Goodbye())
    bench.nothing_more()


def test_both_lanes_say_hello_in_either_order() -> None:
    for lanes in ([Lane.CONTROL, Lane.DATA], [Lane.DATA, Lane.CONTROL]):
        bench = Bench()
        bench.link_of["c-1"] = "k-9"
        for lane in lanes:
            bench.feed("k-9", m.Hello("c-1", "caller", VERSIONS, 1, "here", "s-1", True), lane)
        assert len(bench.heard("c-1", m.Welcome)) == 1
        bench.nothing_more()


def test_data_that_overtakes_the_control_hello_waits_for_it() -> None:
    bench = Bench()
    bench.provider()
    hello = m.Hello("c-1", "caller", VERSIONS, 1, "here", "s-1", True)
    bench.link_of["c-1"] = "k-9"
    bench.feed("k-9", hello, Lane.DATA)
    bench.feed("k-9", m.CreateActor(1, spec(), b""), Lane.DATA)
    assert not bench.heard("c-1", m.Message)
    bench.feed("k-9", hello, Lane.CONTROL)
    assert [type(x) for x in bench.heard("c-1", m.Message)] == [m.Welcome, m.ActorUpdate]


def test_nothing_goes_to_a_data_lane_that_has_not_been_heard() -> None:
    bench = Bench()
    bench.caller()
    hello = m.Hello("c-2", "caller", VERSIONS, 1, "here", "s-1")
    bench.link_of["c-2"] = "k-9"
    bench.feed("k-9", hello, Lane.CONTROL)
    bench.heard("c-2", m.Welcome)
    for number in range(3):
        bench.say("c-1", m.Relay("c-2", bytes([number])))
    bench.nothing_more()
    bench.feed("k-9", hello, Lane.DATA)
    assert bench.heard("c-2", m.Relay) == [m.Relay("c-1", bytes([x])) for x in range(3)]


def test_early_data_of_a_link_that_never_says_hello_is_forgotten() -> None:
    bench = Bench()
    bench.feed("k-9", m.Output("s-1", "w-1", 1, "box", 1, "f", []), Lane.DATA)
    bench.pass_time(6.0)
    assert bench.core.next_wake(bench.now) is None


@pytest.mark.parametrize("again", [True, False])
def test_a_broken_link_may_be_replaced_within_the_grace(again: bool) -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    (lease,) = bench.leases()
    bench.break_link("p-1")
    bench.pass_time(TIMING.relink_grace * 0.9)
    bench.nothing_more()
    if again:
        report = m.LeaseReport(lease, "s-1", "c-1", m.Shape({"CPU": 1.0}), "w-1", [])
        bench.provider(leases=[report])
    bench.pass_time(TIMING.relink_grace)
    lost = bench.heard("c-1", m.LeaseLost)
    if again:
        assert not lost
        return
    assert lost[0].death.cause == "provider_lost"
    assert lost[0].death.provider == "box1"


def test_a_new_link_replaces_a_link_that_nobody_saw_break() -> None:
    bench = Bench()
    old = bench.caller()
    new = bench.caller()
    assert old in bench.dropped
    bench.say("c-1", m.Ping(1))
    assert bench.one("c-1", m.Pong)
    bench.feed(old, m.Ping(2))
    assert bench.one(old, m.Goodbye)
    assert new not in bench.dropped


def test_disturbance_probes_every_link() -> None:
    bench = Bench()
    bench.caller()
    bench.caller("c-2")
    bench.provider()
    bench.carry(bench.core.on_disturbed(bench.now))
    for peer in ("c-1", "c-2", "p-1"):
        assert bench.one(peer, m.Ping)


@pytest.mark.parametrize(("peer", "patience"), [("p-1", 1.0), ("c-1", 3.0)])
def test_silence_is_noticed_and_then_final(peer: str, patience: float) -> None:
    bench = Bench()
    bench.caller("c-9", "s-9")
    bench.caller()
    bench.provider()

    def state() -> str:
        return next(row.state for row in bench.grid("c-9").peers if row.peer == peer)

    bench.mute.add(peer)
    bench.pass_time(TIMING.silent_after - 0.2)
    assert state() == "up"
    bench.pass_time(0.4)
    assert state() == "silent"
    bench.pass_time(TIMING.lost_after * patience - TIMING.silent_after - 0.4)
    assert state() == "silent"
    bench.pass_time(0.4)
    assert state() == "lost"


def test_a_silent_provider_gets_nothing_new_until_it_is_heard() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.mute.add("p-1")
    bench.pass_time(TIMING.silent_after + 0.1)
    bench.demand()
    assert not bench.heard("p-1", m.StartLease)
    bench.mute.clear()
    bench.say("p-1", m.Pong(0))
    bench.pass_time(TIMING.heartbeat + 0.1)
    assert bench.one("p-1", m.StartLease)


def test_a_provider_whose_link_broke_gets_nothing_until_it_is_back() -> None:
    bench = Bench()
    bench.caller()
    bench.provider("p-1", cpus=8.0)
    bench.provider("p-2", cpus=1.0)
    bench.break_link("p-1")
    bench.demand(count=2)
    assert bench.one("p-2", m.StartLease)
    bench.provider("p-1", cpus=8.0)
    assert bench.one("p-1", m.StartLease)


def test_a_lost_peer_that_wakes_is_told_to_dial_again_and_is_welcome() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.mute.add("p-1")
    bench.pass_time(TIMING.lost_after + 0.1)
    bench.heard("p-1", m.Message)
    bench.say("p-1", m.Pong(1))
    assert bench.one("p-1", m.Goodbye)
    bench.mute.clear()
    bench.provider()
    assert bench.leases()


def test_goodbye_needs_no_grace_and_leaves_no_row() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    (lease,) = bench.leases()
    bench.say("p-1", m.Goodbye("closing time"))
    lost = bench.one("c-1", m.LeaseLost)
    assert lost.lease == lease
    assert "closing time" in lost.death.detail
    assert [row.peer for row in bench.grid().peers] == ["c-1"]


def test_the_hub_says_goodbye_to_everybody() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.carry(bench.core.on_stopping(bench.now))
    assert bench.one("c-1", m.Goodbye)
    assert bench.one("p-1", m.Goodbye)


# --- faults -------------------------------------------------------------------------------------


def test_the_sixteenth_fault_of_a_link_drops_it_and_no_other() -> None:
    bench = Bench()
    bench.caller()
    bench.caller("c-2")
    link = bench.link_of["c-1"]
    for _ in range(16):
        assert link not in bench.dropped
        bench.bad_frame(link)
    assert link in bench.dropped
    assert {fault.kind for fault in bench.heard("c-1", m.Fault)} == {"ProtocolError"}
    bench.say("c-1", m.Ping(1))
    bench.bad_frame(link)
    bench.nothing_more()
    assert bench.grid("c-2").protocol_faults == 17


def test_another_protocol_version_is_refused_by_its_name() -> None:
    bench = Bench()
    bench.bad_frame("k-9", "version")
    assert bench.one("k-9", m.Fault).kind == "VersionMismatch"


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        ("c-1", m.LeaseStarted("l-1", "w-1", [])),
        ("p-1", m.SetDemand("d", m.Shape({}), 1)),
        ("p-1", m.AskGrid(1)),
    ],
)
def test_words_of_the_other_role_are_refused(peer: str, message: m.Message) -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.say(peer, message)
    fault = bench.one(peer, m.Fault)
    assert fault.kind == "ProtocolError"
    assert type(message).__name__ in fault.detail
    bench.nothing_more()


def test_a_peer_cannot_take_anothers_role_or_a_links_other_name() -> None:
    bench = Bench()
    bench.caller()
    bench.feed("k-8", m.Hello("c-1", "provider", VERSIONS, 1, "here"))
    assert "is a caller already" in bench.one("k-8", m.Fault).detail
    bench.feed("k-9", m.Hello("w-1", "worker", VERSIONS, 1, "here"))
    assert "worker" in bench.one("k-9", m.Fault).detail
    bench.say("c-1", m.Hello("c-2", "caller", VERSIONS, 1, "here"))
    assert "belongs to c-1" in bench.one("c-1", m.Fault).detail


# --- relay --------------------------------------------------------------------------------------


def test_relay_carries_opaque_frames_and_names_the_sender() -> None:
    bench = Bench()
    bench.caller()
    bench.caller("c-2")
    bench.say("c-1", m.Relay("c-2", b"\x00anything"))
    assert bench.one("c-2", m.Relay) == m.Relay("c-1", b"\x00anything")


@pytest.mark.parametrize("target", ["c-7", "p-1"])
def test_relay_to_nobody_is_a_fault_that_names_it(target: str) -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.say("c-1", m.Relay(target, b""))
    fault = bench.one("c-1", m.Fault)
    assert fault.kind == "PeerLost"
    assert target in fault.detail


def test_a_lost_tool_is_not_listed() -> None:
    book = PeerBook(TIMING)
    for peer, session in (("c-tool", ""), ("c-app", "s-1")):
        hello = m.Hello(peer, "caller", VERSIONS, 1, "host", session)
        gone = Peer(hello, None, 0.0, 0.0, Liveness(TIMING), Standing())
        book.leave(gone, 1.0, lost=True)
    assert [row.peer for row in book.rows(1.0)] == ["c-app"]
