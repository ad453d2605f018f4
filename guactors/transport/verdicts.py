"""What a connection event of libzmq means for a link.

Owns: the translation from libzmq's event numbers (those of ``zmq_socket_monitor``) to a
:class:`~guactors.transport.base.Down`. Must never: import zmq; a test compares the
numbers with zmq's.
"""

from __future__ import annotations

import errno
from typing import Final

from guactors.transport.base import Down

CONNECT_RETRIED: Final = 0x0004
CLOSED: Final = 0x0080
DISCONNECTED: Final = 0x0200
HANDSHAKE_FAILED_NO_DETAIL: Final = 0x0800
HANDSHAKE_SUCCEEDED: Final = 0x1000
HANDSHAKE_FAILED_PROTOCOL: Final = 0x2000
HANDSHAKE_FAILED_AUTH: Final = 0x4000
ERROR_CRYPTOGRAPHIC: Final = 0x11000001
"""Value of HANDSHAKE_FAILED_PROTOCOL where a box could not be opened."""

LISTENER_EVENTS: Final = (
    DISCONNECTED | HANDSHAKE_FAILED_NO_DETAIL | HANDSHAKE_FAILED_PROTOCOL | HANDSHAKE_FAILED_AUTH
)
LINK_EVENTS: Final = LISTENER_EVENTS | HANDSHAKE_SUCCEEDED | CLOSED | CONNECT_RETRIED


def verdict(event: int, value: int, *, was_up: bool, curve: bool, where: str) -> Down:
    """Why the connection to ``where`` is down. ``value`` is the event's, ``was_up`` says whether
    its handshake had succeeded, ``curve`` whether it is encrypted."""
    if was_up:
        return Down("lost", f"the connection to {where} broke")
    if event == HANDSHAKE_FAILED_AUTH:
        return Down(
            "auth",
            f"{where} refused our key: it does not belong to that grid; check the join address",
        )
    if event == HANDSHAKE_FAILED_PROTOCOL:
        if value == ERROR_CRYPTOGRAPHIC:
            return Down("auth", f"{where} is not the server whose key we were given")
        return Down("protocol", f"{where} speaks another protocol (libzmq error {value:#x})")
    if event == HANDSHAKE_FAILED_NO_DETAIL:
        # A server that cannot open our first box hangs up politely; one that dies resets.
        if curve and value == errno.EPIPE:
            return Down(
                "auth",
                f"{where} hung up during the handshake: its key is not the one we were given; "
                "check the join address",
            )
        name = errno.errorcode.get(value, str(value))
        return Down("unreachable", f"{where} did not answer the handshake ({name})")
    if event == DISCONNECTED:
        return Down("protocol", f"{where} is not a guactors listener")
    return Down("unreachable", f"nobody answers at {where}")
