"""A daemon that speaks the API of Docker Engine over its Unix socket.

Owns: its connections, the version of the API that is spoken, and what becomes of its refusals. Must
never: wait without a deadline, or hold more of an answer than is asked for.

Raises RuntimeMissing where nobody answers, and :class:`DaemonRefused` with the daemon's own words
where it does not want. Threads: any; each call has a connection to itself.
"""

from __future__ import annotations

import http.client
import select
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final
from urllib.parse import quote, urlencode

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

import msgspec
from msgspec import Struct

from guactors.errors import ProtocolError, RuntimeMissing
from guactors.runtimes.docker.heads import Head, parse_head, upgrade_request

API: Final = (1, 41)
"""The version that is spoken where the daemon knows it: that of Docker 20.10 and Podman 3 and 4."""
PATIENCE: Final = 60.0
"""Seconds for each step of an exchange."""
CONNECT: Final = 5.0
ANSWER_MOST: Final = 16 * 2**20
"""Bytes of an answer that is read whole."""
_IDLE: Final = 4
_REPEATABLE: Final = {"GET", "HEAD", "DELETE"}
"""Methods of what may be asked twice."""
_REMEDY: Final = "start it, or name its socket with DOCKER_HOST=unix://PATH"


class DaemonRefused(Exception):
    """``status``: of HTTP; ``words``: what the daemon says."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.words = words


class _SourceFailed(Exception):
    """What is to be sent cannot be read, which is no fault of the connection."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Stale(Exception):
    """The daemon closed an idle connection just when something was asked on it."""


class Version(Struct, frozen=True):
    """Of the daemon. ``arch``: in the words of Docker, ``amd64``; ``engine``: what it calls itself,
    for people only."""

    api: tuple[int, int]
    arch: str
    text: str
    engine: str


class Answer(Struct, frozen=True):
    """``data``: parsed, where it is one document of JSON, else bytes."""

    status: int
    data: Any
    fields: dict[str, str] = {}


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = open_socket(self._path, self.timeout or PATIENCE)


class Client:
    """Of the daemon whose socket is the file ``path``. ``close`` it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._version: Version | None = None

    def __repr__(self) -> str:
        return f"<Client {self.path}>"

    def version(self) -> Version:
        """Of the daemon, asked once."""
        if self._version is None:
            try:
                found = self._exchange("GET", "/version", timeout=CONNECT).data
            except DaemonRefused as error:
                raise RuntimeMissing(
                    f"what answers at {self.path} is no Docker daemon: {error}"
                ) from None
            self._version = _version_of(found, self.path)
        return self._version

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Answer:
        """Ask for one thing; ``body`` becomes JSON."""
        data = None if body is None else msgspec.json.encode(body)
        return self._exchange(method, self._url(path, query), data, timeout=timeout)

    def upload(
        self,
        method: str,
        path: str,
        pieces: Iterable[bytes],
        *,
        query: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Answer:
        """Send a tar. What ``pieces`` raises passes through."""
        return self._exchange(method, self._url(path, query), pieces, timeout=timeout)

    @contextmanager
    def download(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer to read inside the block, piece by piece."""
        connection = self._take(PATIENCE)
        try:
            with self._talking():
                connection.request("GET", self._url(path, query))
                answer = connection.getresponse()
                if answer.status >= 300:
                    raise DaemonRefused(answer.status, _words(answer.read(ANSWER_MOST)))
            yield answer
        finally:
            connection.close()

    def hijack(self, path: str, body: Any) -> tuple[socket.socket, bytes]:
        """The line to a program, and what came of it already. Close the socket."""
        line = open_socket(self.path, PATIENCE)
        try:
            with self._talking():
                line.sendall(upgrade_request(self._url(path, None), msgspec.json.encode(body)))
                head, rest = self._head(line)
            if head.status not in {101, 200}:
                raise DaemonRefused(head.status, self._refusal(line, head, rest))
        except BaseException:
            line.close()
            raise
        return line, rest

    def nonsense(self, error: ProtocolError) -> RuntimeMissing:
        """What is to be said of an answer that is none."""
        return RuntimeMissing(
            f"what answers at {self.path} does not talk as a Docker daemon does ({error}): look at "
            "its log, start it again"
        )

    def close(self) -> None:
        """Idle connections, too."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # --- one exchange ---------------------------------------------------------------------------

    def _exchange(
        self,
        method: str,
        url: str,
        body: bytes | Iterable[bytes] | None = None,
        *,
        timeout: float,
    ) -> Answer:
        connection = self._take(timeout)
        if connection.sock is not None and method in _REPEATABLE:
            with suppress(_Stale):
                return self._once(connection, method, url, body, repeatable=True)
            connection = _Connection(self.path, timeout)
        return self._once(connection, method, url, body)

    def _once(
        self,
        connection: _Connection,
        method: str,
        url: str,
        body: bytes | Iterable[bytes] | None,
        *,
        repeatable: bool = False,
    ) -> Answer:
        try:
            with self._talking():
                try:
                    sent = self._send(connection, method, url, body)
                    with connection.getresponse() as answer:
                        data = answer.read(ANSWER_MOST + 1)
                except ConnectionError:
                    if repeatable:
                        raise _Stale from None
                    raise
        except _SourceFailed as failed:
            connection.close()
            raise failed.error from None
        except BaseException:
            connection.close()
            raise
        if len(data) > ANSWER_MOST:
            connection.close()
            raise self.nonsense(ProtocolError(f"more than {ANSWER_MOST} bytes to {url}"))
        if answer.will_close or not sent:
            connection.close()
        else:
            self._give_back(connection)
        if answer.status >= 400:
            raise DaemonRefused(answer.status, _words(data))
        fields = {name.lower(): text for name, text in answer.getheaders()}
        return Answer(answer.status, _parsed(data, fields), fields)

    def _send(
        self,
        connection: _Connection,
        method: str,
        url: str,
        body: bytes | Iterable[bytes] | None,
    ) -> bool:
        """Whether all was sent. A daemon may answer before it has read all, and close: then what it
        says is still there to read."""
        try:
            if body is None or isinstance(body, bytes):
                fields = {"Content-Type": "application/json"} if body else {}
                connection.request(method, url, body, fields)
            else:
                fields = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
                connection.request(method, url, _guarded(body), fields, encode_chunked=True)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        major, minor = self.version().api
        words = f"?{urlencode(query)}" if query else ""
        return f"/v{major}.{minor}{quote(path)}{words}"

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except ProtocolError as error:
            raise self.nonsense(error) from None
        except TimeoutError:
            raise RuntimeMissing(
                f"the Docker daemon at {self.path} does not answer: look at its log, start it again"
            ) from None
        except (http.client.HTTPException, OSError) as error:
            raise RuntimeMissing(
                f"the Docker daemon at {self.path} went away in the middle ({error}): {_REMEDY}"
            ) from None

    def _head(self, line: socket.socket) -> tuple[Head, bytes]:
        data = b""
        while (found := parse_head(data)) is None:
            more = line.recv(4096)
            if not more:
                raise ConnectionResetError("it closed the line")
            data += more
        return found

    def _refusal(self, line: socket.socket, head: Head, rest: bytes) -> str:
        left = min(head.length or 0, ANSWER_MOST) - len(rest)
        with self._talking():
            while left > 0 and (more := line.recv(left)):
                rest += more
                left -= len(more)
        return _words(rest)

    # --- connections ----------------------------------------------------------------------------

    def _take(self, timeout: float) -> _Connection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return _Connection(self.path, timeout)
            sock = connection.sock
            if sock is not None and not _readable(sock):
                sock.settimeout(timeout)
                return connection
            connection.close()  # the daemon has closed it: it was started again, perhaps

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()


def open_socket(path: str, timeout: float) -> socket.socket:
    """A connection to a daemon. Raises RuntimeMissing, which names the socket."""
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.settimeout(CONNECT)
        line.connect(path)
        line.settimeout(timeout)
    except OSError as error:
        line.close()
        why = error.strerror or str(error)
        if isinstance(error, PermissionError):
            hint = "this user may not use it: become a member of its group, or use another socket"
        else:
            hint = _REMEDY
        raise RuntimeMissing(f"no Docker daemon answers at {path} ({why}): {hint}") from None
    return line


def _guarded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    try:
        for piece in pieces:
            if piece:  # an empty one would be the end
                yield piece
    except OSError as error:
        raise _SourceFailed(error) from None


def _version_of(found: Any, path: str) -> Version:
    if not isinstance(found, dict):
        raise RuntimeMissing(f"what answers at {path} is no Docker daemon: it has no /version")
    most, least = _api(found.get("ApiVersion")), _api(found.get("MinAPIVersion"))
    if most is None:
        raise RuntimeMissing(f"what answers at {path} is no Docker daemon: it tells no API version")
    parts = found.get("Components")
    first = parts[0] if isinstance(parts, list) and parts and isinstance(parts[0], dict) else {}
    return Version(
        max(min(API, most), least or (0, 0)),
        str(found.get("Arch", "")),
        str(found.get("Version", "")),
        str(first.get("Name", "")),
    )


def _api(text: object) -> tuple[int, int] | None:
    major, dot, minor = text.partition(".") if isinstance(text, str) else ("", "", "")
    if not (dot and major.isdigit() and minor.isdigit() and len(major + minor) < 10):
        return None
    return int(major), int(minor)


def _readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _parsed(data: bytes, fields: Mapping[str, str]) -> Any:
    if not fields.get("content-type", "application/json").startswith("application/json"):
        return data
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return data  # a stream of several documents is the caller's to read


def _words(data: bytes) -> str:
    """What an answer says of an error."""
    with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
        found = msgspec.json.decode(data)
        if isinstance(found, dict) and isinstance(found.get("message"), str):
            return str(found["message"]).strip()
    return data[:4096].decode("utf-8", "replace").strip() or "nothing"
