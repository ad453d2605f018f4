"""The process of the HTTP door: where it listens, its beginning and its end.

Owns: the socket, the certificate, the order of start and stop. Must never: listen where other
machines reach it without a certificate, or outlive whoever started it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from typing import Any, Final, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from guactors.errors import GuactorsError, UsageError
from guactors.web.app import make_app
from guactors.web.connection import Everybody, GuardedConnection, watch
from guactors.web.crowd import Crowd
from guactors.web.deputy import Deputies
from guactors.web.gate import Gate
from guactors.web.guard import is_loopback, lower_names
from guactors.web.hub_client import Hub
from guactors.web.settings import WebConfig

Report = Callable[[dict[str, Any]], None]

BACKLOG: Final = 256
LAST_ANSWERS_WITHIN: Final = 1.0
"""Seconds for what is being answered when the end comes."""
_DATE_EVERY: Final = 1.0
_WILDCARDS: Final = frozenset({"", "*", "0.0.0.0", "::"})


def run_web_process(config: WebConfig, report: Report) -> int:
    """A web server's whole life, until SIGTERM or SIGINT; returns the exit status.

    ``report`` gets ``{"event": "ready", "url": ...}`` once it listens (the hub may come later), or
    ``{"event": "error", "text": ...}`` when it cannot."""
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        try:
            runner.run(_until_signalled(config, report))
        except (OSError, GuactorsError) as error:
            report({"event": "error", "kind": type(error).__name__, "text": f"http: {error}"})
            return 1
    return 0


async def _until_signalled(config: WebConfig, report: Report) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        else:
            loop.add_signal_handler(number, stop.set)
    _allow_descriptors(config.limits.connections)
    await serve_web(config, lambda url: report({"event": "ready", "url": url}), stop)


async def serve_web(
    config: WebConfig, on_ready: Callable[[str], None], stop: asyncio.Event
) -> None:
    """Serve until ``stop`` is set. ``on_ready`` gets the URL. Raises OSError, which names the
    address, and UsageError for settings that will not do."""
    names = _names(config)
    security = _security(config)
    with bind(config) as sock:
        hub = Hub(config.hub, config.timing)
        deputies = Deputies(config.hub, config.timing)
        app = make_app(hub, deputies, names, config.limits)
        try:
            await _serve(config, app, security, sock, on_ready, stop)
        finally:
            deputies.close()
            hub.close()


async def _serve(
    config: WebConfig,
    app: Gate,
    security: ssl.SSLContext | None,
    sock: socket.socket,
    on_ready: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    limits = config.limits
    settings = Config(
        cast(Any, app),
        http=GuardedConnection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # Below that it logs what strangers send.
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=limits.head_bytes,
    )
    settings.load()
    state = ServerState()
    crowd: Everybody = Crowd(limits.connections, limits.of_address)
    make = partial(GuardedConnection, settings, state, {}, limits=limits, crowd=crowd)
    loop = asyncio.get_running_loop()
    patience = {"ssl_handshake_timeout": limits.head} if security else {}
    server = await loop.create_server(
        make, sock=sock, ssl=security, backlog=BACKLOG, **cast(Any, patience)
    )
    chores = [asyncio.create_task(watch(state, limits)), asyncio.create_task(_dates(state))]
    try:
        on_ready(url_of(config, sock))
        await stop.wait()
    finally:
        server.close()
        await _finish(state)
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)


async def _finish(state: ServerState) -> None:
    """Let what is being answered be answered, for a moment, then end all."""
    for connection in list(state.connections):
        connection.shutdown()
    if state.tasks:
        await asyncio.wait(list(state.tasks), timeout=LAST_ANSWERS_WITHIN)
    for connection in list(state.connections):
        if connection.transport is not None:
            connection.transport.abort()
    tasks = list(state.tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # the aborted connections hear of their end


async def _dates(state: ServerState) -> None:
    while True:
        state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
        await asyncio.sleep(_DATE_EVERY)


# --- where it listens ---------------------------------------------------------------------------


def bind(config: WebConfig) -> socket.socket:
    """A bound socket. Raises OSError that names the address; UsageError where other machines could
    reach it and there is no certificate."""
    shown = f"http://{_bracketed(config.host)}:{config.port}"
    host = None if config.host in {"", "*"} else config.host
    try:
        found = socket.getaddrinfo(
            host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as fault:
        text = f"cannot listen on {shown}: no such host ({fault.strerror})"
        raise OSError(errno.EADDRNOTAVAIL, text) from None
    family, kind, protocol, _, address = found[0]
    if not config.cert and not is_loopback(str(address[0])):
        raise UsageError(
            f"plain HTTP only on this machine: {shown} can be reached from others; give it a "
            "certificate (--http-cert, --http-key), or listen on 127.0.0.1"
        )
    sock = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as fault:
        sock.close()
        text = f"cannot listen on {shown}: {fault.strerror}; choose another port with --http"
        raise OSError(fault.errno, text) from None
    sock.setblocking(False)
    return sock


def url_of(config: WebConfig, sock: socket.socket) -> str:
    """How clients call a bound server."""
    host, port = sock.getsockname()[:2]
    if config.host not in _WILDCARDS:
        host = config.host
    elif config.names:
        host = config.names[0]
    return f"{'https' if config.cert else 'http'}://{_bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _names(config: WebConfig) -> frozenset[str]:
    own = [] if config.host in _WILDCARDS else [config.host]
    try:
        return lower_names([*own, *config.names])
    except ValueError as fault:
        raise UsageError(f"{str(fault)!r} is no name to call this server by: --http-name") from None


def _security(config: WebConfig) -> ssl.SSLContext | None:
    if not config.cert:
        if config.key:
            raise UsageError("a key without a certificate: give --http-cert, too")
        return None

    def no_passphrase() -> str:
        # Without this OpenSSL would ask whoever sits at the terminal.
        raise UsageError(f"the key of {config.cert} is locked: give one without a passphrase")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.cert, config.key or None, no_passphrase)
    except (ssl.SSLError, OSError) as fault:
        reason = getattr(fault, "reason", None) or fault.strerror or "unreadable"
        raise UsageError(
            f"the certificate {config.cert} and its key cannot be used: {reason}"
        ) from None
    return context


def _allow_descriptors(connections: int) -> None:
    """Room for all connections, where the system allows it."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 1024
    if 0 <= soft < wanted:
        most = wanted if hard < 0 else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
