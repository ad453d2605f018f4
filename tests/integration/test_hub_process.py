"""The hub as it runs in the field: its actors, its sockets, its process."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from guactors import messages as m
from guactors.config import HubConfig, Identity
from guactors.hub_actor import run_hub
from guactors.messages import Endpoint
from guactors.transport import open_transport
from guactors.transport.base import Lane, Transport
from guactors.transport.frames import encode
from guactors.transport.zmq_link import new_keypair
from tests.integration.hub_peer import TIMING, VERSIONS, HubProcess, Peer

ONE = m.Shape({"CPU": 1.0})


class Thread:
    """The hub on a loop in a thread of this process."""

    def __init__(self, config: HubConfig) -> None:
        self.endpoints: list[Endpoint] = []
        self.error: BaseException | None = None
        self._ready = threading.Event()
        self._loop = asyncio.SelectorEventLoop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(config,))
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self, config: HubConfig) -> None:
        def on_ready(endpoints: list[Endpoint]) -> None:
            self.endpoints = endpoints
            self._ready.set()

        try:
            self._loop.run_until_complete(run_hub(config, on_ready=on_ready, stop=self._stop))
        except Exception as error:  # noqa: BLE001 - the test that stops it looks at it
            self.error = error
        finally:
            self._loop.close()
            self._ready.set()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the hub does not end"


@pytest.fixture
def run_dir(run_root: Path, tmp_path: Path) -> Path:
    path = run_root / f"hub-{tmp_path.name[-12:]}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def config(run_dir: Path, *more: str, identity: Identity | None = None) -> HubConfig:
    return HubConfig(
        "h-1", [f"ipc://{run_dir}/hub", *more], str(run_dir), identity or Identity(), TIMING
    )


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = open_transport(Identity())
    yield made
    made.close()


@pytest.fixture
def hub(run_dir: Path) -> Iterator[Thread]:
    made = Thread(config(run_dir))
    yield made
    made.stop()
    assert made.error is None


Join = Callable[..., Peer]


@pytest.fixture
def join(hub: Thread, transport: Transport) -> Iterator[Join]:
    """``join("c-1")``: a peer that was welcomed; a provider has made its offer."""
    peers: list[Peer] = []
    yield joiner(transport, hub.endpoints[0], peers)
    for peer in peers:
        peer.close()


def joiner(transport: Transport, endpoint: Endpoint, peers: list[Peer]) -> Join:
    def join(peer: str, session: str = "s-1") -> Peer:
        provider = peer.startswith("p-")
        role = "provider" if provider else "caller"
        session = "" if provider else session
        hello = m.Hello(peer, role, VERSIONS, 1, "here", session, not provider, f"{peer}-name")
        made = Peer(transport, endpoint, hello)
        peers.append(made)
        assert made.hear(m.Welcome).peer == "h-1"
        if provider:
            made.say(m.Offer({"CPU": 2.0}, {}, [], [], m.MachineInfo(cores=2)))
        return made

    return join


def lease(caller: Peer, provider: Peer, key: str = "d-1") -> str:
    caller.say(m.SetDemand(key, ONE, 1))
    order = provider.hear(m.StartLease)
    provider.say(m.LeaseStarted(order.lease, "w-1", []))
    granted = caller.hear(m.LeaseGranted)
    assert (granted.key, granted.lease) == (key, order.lease)
    return order.lease


def test_a_lease_and_an_actor_from_wish_to_end(join: Join) -> None:
    caller, provider = join("c-1"), join("p-1")
    held = lease(caller, provider)
    made = m.ActorSpec("a-1", "s-1", "c-1", "Counter", m.Shape({}))
    caller.say(m.CreateActor(1, made, b"class"))
    assert caller.hear(m.ActorUpdate).state == "pending"
    assert provider.hear(m.StartActor).payload == b"class"
    provider.say(m.ActorStarted("a-1", 0, "w-2", []))
    assert caller.hear(m.ActorUpdate).state == "alive"
    caller.say(m.AskGrid(7))
    info = caller.hear(m.Grid).info
    assert (info.leases, info.sessions, len(info.actors)) == (1, 1, 1)
    assert {peer.state for peer in info.peers} == {"up"}
    caller.say(m.ReturnLease(held))
    assert provider.hear(m.StopLease).lease == held
    caller.say(m.Goodbye())
    assert provider.hear(m.EndSession).session == "s-1"


def test_a_closed_link_is_noticed_at_once_and_final_after_the_grace(join: Join) -> None:
    caller, provider = join("c-1"), join("p-1")
    held = lease(caller, provider)
    before = time.monotonic()
    provider.close()
    lost = caller.hear(m.LeaseLost)
    assert (lost.lease, lost.death.cause) == (held, "provider_lost")
    # Evidence, not a heartbeat: well before anything counts as silent.
    assert TIMING.relink_grace * 0.9 < time.monotonic() - before < TIMING.lost_after


def test_a_peer_that_stops_answering_is_lost(join: Join) -> None:
    caller, provider = join("c-1"), join("p-1")
    held = lease(caller, provider)
    assert caller.hear(m.LeaseLost, within=TIMING.lost_after + 3.0).lease == held


def test_frames_that_are_not_ours_are_counted_answered_and_cost_their_link_only(
    join: Join,
) -> None:
    good, bad = join("c-1"), join("c-2", "s-2")
    junk = [b"", b"\x00", b"\xff" * 100, encode(m.Ping(1))[:-1] + b"\xc1", encode(m.Leave())]
    for number in range(16):
        bad.link.send(Lane.CONTROL, [junk[number % len(junk)]])
    for _ in range(16):
        assert bad.hear(m.Fault).kind in ("ProtocolError", "VersionMismatch")
    bad.say(m.Ping(5))
    good.say(m.AskGrid(1))
    info = good.hear(m.Grid).info
    assert info.protocol_faults == 16
    assert not [message for message in bad.seen if isinstance(message, m.Pong)]


def test_urgent_messages_pass_bulk(join: Join) -> None:
    """Sixty megabytes through the hub; a ping must not wait for all of them."""
    source, target = join("c-1"), join("c-2", "s-2")
    source.say(*(m.Relay("c-2", bytes(60_000)) for _ in range(1000)))
    before = time.monotonic()
    source.say(m.Ping(77))
    assert source.hear(m.Pong).number == 77
    urgent = time.monotonic() - before
    for _ in range(1000):
        assert target.hear(m.Relay, within=20.0).peer == "c-1"
    bulk = time.monotonic() - before
    assert urgent < bulk / 2, f"ping took {urgent:.3f} s of {bulk:.3f} s"


def test_ipc_and_tcp_at_once(run_dir: Path) -> None:
    server_public, server_secret = new_keypair()
    identity = Identity(server_public=server_public, server_secret=server_secret)
    hub = Thread(config(run_dir, "tcp://127.0.0.1:0", identity=identity))
    outside = open_transport(Identity(*new_keypair()))
    peers: list[Peer] = []
    try:
        ipc, tcp = hub.endpoints
        assert tcp.server_key == server_public
        caller = joiner(outside, ipc, peers)("c-1")
        provider = joiner(outside, ipc, peers)("p-1")
        lease(caller, provider)
        # Over TCP the handshake succeeds, and that is all: nobody is let in without a key.
        hello = m.Hello("c-2", "caller", VERSIONS, 1, "there", "s-2", True)
        stranger = Peer(outside, tcp, hello)
        peers.append(stranger)
        assert stranger.hear(m.Fault).kind == "AuthFailed"
    finally:
        for peer in peers:
            peer.close()
        outside.close()
        hub.stop()


# --- the process --------------------------------------------------------------------------------


@pytest.fixture
def start(run_dir: Path) -> Iterator[Callable[..., HubProcess]]:
    started: list[HubProcess] = []

    def start(*more: str) -> HubProcess:
        started.append(HubProcess(config(run_dir, *more)))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_goodbye(
    start: Callable[..., HubProcess], transport: Transport, number: signal.Signals
) -> None:
    hub = start()
    assert hub.report["event"] == "ready"
    peers: list[Peer] = []
    caller = joiner(transport, hub.endpoints[0], peers)("c-1")
    hub.process.send_signal(number)
    assert caller.hear(m.Goodbye)
    assert hub.ended() == (0, "")
    caller.close()


def test_an_address_that_cannot_be_bound_is_one_line_and_a_status(
    start: Callable[..., HubProcess], run_dir: Path
) -> None:
    run_dir.chmod(0o755)
    hub = start()
    status, stderr = hub.ended()
    assert status == 1
    assert hub.report["event"] == "error"
    assert str(run_dir) in hub.report["text"]
    assert "Traceback" not in stderr
    run_dir.chmod(0o700)


def test_a_killed_hub_comes_back_at_the_same_address_and_learns_what_runs(
    start: Callable[..., HubProcess], transport: Transport
) -> None:
    hub = start()
    peers: list[Peer] = []
    join = joiner(transport, hub.endpoints[0], peers)
    caller, provider = join("c-1"), join("p-1")
    held = lease(caller, provider)
    hub.process.kill()
    hub.process.wait(5)
    for peer in peers:
        peer.close()
    again = start()
    join = joiner(transport, again.endpoints[0], peers)
    caller = join("c-1")
    caller.say(m.HeldLeases([held]))
    provider = join("p-1")
    report = m.LeaseReport(held, "s-1", "c-1", ONE, "w-1", [])
    provider.say(m.Offer({"CPU": 2.0}, {}, [report], [], m.MachineInfo()))
    for request in count():
        caller.say(m.AskGrid(request))
        info = caller.hear(m.Grid).info
        if info.leases:
            break
        assert request < 1000
    caller.say(m.ReturnLease(held))
    assert provider.hear(m.StopLease).lease == held
    for peer in peers:
        peer.close()
