"""The attacks of the threat model, one test each, over real sockets against a real hub and
provider.

Every attack must fail its attacker, leave a line in the audit log, and leave everybody else
working: the fixture ``grid`` runs an honest app's task after each."""

from __future__ import annotations

import base64
import json
import os
import pickle
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

import guactors as gu
from guactors import errors
from guactors import messages as m
from guactors.config import Identity
from guactors.grid_client import GridClient
from guactors.join import format_join
from guactors.security import canonical
from guactors.security.grants import GRANT_TYPE, Quotas
from guactors.security.keys import Kind, PublicKey
from guactors.security.signing import envelope_text, parse_envelope, seal
from guactors.security.statements import HELLO_TYPE, make_statement
from guactors.transport.addresses import split_tcp
from guactors.transport.base import Lane
from guactors.transport.frames import CONTROL_HEADER_LIMIT
from guactors.transport.zmq_link import new_keypair
from tests import leaks
from tests.command import refused
from tests.e2e.keyed_grid import KeyedGrid, until

pytestmark = pytest.mark.may_keep(*leaks.KINDS)


@gu.remote(max_retries=0)
def add(a: int, b: int) -> int:
    return a + b


@gu.remote(max_retries=0)
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@gu.remote
class Counter:
    def __init__(self) -> None:
        self.value = 0

    def more(self) -> int:
        self.value += 1
        return self.value


@pytest.fixture(scope="module")
def world(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[KeyedGrid, Path]]:
    root = tmp_path_factory.mktemp("grid")
    before = leaks.take(root, run_root)
    with KeyedGrid(root) as grid:
        grid.add_provider("box", "--label", "zone=lab")
        yield grid, grid.add_app(providers=["*"])
    found = leaks.settle(before, root, run_root, leaks.KINDS)
    if found:
        pytest.fail("the grid left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture
def honest(world: tuple[KeyedGrid, Path]) -> Path:
    """The app that does no harm."""
    return world[1]


@pytest.fixture
def grid(world: tuple[KeyedGrid, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyedGrid]:
    """The grid to attack; afterwards everybody else still works."""
    grid, app = world
    monkeypatch.setenv("GU_TRANSPORT", "tcp")
    yield grid
    with grid.session(app):
        assert gu.get(add.remote(20, 22), timeout=20) == 42


# --- who somebody is ------------------------------------------------------------------------------


def test_no_key(grid: KeyedGrid) -> None:
    with grid.stranger() as peer:
        peer.hello(session="s-1")
        assert "AuthFailed" in peer.refused()
    grid.logged(action="join", reason="no_key")
    with grid.stranger() as peer:
        peer.say(m.SetDemand("d", m.Shape({"CPU": 1.0}), 1))
        assert "ProtocolError" in peer.refused()
    grid.logged(action="message", reason="malformed")


def test_a_wrong_hub_key(grid: KeyedGrid, honest: Path) -> None:
    """A client that expects another transport key gets no connection; one that expects another
    signing key does not prove itself to this hub."""
    wrong = replace(grid.join, transport=new_keypair()[0])
    with pytest.raises(errors.AuthFailed):
        gu.init(format_join(wrong), key=str(honest), timeout=5)
    other = replace(grid.join, hub=PublicKey(Kind.HUB, bytes(32)).text)
    with pytest.raises(errors.AuthFailed, match="not the hub of the join address"):
        gu.init(format_join(other), key=str(honest), timeout=5)
    grid.logged(action="handshake")


def test_a_key_of_the_wrong_kind(grid: KeyedGrid) -> None:
    signer = grid.new_key(Kind.SIGNER)
    with grid.raw(signer) as peer:
        peer.hello(session="s-1")
        assert "signer" in peer.refused()
    provider = grid.new_key(Kind.PROVIDER)
    with grid.raw(provider) as peer:
        peer.hello(session="s-1")
        assert "provider" in peer.refused()
    grid.logged(action="join", reason="wrong_kind")
    app = grid.add_app()
    with grid.raw(app, m.HubToProvider) as peer:
        peer.hello("provider")
        assert "provider" in peer.refused()


def test_a_revoked_key_on_a_live_connection(grid: KeyedGrid) -> None:
    app = grid.add_app(providers=["*"])
    key = grid.key(app).public.text
    with grid.session(app):
        counter = Counter.remote()
        assert gu.get(counter.more.remote(), timeout=20) == 1
        running = nap.remote(60)
        began = time.monotonic()
        grid.done(m.RevokeKey(0, key))
        with pytest.raises(errors.AuthFailed, match="revoked"):
            gu.get(running, timeout=20)
        assert time.monotonic() - began < 2.0
        with pytest.raises((errors.AuthFailed, errors.PeerLost)):
            gu.get(counter.more.remote(), timeout=20)
    until(lambda: not grid.owner.grid().leases, "its work ends", 2.0)
    with pytest.raises(errors.AuthFailed):
        gu.init(grid.address, key=str(app), timeout=5)
    # Its transport key does not get past the handshake; with another one its name is refused.
    other = grid.credentials(app, identity=Identity(*new_keypair()))
    with grid.raw(other) as peer:
        peer.hello(session="s-again")
        assert "revoked" in peer.refused()
    grid.logged(action="join", reason="revoked", who=key)


def test_a_revoked_grant_on_a_live_connection(grid: KeyedGrid) -> None:
    app = grid.add_app()
    serial = grid.grant(app)
    with grid.session(app):
        assert gu.get(add.remote(1, 2), timeout=20) == 3
        running = nap.remote(60)
        until(lambda: grid.owner.grid().leases, "it runs")
        began = time.monotonic()
        grid.done(m.RevokeGrant(0, grid.owner_key.public.text, serial))
        with pytest.raises((errors.PermissionDenied, errors.WorkerDied)):
            gu.get(running, timeout=20)
        assert time.monotonic() - began < 2.0
        with pytest.raises(errors.PermissionDenied, match="no grant"):
            gu.get(add.remote(1, 2), timeout=20)
    grid.logged(action="submit", reason="no_grant", who=grid.key(app).public.text)


# --- replays --------------------------------------------------------------------------------------


def test_a_replayed_challenge(grid: KeyedGrid) -> None:
    """The proof of one link is good for no other, and not for the same one twice."""
    app = grid.add_app(providers=["*"])
    with grid.raw(app) as peer:
        peer.hello(session="s-replayed")
        proof = peer.prove()
        peer.wait(m.Welcome)
        with grid.raw(app) as thief:
            thief.hello(session="s-replayed")
            thief.wait(m.Challenge)
            thief.say(proof)
            assert "AuthFailed" in thief.refused()
    grid.logged(action="join", reason="replay")


def test_a_passed_on_challenge(grid: KeyedGrid) -> None:
    """Somebody in the middle has a victim sign the challenge that the hub gave him: the statement
    names the victim's transport key, and the connection is the thief's."""
    app = grid.add_app(providers=["*"])
    victim = grid.credentials(app)
    thief = replace(victim, identity=Identity(*new_keypair()))
    with grid.raw(thief) as peer:
        peer.hello(session="s-1", transport=victim.identity.client_public)
        assert "AuthFailed" in peer.refused()
    with grid.raw(thief) as peer:
        peer.hello(session="s-1")
        challenge = peer.wait(m.Challenge)
        statement = make_statement(
            hub=challenge.hub, key=victim.seal.key, link=peer.link.key, nonce=challenge.nonce,
            peer=peer.peer, role="caller", session="s-1",
            transport=victim.identity.client_public, at=time.time(),
        )  # fmt: skip
        peer.say(m.Proof(statement, grid.key(app).secret.sign(HELLO_TYPE, statement)))
        assert "AuthFailed" in peer.refused()
    grid.logged(action="join", who=victim.seal.key)


def test_a_replayed_token(grid: KeyedGrid) -> None:
    """A token that was given back, or never given, opens nothing."""
    app = grid.add_app(providers=["*"])
    key = grid.key(app)
    challenge = grid.owner.ask(m.AskChallenge(0, key.public.text))
    assert isinstance(challenge, m.ChallengeIs)
    statement = make_statement(
        hub=challenge.hub, key=key.public.text, link="", nonce=challenge.nonce, peer="",
        role="http", session="", transport="", at=time.time(),
    )  # fmt: skip
    signature = key.secret.sign(HELLO_TYPE, statement)
    token = grid.owner.ask(m.AskToken(0, statement, signature))
    assert isinstance(token, m.TokenIs)
    assert isinstance(grid.owner.ask(m.UseToken(0, token.token, "submit")), m.Allowed)
    with pytest.raises(errors.AuthFailed):
        grid.owner.ask(m.AskToken(0, statement, signature))
    grid.done(m.DropToken(0, token.token))
    for bearer in (token.token, "gu_token_" + "a" * 52):
        with pytest.raises(errors.AuthFailed):
            grid.owner.ask(m.UseToken(0, bearer, "submit"))
    grid.logged(action="token")


def test_a_replayed_grant(grid: KeyedGrid) -> None:
    """A revoked grant handed in again, and another under its serial, count for nothing."""
    app = grid.add_app()
    serial, envelope = grid.signed_grant(app)
    grid.done(m.PutGrant(0, envelope))
    grid.done(m.RevokeGrant(0, grid.owner_key.public.text, serial))
    _, other = grid.signed_grant(app, serial=serial, max_priority=3)
    for again in (envelope, other):
        with pytest.raises(errors.GuactorsError):
            grid.owner.ask(m.PutGrant(0, again))
    grid.logged(action="grant", reason="replay")
    denied(grid, app)


def test_a_replayed_invitation(grid: KeyedGrid) -> None:
    invitation = grid.invitation("app")
    first, second = (grid.new_key(Kind.APP) for _ in range(2))
    with grid.raw(grid.credentials(first, invitation=invitation)) as peer:
        peer.enter()
    with grid.raw(grid.credentials(second, invitation=invitation)) as peer:
        peer.hello()
        peer.prove()
        assert "AuthFailed" in peer.refused()
    wrong_role = grid.invitation("provider")
    with grid.raw(grid.credentials(second, invitation=wrong_role)) as peer:
        peer.hello()
        peer.prove()
        assert "AuthFailed" in peer.refused()
    short = grid.invitation("app", 0.2)
    until(lambda: time.time() > began + 0.3, "it expires") if (began := time.time()) else None
    with grid.raw(grid.credentials(second, invitation=short)) as peer:
        peer.hello()
        peer.prove()
        assert "AuthFailed" in peer.refused()
    grid.logged(action="join", who=grid.key(second).public.text)


# --- grants as documents --------------------------------------------------------------------------


def denied(grid: KeyedGrid, app: Path, words: str | None = None, **options: Any) -> str:
    """A task of the app is refused; why."""
    with grid.session(app), pytest.raises(errors.PermissionDenied, match=words) as caught:
        gu.get(add.options(**options).remote(1, 2), timeout=20)
    return str(caught.value)


def not_taken(grid: KeyedGrid, envelope: bytes) -> None:
    with pytest.raises(errors.GuactorsError) as caught:
        grid.owner.ask(m.PutGrant(0, envelope))
    assert not isinstance(caught.value, errors.HubUnreachable)
    grid.logged(action="grant")


def test_a_forged_grant(grid: KeyedGrid) -> None:
    """Signed by a key that is no owner's, and by an app's own."""
    app = grid.add_app()
    _, envelope = grid.signed_grant(app)
    payload = base64.urlsafe_b64decode(parse_envelope(envelope, "it").payload + "==")
    stranger = grid.key(grid.new_key(Kind.OWNER))
    for signer in (stranger.secret, grid.key(app).secret):
        not_taken(grid, envelope_text(seal(signer, GRANT_TYPE, payload)))
    denied(grid, app)


def test_a_bit_flipped_grant(grid: KeyedGrid) -> None:
    app = grid.add_app()
    _, envelope = grid.signed_grant(app)
    for place in range(0, len(envelope), max(1, len(envelope) // 24)):
        flipped = bytearray(envelope)
        flipped[place] ^= 1 << secrets.randbelow(8)
        not_taken(grid, bytes(flipped))
    denied(grid, app)


def test_a_grant_for_another_hub(grid: KeyedGrid) -> None:
    app = grid.add_app()
    _, envelope = grid.signed_grant(app, hub=PublicKey(Kind.HUB, bytes(32)).text)
    not_taken(grid, envelope)
    grid.logged(action="grant", reason="wrong_hub")
    denied(grid, app)


def test_an_expired_grant_and_one_that_is_not_valid_yet(grid: KeyedGrid) -> None:
    now = int(time.time())
    for fields, reason in (
        ({"not_before": now - 100, "expires": now - 50}, "expired"),
        ({"not_before": now + 1000}, "not_yet_valid"),
    ):
        app = grid.add_app()
        _, envelope = grid.signed_grant(app, **fields)
        try:
            grid.done(m.PutGrant(0, envelope))
        except errors.GuactorsError:
            grid.logged(action="grant", reason=reason)
        denied(grid, app)
        grid.logged(action="submit", who=grid.key(app).public.text)


def test_a_grant_that_expires_while_it_is_used(grid: KeyedGrid) -> None:
    app = grid.add_app(expires=int(time.time()) + 3)
    with grid.session(app):
        assert gu.get(add.remote(1, 2), timeout=20) == 3
        with pytest.raises((errors.PermissionDenied, errors.WorkerDied)):
            gu.get(nap.remote(60), timeout=20)
    denied(grid, app)


def test_escalation_by_unknown_duplicated_and_differently_typed_fields(grid: KeyedGrid) -> None:
    """The owner is tricked into signing what readers could understand differently."""
    app = grid.add_app()
    _, envelope = grid.signed_grant(app)
    text = base64.urlsafe_b64decode(parse_envelope(envelope, "it").payload + "==").decode()
    fields = json.loads(text)
    tricks = [
        canonical.encode({**fields, "superuser": True}),
        text.replace('"max_priority":5', '"max_priority":5,"max_priority":999').encode(),
        text.replace('"max_priority":5', '"max_priority":"5"').encode(),
        text.replace('"max_priority":5', '"max_priority":5.0').encode(),
        text.replace('"max_priority":5', '"max_priority":true').encode(),
        text.replace('"providers":["*"]', '"providers":"*"').encode(),
        text.replace('"actions":', '"actions" :').encode(),
        text.replace('"actions":', '"\\u0061ctions":').encode(),
        json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode(),
        text.encode() + b" ",
        text.encode("utf-16"),
    ]
    for trick in tricks:
        assert trick != text.encode()
        not_taken(grid, envelope_text(seal(grid.owner_key.secret, GRANT_TYPE, trick)))
    denied(grid, app)


# --- beyond the grant, by every route -------------------------------------------------------------

IMAGE = "sha3-256:" + "5" * 64
BEYOND: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "provider": ({"providers": ["label:zone=hall"]}, {}, "provider"),
    "runtime": ({"runtimes": ["docker"]}, {}, "runtime"),
    "image": (
        {"runtimes": ["native"], "image_hashes": ["sha3-256:" + "6" * 64]},
        {"runtime": "native", "image": IMAGE}, "image",
    ),
    "priority": ({"max_priority": 2}, {"priority": 3}, "priority"),
    "quota": ({"quotas": Quotas(500, "*", "*", "*", "*")}, {}, "CPU"),
}  # fmt: skip


@pytest.mark.parametrize("what", BEYOND)
def test_beyond_the_grant_by_remote(grid: KeyedGrid, what: str) -> None:
    grant, options, words = BEYOND[what]
    app = grid.add_app(**grant)
    denied(grid, app, words, **options)
    with grid.session(app), pytest.raises(errors.PermissionDenied, match=words):
        gu.get(Counter.options(num_cpus=1, **options).remote().more.remote(), timeout=20)
    grid.logged(action="submit", who=grid.key(app).public.text)


@pytest.mark.parametrize("what", BEYOND)
def test_beyond_the_grant_by_raw_messages(grid: KeyedGrid, what: str) -> None:
    grant, options, words = BEYOND[what]
    app = grid.add_app(**grant)
    session = f"s-{secrets.token_hex(8)}"
    shape = replace(m.Shape({"CPU": 1.0}), **options)
    with grid.raw(app) as peer:
        peer.enter(session=session)
        peer.say(m.SetDemand("d", shape, 1))
        told = peer.wait(m.DemandInfeasible)
        assert (told.kind, words in told.reason) == ("PermissionDenied", True)
        spec = m.ActorSpec(f"a-{session}", session, peer.peer, "Counter", shape)
        peer.say(m.CreateActor(7, spec, b"a class"))
        refused = peer.wait(m.Message, lambda x: isinstance(x, m.DemandInfeasible | m.Fault))
        assert words in getattr(refused, "reason", "") + getattr(refused, "detail", "")
    assert not grid.owner.grid().leases


def test_beyond_the_grant_by_the_command_line(grid: KeyedGrid) -> None:
    app = grid.add_app(max_priority=2)
    line = refused("run", "--priority", "3", "--address", grid.address, "--key", str(app), "--",
                   "true")  # fmt: skip
    assert "priority" in line


def test_an_owner_s_work_without_a_right(grid: KeyedGrid) -> None:
    """An app asks for what only an administrator may."""
    app = grid.add_app(actions=["submit"])
    key = grid.key(app).public.text
    _, envelope = grid.signed_grant(app, actions=["admin", "submit"])
    with grid.raw(app) as peer:
        peer.enter()
        for question in (
            m.AskKeys(0), m.ApproveKey(0, key), m.RevokeKey(0, grid.owner_key.public.text),
            m.MakeInvitation(0, "app"), m.PutGrant(0, envelope), m.AskAudit(0), m.AskGrid(0),
            m.UseToken(0, "gu_token_x", "admin"),
        ):  # fmt: skip
            answer = peer.ask(question)
            assert isinstance(answer, m.Fault), question
    grid.logged(who=key)


# --- others' things -------------------------------------------------------------------------------


def test_anothers_session_and_its_actors(grid: KeyedGrid, honest: Path) -> None:
    thief = grid.add_app(providers=["*"])
    with grid.session(honest, namespace="space"):
        counter = Counter.options(name="mine").remote()
        assert gu.get(counter.more.remote(), timeout=20) == 1
        session = gu.get_runtime_context().get_job_id()
        [info] = [x for x in grid.owner.grid().actors if x.state == "alive"]
        with grid.raw(thief) as peer:
            peer.hello(session=session)
            peer.prove()
            assert "somebody else" in peer.refused()
        with grid.raw(thief) as peer:
            peer.enter(session=f"s-{secrets.token_hex(8)}")
            peer.say(m.WatchActor(info.spec.actor))
            assert peer.wait(m.ActorUpdate).endpoints == []
            found = peer.ask(m.FindActor(0, "mine", "space"))
            assert isinstance(found, m.Fault)
            peer.say(m.KillActor(info.spec.actor))
            grid_seen = peer.ask(m.AskGrid(0))
            assert isinstance(grid_seen, m.Grid)
            assert grid_seen.info.actors == []
            assert isinstance(peer.ask(m.CloseSession(0, session)), m.Fault)
        assert gu.get(counter.more.remote(), timeout=20) == 2
    grid.logged(action="join", reason="session")


def test_anothers_worker_is_not_called(grid: KeyedGrid, honest: Path) -> None:
    """Who knows where somebody's worker listens still does not get in."""
    thief = grid.add_app(providers=["*"])
    with grid.session(honest):
        counter = Counter.remote()
        assert gu.get(counter.more.remote(), timeout=20) == 1
        session = gu.refs.current_session()
        [actor] = session.core.actors.actors.values()
        [place] = [e for e in actor.target.endpoints if e.control.startswith("tcp://")]
        with grid.raw(thief) as peer:
            link = peer.transport.dial(place)
            link.send(Lane.CONTROL, [b"let me in"])
            down = until(link.down, "it is refused")
            assert down.cause == "auth"
        assert gu.get(counter.more.remote(), timeout=20) == 2


# --- providers and hubs that lie ------------------------------------------------------------------


def test_a_provider_that_lies_about_its_identity(grid: KeyedGrid) -> None:
    mine = grid.new_key(Kind.PROVIDER)
    grid.done(m.ApproveKey(0, grid.key(mine).public.text))
    victim = grid.providers["box"]
    own = grid.credentials(mine)
    claimed = replace(own, seal=replace(own.seal, key=victim))
    with grid.raw(claimed, m.HubToProvider) as peer:
        peer.hello("provider")
        peer.prove()
        assert "AuthFailed" in peer.refused()
    grid.logged(action="join", who=victim)
    # Its own name is good, but not for the process of another.
    [box] = [p for p in grid.owner.grid().peers if p.name == "box" and p.state == "up"]
    with grid.raw(mine, m.HubToProvider) as peer:
        peer.hello("provider", peer=box.peer)
        peer.prove()
        assert "somebody else" in peer.refused()
    with grid.raw(mine, m.HubToProvider) as peer:
        peer.enter("provider", name="liar")
        spec = m.ActorSpec("a-1", "s-1", "c-1", "Mine", m.Shape({}), principal=victim)
        report = m.ActorReport(spec, 0, "w-1", [], b"payload")
        peer.say(m.Offer({"CPU": 1.0}, {}, [], [report], m.MachineInfo()))
        assert peer.wait(m.StopActor).actor == "a-1"
        peer.say(m.Vouch("w-1", new_keypair()[0], "s-1"))
        peer.wait(m.Fault)
    grid.logged(action="report", reason="bad_signature")


# --- bytes ----------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/guactors-the-hub-unpickled",)


def test_a_pickle_where_the_hub_looks(grid: KeyedGrid) -> None:
    app = grid.add_app(providers=["*"])
    bomb = pickle.dumps(Bomb())
    session = f"s-{secrets.token_hex(8)}"
    with grid.raw(app) as peer:
        peer.enter(session=session)
        for lane in Lane:
            peer.raw(lane, bomb)
            peer.raw(lane, b"\x01" + bomb)
            peer.raw(lane, b"\x01" + msgspec.msgpack.encode([20, bomb, bomb, bomb]))
        peer.wait(m.Fault)
        shape = m.Shape({"CPU": 99.0})
        spec = m.ActorSpec(f"a-{session}", session, peer.peer, "Bomb", shape, handle=bomb)
        peer.say(m.CreateActor(1, spec, bomb))
        peer.wait(m.ActorUpdate)
    assert not os.path.exists("/tmp/guactors-the-hub-unpickled")
    grid.logged(action="message", reason="malformed", who=grid.key(app).public.text)


def test_oversized_and_deeply_nested_messages(grid: KeyedGrid) -> None:
    app = grid.add_app(providers=["*"])
    with grid.raw(app) as peer:
        peer.enter(session=f"s-{secrets.token_hex(8)}")
        deep = b"\x91" * 100_000 + b"\xc0"
        peer.raw(Lane.CONTROL, b"\x01" + deep)
        peer.raw(Lane.CONTROL, b"\x01" + msgspec.msgpack.encode([20, "k" * 300_000]))
        peer.raw(Lane.CONTROL, *([b"\x01"] * 70_000))
        peer.wait(m.Fault)
    with grid.raw(app) as peer:
        peer.enter(session=f"s-{secrets.token_hex(8)}")
        peer.raw(Lane.DATA, b"\x01" + bytes(CONTROL_HEADER_LIMIT + 1))
        peer.wait(m.Fault)
        # What is larger than all limits costs its sender the link.
        with pytest.raises(errors.ProtocolError):
            peer.raw(Lane.DATA, bytes(700 << 20))
    grid.logged(action="message", reason="malformed", who=grid.key(app).public.text)


def test_slow_loris_handshakes(grid: KeyedGrid) -> None:
    host, port = split_tcp(f"tcp://{grid.join.host}:{grid.join.port}")
    greeting = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00CURVE" + bytes(47)
    with socket.create_connection((host, port)) as slow:
        slow.settimeout(20)
        began = time.monotonic()
        ended = threading.Event()

        def drip() -> None:
            for byte in greeting[:20]:
                try:
                    slow.send(bytes([byte]))
                except OSError:
                    return
                if ended.wait(0.5):
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            while slow.recv(1024):
                continue
        except ConnectionError:
            # Hanging up while bytes are on their way is a reset.
            ended.set()
        ended.set()
        assert time.monotonic() - began < 10
        dripping.join()
    grid.logged(action="handshake")


def test_ten_thousand_half_open_connections(grid: KeyedGrid, honest: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 12_000:
        pytest.fail("needs 12,000 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held: list[socket.socket] = []
    try:
        for _ in range(10_000):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((grid.join.host, grid.join.port))
            held.append(one)
        began = time.monotonic()
        with grid.session(honest, timeout=30):
            assert gu.get(add.remote(1, 2), timeout=30) == 3
        assert time.monotonic() - began < 20
    finally:
        for one in held:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    grid.logged(action="handshake")


# --- HTTP -----------------------------------------------------------------------------------------

VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD")


def test_http_without_a_token(grid: KeyedGrid) -> None:
    for method, path in (("POST", "/sessions"), ("POST", "/images"), ("GET", "/images")):
        status, _ = grid.http(method, path, {} if method == "POST" else None)
        assert status == 401
        status, _ = grid.http(method, path, Authorization="Bearer gu_token_" + "a" * 52)
        assert status == 401
    grid.logged(action="http", reason="token")


def test_http_beyond_the_grant(grid: KeyedGrid) -> None:
    """By HTTP too an app gets no session and uploads nothing that its grant does not allow."""
    app = grid.add_app(actions=["read_stats"])
    bearer = grid.token(app)
    status, found = grid.http("POST", "/sessions", {}, Authorization=bearer)
    assert (status, found["error"]) == (403, "PermissionDenied")
    manifest = base64.b64encode(b"{}").decode()
    status, _ = grid.http("POST", "/images", {"manifest": manifest}, Authorization=bearer)
    assert status in (403, 422)
    grid.logged(who=grid.key(app).public.text)


def test_http_with_the_token_of_a_revoked_key(grid: KeyedGrid) -> None:
    app = grid.add_app(actions=["submit"])
    bearer = grid.token(app)
    status, _ = grid.http("POST", "/sessions", {}, Authorization=bearer)
    assert status == 201
    grid.done(m.RevokeKey(0, grid.key(app).public.text))
    status, _ = grid.http("GET", "/sessions", Authorization=bearer)
    assert status == 401
    grid.logged(action="token")


def test_http_another_app_s_session(grid: KeyedGrid) -> None:
    first, second = (grid.add_app(actions=["submit"]) for _ in range(2))
    bearer = grid.token(first)
    status, made = grid.http("POST", "/sessions", {"name": "mine"}, Authorization=bearer)
    assert status == 201
    session = made["id"]
    thief = grid.token(second)
    _, listed = grid.http("GET", "/sessions", Authorization=thief)
    assert session not in json.dumps(listed)
    status, _ = grid.http("DELETE", f"/sessions/{session}", Authorization=thief)
    assert status in (403, 404)
    with grid.raw(second) as peer:
        peer.hello(session=session)
        peer.prove()
        assert "somebody else" in peer.refused()
    status, _ = grid.http("DELETE", f"/sessions/{session}", Authorization=bearer)
    assert status == 204


@pytest.mark.parametrize("verb", VERBS)
def test_http_from_another_origin(grid: KeyedGrid, verb: str, honest: Path) -> None:
    bearer = grid.token(honest)
    for headers in (
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
        {"Origin": f"http://127.0.0.1:{grid.http_port + 1}"},
    ):  # fmt: skip
        status, _ = grid.http(verb, "/sessions", None, Authorization=bearer, **headers)
        assert status == 403
    grid.logged(action="http", reason="origin")


@pytest.mark.parametrize("verb", VERBS)
def test_http_by_dns_rebinding(grid: KeyedGrid, verb: str, honest: Path) -> None:
    bearer = grid.token(honest)
    for host in ("evil.example", f"evil.example:{grid.http_port}", "127.0.0.1.evil.example", ""):
        status, _ = grid.http(verb, "/sessions", None, Authorization=bearer, Host=host)
        assert status in (400, 421)
    grid.logged(action="http", reason="host")


def test_joining_takes_a_moment(grid: KeyedGrid, honest: Path) -> None:
    """No attack: the price of all this, at the door."""
    times = []
    for _ in range(9):
        began = time.monotonic()
        with GridClient(grid.address, key=str(honest)):
            times.append(time.monotonic() - began)
    assert sorted(times)[4] < 0.15
