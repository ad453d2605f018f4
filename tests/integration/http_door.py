"""The HTTP door in its own process, before a real hub in another; clients with keys and without."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import queue
import socket
import ssl
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from guactors import messages as m
from guactors.config import HubConfig, Identity, Seal
from guactors.images.manifest import CHUNK
from guactors.messages import Endpoint
from guactors.runtimes.web import WebProcess
from guactors.security.grants import Quotas, build_grant, sign_grant
from guactors.security.keys import Kind, SecretKey
from guactors.security.statements import make_statement
from guactors.transport import open_transport
from guactors.web.settings import Limits, WebConfig
from tests.integration.hub_peer import TIMING, VERSIONS, HubProcess, Peer
from tests.unit.images.making import blob_of, chunks, content, manifest_bytes
from tests.unit.security.samples import secret

HUB, OWNER = secret(Kind.HUB), secret(Kind.OWNER)
APP, OTHER, POOR, BAD = (secret(Kind.APP, number) for number in (1, 2, 3, 4))
"""Two apps with every right, one that may only submit, one to be revoked."""
ALL = ["submit", "read_stats", "upload_images"]
WITHIN = 10.0

_serials = count(1)


class Grid:
    """A hub that knows the apps, and its local user."""

    def __init__(self, run_dir: Path, data: Path) -> None:
        self.config = HubConfig(
            "h-1",
            [f"ipc://{run_dir}/hub"],
            str(run_dir),
            timing=TIMING,
            seal=Seal(HUB.public.text, HUB.text),
            owners=[OWNER.public.text],
            approved=[key.public.text for key in (APP, OTHER, POOR, BAD)],
            data=str(data),
        )
        self.transport = open_transport(Identity())
        self.start()
        for key, actions in ((APP, ALL), (OTHER, ALL), (POOR, ["submit"]), (BAD, ALL)):
            self.grant(key, actions)

    @property
    def endpoints(self) -> list[Endpoint]:
        return self.hub.endpoints

    def start(self) -> None:
        self.hub = HubProcess(self.config)
        hello = m.Hello("c-admin", "caller", VERSIONS, 1, "host")
        self.admin = Peer(self.transport, self.endpoints[0], hello)
        self.admin.hear(m.Welcome)

    def kill(self) -> None:
        self.admin.close()
        self.hub.close()

    def do(self, question: m.Message) -> None:
        self.admin.say(question)
        self.admin.hear(m.Done)

    def grant(self, key: SecretKey, actions: list[str]) -> None:
        grant = build_grant(
            hub=HUB.public.text, app=key.public.text, issuer=OWNER.public.text,
            serial=next(_serials), now=time.time() - 60, actions=actions,
            quotas=Quotas("*", "*", "*", "*", "*"),
        )  # fmt: skip
        self.do(m.PutGrant(1, sign_grant(grant, OWNER)))

    def close(self) -> None:
        self.kill()
        self.transport.close()


class Door:
    """The process under test, as ``gu hub`` starts it."""

    def __init__(self, hub: list[Endpoint], limits: Limits | None = None, **fields: Any) -> None:
        config = WebConfig(hub, limits=limits or Limits(), timing=TIMING, **fields)
        self.reports: queue.Queue[dict[str, Any]] = queue.Queue()
        self.process = WebProcess(msgspec.msgpack.encode(config), self.reports.put)
        self.url = ""
        self.error = ""
        report = self.reports.get(timeout=30)
        self.url, self.error = report.get("url", ""), report.get("text", "")
        self.port = int(self.url.rpartition(":")[2] or 0)

    def __enter__(self) -> Self:
        assert self.url, self.error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.process.close()

    def client(self, key: SecretKey | None = None) -> Client:
        """A client, with a token if it has a key."""
        client = Client(self.port)
        if key is not None:
            client.log_in(key)
        return client

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), WITHIN, (source, 0))


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def why(self) -> tuple[int, str]:
        return self.status, str(self.json()["reason"])


class Client:
    """One connection that is kept while the server keeps it."""

    def __init__(self, port: int, security: ssl.SSLContext | None = None) -> None:
        self.token = ""
        if security is None:
            self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN)
        else:
            self.http = http.client.HTTPSConnection(
                "localhost", port, timeout=WITHIN, context=security
            )

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Names of headers with ``_`` for ``-``; a body that is no bytes goes as JSON."""
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        self.http.request(method, path, body, sent)
        return self._reply()

    def _reply(self) -> Reply:
        response = self.http.getresponse()
        headers = {name.lower(): text for name, text in response.getheaders()}
        return Reply(response.status, headers, response.read())

    def log_in(self, key: SecretKey) -> None:
        signed = self.sign(key, self.challenge(key))
        reply = self("POST", "/auth/session", signed)
        assert reply.status == 201, reply.body
        self.token = str(reply.json()["token"])

    def challenge(self, key: SecretKey) -> dict[str, Any]:
        reply = self("POST", "/auth/challenge", {"key": key.public.text})
        assert reply.status == 200, reply.body
        found: dict[str, Any] = reply.json()
        return found

    @staticmethod
    def sign(by: SecretKey, challenge: dict[str, Any], /, **changes: Any) -> dict[str, str]:
        """The form for a token; ``changes`` of the statement's fields."""
        fields = {
            "hub": challenge["hub"], "key": by.public.text, "link": "",
            "nonce": bytes.fromhex(challenge["nonce"]), "peer": "", "role": "http", "session": "",
            "transport": "", "at": time.time(),
        }  # fmt: skip
        statement = make_statement(**{**fields, **changes})
        signature = by.sign(challenge["type"], statement)
        return {"statement": text_of(statement), "signature": text_of(signature)}

    def close(self) -> None:
        self.http.close()


class Picture:
    """An image of two blobs, the first of several chunks."""

    def __init__(self, seed: str, size: int = CHUNK + 1000) -> None:
        self.data = {blob_of(data).sha3_256: data
                     for data in (content(size, seed), content(50, seed + "2"))}  # fmt: skip
        blobs = [blob_of(data) for data in self.data.values()]
        self.manifest = manifest_bytes(
            blobs[0], blob_of(list(self.data.values())[1], "data", "raw")
        )
        self.id = "sha3-256:" + hashlib.sha3_256(self.manifest).hexdigest()
        self.form = {"manifest": base64.b64encode(self.manifest).decode()}

    def chunk(self, blob: str, index: int) -> bytes:
        return chunks(self.data[blob])[index]

    def path(self, blob: str, index: int) -> str:
        return f"/images/{self.id}/blobs/{blob}/chunks/{index}"

    def all(self) -> dict[str, list[int]]:
        return {blob: list(range(len(chunks(data)))) for blob, data in self.data.items()}

    def upload(self, client: Client) -> None:
        offer = client("POST", "/images", self.form)
        assert offer.status == 202, offer.body
        for blob, indexes in offer.json()["missing"].items():
            for index in indexes:
                reply = client("PUT", self.path(blob, index), self.chunk(blob, index))
                assert reply.status == 204, reply.body
        assert client("POST", f"/images/{self.id}/seal").status == 201


def text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def exchange(sock: socket.socket, data: bytes = b"", within: float = WITHIN) -> bytes:
    """Send, and read until the server closes; what it said."""
    sock.settimeout(within)
    said = b""
    try:
        if data:
            sock.sendall(data)
        while piece := sock.recv(65536):
            said += piece
    except (ConnectionResetError, BrokenPipeError):
        pass
    return said


def status_of(said: bytes) -> int:
    """Of an answer as it came, 0 for none."""
    return int(said.split(b" ", 2)[1]) if said.startswith(b"HTTP/1.1 ") else 0


def eventually_ok(client: Client, method: str, path: str, status: int) -> Reply:
    """Ask until the answer is this one: for what a hub does in its own time."""
    deadline = time.monotonic() + WITHIN
    while (reply := client(method, path)).status != status:
        assert time.monotonic() < deadline, (reply.status, reply.body)
        time.sleep(0.02)
    return reply


__all__ = ["APP", "BAD", "OTHER", "POOR", "Client", "Door", "Grid", "Picture", "Reply",
           "eventually_ok", "exchange", "status_of", "text_of"]  # fmt: skip
