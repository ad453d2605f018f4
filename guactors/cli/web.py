"""``--http`` of ``gu hub`` and ``gu up``: the options, and the door beside a hub in the foreground.

Owns: the settings that the HTTP door starts with. Must never: import it, which is an extra.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
from typing import Annotated, Any, Final, Self

import msgspec
import typer
from msgspec import Struct

from guactors.cli.console import note
from guactors.cli.network import is_loopback
from guactors.errors import UsageError
from guactors.messages import Endpoint
from guactors.runtimes.web import WebProcess
from guactors.transport.addresses import TCP, split_tcp

HTTP_PORT: Final = 61622
_NEEDED: Final = ("fastapi", "uvicorn")

Http = Annotated[
    str | None,
    typer.Option(
        "--http",
        metavar="HOST:PORT",
        help=f"Serve REST there, such as 127.0.0.1:{HTTP_PORT}. Other machines need --http-cert.",
        show_default="no HTTP",
    ),
]
HttpName = Annotated[
    list[str] | None,
    typer.Option(
        "--http-name",
        help="Another name by which clients call the HTTP server; may be repeated.",
        show_default="its address",
    ),
]
HttpCert = Annotated[
    str | None,
    typer.Option("--http-cert", help="Its certificate chain, a PEM file.", show_default="none"),
]
HttpKey = Annotated[
    str | None,
    typer.Option(
        "--http-key", help="The key of that certificate.", show_default="in the same file"
    ),
]


class WebOptions(Struct, frozen=True):
    """What the options say; ``settings`` turns it into what the door is told."""

    host: str
    port: int
    names: list[str]
    cert: str
    key: str

    def settings(self, hub: list[Endpoint]) -> bytes:
        """A ``guactors.web.settings.WebConfig`` for a hub that listens there."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return msgspec.msgpack.encode({"hub": hub, **fields})


def web_options(
    http: str | None, names: list[str] | None, cert: str | None, key: str | None
) -> WebOptions | None:
    """The checked options, None without ``--http``. Raises UsageError and OSError, which say what
    to do, before anything is started."""
    if http is None:
        if names or cert or key:
            raise UsageError("--http-name, --http-cert and --http-key need --http HOST:PORT")
        return None
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"--http needs {' and '.join(missing)}: pip install 'guactors[web]'")
    try:
        host, port = split_tcp(http if http.startswith(TCP) else f"{TCP}{http}")
    except ValueError:
        raise UsageError(f"{http!r} is no address: --http takes HOST:PORT or [IPV6]:PORT") from None
    if key and not cert:
        raise UsageError("--http-key needs the certificate, too: --http-cert FILE")
    if not cert and not is_loopback(host):
        raise UsageError(
            f"plain HTTP only on this machine: {host} can be reached from others; give it a "
            f"certificate (--http-cert, --http-key), or listen on 127.0.0.1:{port}"
        )
    for path in (cert, key):
        if path and not os.path.isfile(path):
            raise UsageError(f"{path}: there is no such file")
    _check_free(host, port)
    return WebOptions(host, port, list(names or ()), _absolute(cert), _absolute(key))


def _absolute(path: str | None) -> str:
    return os.path.abspath(path) if path else ""


def _check_free(host: str, port: int) -> None:
    try:
        found = socket.getaddrinfo(
            None if host == "*" else host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        text = f"cannot serve HTTP on {host}:{port}: {error.strerror}"
        raise OSError(errno.EADDRNOTAVAIL, text) from None
    family, kind, _, _, place = found[0]
    with socket.socket(family, kind) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
        except OSError as error:
            text = f"cannot serve HTTP on {host}:{port}: {error.strerror}"
            raise OSError(error.errno, f"{text}; choose another port with --http") from None


class WebDoor:
    """The HTTP door of a hub in the foreground, if one is wanted: ``open`` it when the hub
    listens, and it is gone at the end of the ``with`` statement."""

    def __init__(self, options: WebOptions | None) -> None:
        self._options = options
        self._process: WebProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None:
            self._process.close()

    def open(self, hub: list[Endpoint]) -> None:
        """Start it; only once, for the hub may tell that it is ready again."""
        if self._options is not None and self._process is None:
            self._process = WebProcess(self._options.settings(hub), _tell)


def _tell(report: dict[str, Any]) -> None:
    note(f"HTTP at {report['url']}" if report["event"] == "ready" else str(report["text"]))
