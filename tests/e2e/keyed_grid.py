"""A grid of keys on real sockets: a hub and providers in processes of their own, apps with keys and
grants, a peer that says whatever it likes, and the hub's audit log to look into."""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

from msgspec.structs import replace

import guactors as gu
from guactors import messages as m
from guactors.config import Identity
from guactors.credentials import Credentials, from_key_file
from guactors.grid_client import GridClient
from guactors.join import JoinAddress, endpoint_of, format_join, parse_join
from guactors.security.grants import Quotas, build_grant, sign_grant
from guactors.security.introduction import prove
from guactors.security.key_files import KeyFile, load_key, new_key_file, save_key
from guactors.security.keys import Kind
from guactors.security.statements import HELLO_TYPE, make_statement
from guactors.transport.base import Lane, LinkState
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.transport.zmq_link import ZmqTransport, new_keypair
from guactors.versions import own_versions
from tests.command import first_line, running

M = TypeVar("M", bound=m.Message)
WITHIN = 15.0
WIDE: dict[str, Any] = {
    "providers": ["*"],
    "runtimes": ["python"],
    "function_signers": ["*"],
    "max_priority": 5,
    "quotas": Quotas("*", "*", "*", "*", "*"),
    "actions": ["submit", "read_stats"],
}


def b64(data: bytes) -> str:
    """Base64 for URLs, without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def until(ask: Callable[[], Any], what: str, within: float = WITHIN) -> Any:
    """The first answer that is true; fails by ``what`` when none comes."""
    deadline = time.monotonic() + within
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)
    return answer


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RawPeer:
    """A link to the hub, and whatever a test wants to say on it. ``secret`` is who it is."""

    def __init__(self, join: JoinAddress, own: Credentials, decoder: Any = m.HubToCaller) -> None:
        self.own = own
        self.join = join
        self.transport = ZmqTransport(own.identity)
        self.link = self.transport.dial(endpoint_of(join))
        self.peer = f"c-{secrets.token_hex(8)}"
        self.heard: list[m.Message] = []
        self._decoder: Decoder[m.Message] = Decoder(decoder)
        self._requests = count(1)
        self.said: m.Hello | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.link.close()
        self.transport.close()

    # --- talking --------------------------------------------------------------------------------

    def hello(self, role: str = "caller", session: str = "", **more: Any) -> m.Hello:
        """Say Hello on both lanes."""
        hello = self.own.introduce(
            m.Hello(self.peer, role, own_versions(), os.getpid(), "there", session, bool(session))
        )
        self.said = replace(hello, **more)
        for lane in Lane:
            self.link.send(lane, [encode(self.said)])
        return self.said

    def prove(self, **more: Any) -> m.Proof:
        """Answer the challenge; what was sent."""
        assert self.said is not None
        challenge = self.wait(m.Challenge)
        proof = prove(challenge, self.said, self.link.key, self.own.seal, hub_key="",
                      invitation=self.own.invitation, now=time.time())  # fmt: skip
        proof = replace(proof, **more)
        self.say(proof)
        return proof

    def enter(self, role: str = "caller", session: str = "", **more: Any) -> Self:
        """Hello, proof, welcome."""
        self.hello(role, session, **more)
        self.prove()
        self.wait(m.Welcome)
        return self

    def say(self, *messages: m.Message) -> None:
        for message in messages:
            self.link.send(lane_of(message), [encode(message)])

    def raw(self, lane: Lane, *frames: bytes) -> None:
        """Bytes that need be no message."""
        self.link.send(lane, list(frames))

    def ask(self, question: m.Message) -> m.Message:
        """The answer to a question, or the Fault."""
        number = next(self._requests)
        self.say(replace(question, request=number))
        return self.wait(m.Message, lambda x: getattr(x, "request", None) == number)

    # --- listening ------------------------------------------------------------------------------

    def read(self) -> None:
        while (got := self.link.receive()) is not None:
            message = self._decoder.decode(got[1])[0]
            if isinstance(message, m.Ping):
                self.say(m.Pong(message.number))
            else:
                self.heard.append(message)

    def wait(
        self, kind: type[M], wanted: Callable[[Any], bool] = lambda _: True, within: float = WITHIN
    ) -> M:
        """The next message of a kind."""

        def look() -> M | None:
            self.read()
            for message in self.heard:
                if isinstance(message, kind) and wanted(message):
                    self.heard.remove(message)
                    return message
            return None

        found: M = until(look, f"{kind.__name__}, heard {self.heard}, {self.link.down()}", within)
        return found

    def refused(self, within: float = WITHIN) -> str:
        """The kind and words of the hub's no; or of the transport's, if it did not get so far."""

        def look() -> str:
            self.read()
            for message in self.heard:
                assert not isinstance(message, m.Welcome), "it was let in"
                if isinstance(message, m.Fault):
                    return f"{message.kind}: {message.detail}"
            down = self.link.down() if self.link.state() is LinkState.DOWN else None
            return f"{down.cause}: {down.detail}" if down else ""

        return str(until(look, "a refusal", within))


class KeyedGrid:
    """One hub with an owner; providers and apps are added."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "hub"
        self._stack = ExitStack()
        self._serials = count(1)
        self._names = count(1)
        self.providers: dict[str, str] = {}
        self.http_port = free_port()

    def __enter__(self) -> Self:
        try:
            hub = self._stack.enter_context(
                running(
                    "hub",
                    "--listen",
                    "tcp://127.0.0.1:0",
                    "--http",
                    f"127.0.0.1:{self.http_port}",
                    GU_HOME=str(self.home),
                )
            )
            self.hub_pid = hub.pid
            self.address = first_line(hub)
            self.join = parse_join(self.address)
            self.owner_path = self.home / "keys" / "owner-main.key"
            self.owner_key = load_key(self.owner_path)
            self.owner = self._stack.enter_context(
                GridClient(self.address, key=str(self.owner_path), timeout=WITHIN)
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    # --- who is in it ---------------------------------------------------------------------------

    def done(self, question: m.Message) -> None:
        """Something the owner does."""
        answer = self.owner.ask(question)
        assert isinstance(answer, m.Done), answer

    def new_key(self, kind: Kind, name: str = "") -> Path:
        """A fresh key file."""
        name = name or f"{kind.value}{next(self._names)}"
        path = self.root / f"{name}.key"
        save_key(path, new_key_file(kind, name, new_keypair, os.urandom, int(time.time())))
        return path

    def invitation(self, role: str, seconds: float = 60.0) -> str:
        answer = self.owner.ask(m.MakeInvitation(0, role, "", seconds))
        assert isinstance(answer, m.Invitation), answer
        return answer.token

    def add_provider(self, name: str, *options: str, policy: dict[str, Any] | None = None) -> str:
        """A provider that joins by invitation; its public key."""
        home = self.root / name
        address = format_join(replace(self.join, invitation=self.invitation("provider")))
        if policy is not None:
            home.mkdir(mode=0o700)
            (home / "policy.json").write_text(json.dumps(policy))
        process = self._stack.enter_context(
            running(
                "provider",
                "--hub",
                address,
                "--name",
                name,
                "--cpus",
                "2",
                *options,
                GU_HOME=str(home),
            )
        )
        assert name in first_line(process)
        self.providers[name] = load_key(home / "keys" / f"provider-{name}.key").public.text
        return self.providers[name]

    def add_app(self, **grant: Any) -> Path:
        """An approved app; with a grant, if anything of one is given."""
        path = self.new_key(Kind.APP)
        self.done(m.ApproveKey(0, load_key(path).public.text))
        if grant:
            self.grant(path, **grant)
        return path

    def signed_grant(self, app: Path, **fields: Any) -> tuple[int, bytes]:
        """A grant like WIDE but for ``fields``, signed and not handed in."""
        serial = next(self._serials)
        given = {
            "hub": self.join.hub, "app": load_key(app).public.text,
            "issuer": self.owner_key.public.text, "serial": serial, "now": time.time() - 5, **WIDE,
        }  # fmt: skip
        return serial, sign_grant(build_grant(**{**given, **fields}), self.owner_key.secret)

    def grant(self, app: Path, **fields: Any) -> int:
        """Let the app do this; the serial."""
        serial, envelope = self.signed_grant(app, **fields)
        self.done(m.PutGrant(0, envelope))
        return serial

    # --- using it -------------------------------------------------------------------------------

    def credentials(self, path: Path, **more: Any) -> Credentials:
        return replace(from_key_file(path), hub_key=self.join.hub, **more)

    def raw(self, own: Path | Credentials, decoder: Any = m.HubToCaller) -> RawPeer:
        """A peer with this key."""
        if isinstance(own, Path):
            own = self.credentials(own)
        return RawPeer(self.join, own, decoder)

    def stranger(self) -> RawPeer:
        """A peer with a CURVE pair and nothing else."""
        return RawPeer(self.join, Credentials(Identity(*new_keypair())))

    @contextmanager
    def session(self, app: Path, **more: Any) -> Iterator[None]:
        """This process as the app."""
        gu.init(self.address, key=str(app), log_to_driver=False, **more)
        try:
            yield
        finally:
            gu.shutdown()

    def http(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """The status and the JSON of one request; ``_`` in names of headers is a dash."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None
        if body is not None:
            data = json.dumps(body)
            named.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=WITHIN)
        try:
            connection.request(method, path, data, named)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        return answer.status, json.loads(text) if text else {}

    def token(self, app: Path) -> str:
        """What an app gets for its signature by HTTP, as a header."""
        key = load_key(app)
        _, challenge = self.http("POST", "/auth/challenge", {"key": key.public.text})
        statement = make_statement(
            hub=challenge["hub"], key=key.public.text, link="",
            nonce=bytes.fromhex(challenge["nonce"]), peer="", role="http", session="",
            transport="", at=time.time(),
        )  # fmt: skip
        signature = key.secret.sign(HELLO_TYPE, statement)
        status, found = self.http(
            "POST", "/auth/session", {"statement": b64(statement), "signature": b64(signature)}
        )
        assert status == 201, found
        return f"Bearer {found['token']}"

    def key(self, path: Path) -> KeyFile:
        return load_key(path)

    # --- the log --------------------------------------------------------------------------------

    def lines(self, **wanted: str) -> list[dict[str, Any]]:
        """The newest lines of the audit log that have these fields."""
        known = {x: wanted[x] for x in ("who", "action", "decision", "reason") if x in wanted}
        answer = self.owner.ask(m.AskAudit(0, limit=1000, **known))
        assert isinstance(answer, m.AuditLines), answer
        found = [json.loads(line) for line in answer.lines]
        return [x for x in found if all(x.get(name) == v for name, v in wanted.items())]

    def logged(self, **wanted: str) -> dict[str, Any]:
        """A refusal with these fields is in the log, now or in a moment."""
        wanted.setdefault("decision", "refused")
        [newest, *_] = until(lambda: self.lines(**wanted), f"a line with {wanted}")
        return dict(newest)
