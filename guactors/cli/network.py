"""The names of this machine as others see it.

Owns: which address to tell others for a wildcard, and to bind for a way out; whether an address can
be listened on, or a hub answers. Must never: say anything to one.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import selectors
import socket
import time

import typer

from guactors.errors import AuthFailed, GuactorsError, HubUnreachable
from guactors.grid_client import NAP
from guactors.grid_file import HubAddress
from guactors.hub_keys import HubKeys
from guactors.join import JoinAddress, format_join
from guactors.messages import Endpoint
from guactors.transport import open_transport
from guactors.transport.addresses import TCP, split_tcp
from guactors.transport.base import Down, LinkState

ANSWER_WITHIN = 5.0
"""Seconds for somebody far away."""
# Documentation addresses: asked only which of our own addresses would be used to get there.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def check_tcp(address: str) -> str:
    """``address`` if it is ``tcp://HOST:PORT``. Raises typer.BadParameter."""
    try:
        split_tcp(address)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return address


def check_free(address: str) -> None:
    """Fail early, and in one line, where the port cannot be bound. Raises OSError that names it."""
    host, port = split_tcp(address)
    wanted = "0.0.0.0" if host == "*" else host
    try:
        family, kind, _, _, place = socket.getaddrinfo(wanted, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise OSError(
            errno.EADDRNOTAVAIL, f"cannot listen on {address}: {error.strerror}"
        ) from None
    with socket.socket(family, kind) as probe:
        if os.name == "posix":
            # As libzmq does: connections of an earlier hub that linger do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(place)
        except OSError as error:
            text = f"cannot listen on {address}: {error.strerror}"
            raise OSError(error.errno, f"{text}; choose another port with --listen") from None


def check_hub(target: HubAddress) -> None:
    """Fail early, and in one line, where no hub answers or another one does: shake hands, and hang
    up. Raises HubUnreachable, AuthFailed."""
    transport = open_transport(target.credentials.identity)
    try:
        link = transport.dial(target.endpoints[0])
        deadline = time.monotonic() + ANSWER_WITHIN
        with selectors.DefaultSelector() as selector:
            for fileno in link.filenos():
                selector.register(fileno, selectors.EVENT_READ)
            while link.state() is LinkState.DIALING and time.monotonic() < deadline:
                selector.select(NAP)
                link.receive()
        if link.state() is not LinkState.UP:
            down = link.down() or Down("unreachable", f"no answer within {ANSWER_WITHIN:g} s")
            raise _no_hub(target.shown, down)
        link.close()
    finally:
        transport.close()


def _no_hub(where: str, down: Down) -> GuactorsError:
    if down.cause == "auth":
        return AuthFailed(f"the hub at {where} refused the handshake: {down.detail}")
    return HubUnreachable(
        f"the hub at {where} does not answer ({down.detail}): is it running, and its port open to "
        "this machine? --wait keeps trying"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host`` there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def outward_host(towards: str = "") -> str:
    """The address of this machine on the way to ``towards``, or to anywhere; 127.0.0.1 where no
    network is up."""
    targets = [(family, towards) for family, _ in _ELSEWHERE] if towards else list(_ELSEWHERE)
    for family, target in targets:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))  # a datagram socket: this only picks a route
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return "127.0.0.1"


def advertised(host: str) -> str:
    """What to tell others for a host that was bound: a wildcard becomes an address of ours."""
    if host in {"*", "0.0.0.0", "::", ""}:
        return outward_host()
    return host


def join_address(endpoints: list[Endpoint], keys: HubKeys) -> str:
    """The join address of a hub that listens there; its first TCP endpoint is the one."""
    for endpoint in endpoints:
        if endpoint.control.startswith(TCP):
            host, port = split_tcp(endpoint.control)
            transport, owner = endpoint.server_key, keys.owners[0]
            return format_join(JoinAddress(advertised(host), port, transport, keys.seal.key, owner))
    raise typer.BadParameter("a hub needs a TCP address for others to join it")
