"""Transport addresses: their syntax, and what an ipc address asks of its place on disk.

Owns: splitting addresses, and the rule that ipc sockets live in a directory of their own that only
their user can enter. Must never: touch the network or the disk; ``zmq_link`` does.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Final

IPC: Final = "ipc://"
TCP: Final = "tcp://"
IPC_PATH_LIMIT: Final = 107 if sys.platform.startswith("linux") else 103
"""Bytes of a socket path, a limit of the operating system."""
DATA_SUFFIX: Final = ".d"
"""Ends the path of the data lane where the address names only one path."""


def split_tcp(address: str) -> tuple[str, int]:
    """Host (no brackets) and port of ``tcp://HOST:PORT``, ``*`` being port 0; else ValueError."""
    host, colon, port_text = address.removeprefix(TCP).rpartition(":")
    if address.startswith(TCP) and colon and host:
        bracketed = host.startswith("[") and host.endswith("]")
        if port_text == "*":
            port_text = "0"
        if port_text.isascii() and port_text.isdigit() and (bracketed or ":" not in host):
            port = int(port_text)
            if port < 65536:
                return host[1:-1] if bracketed else host, port
    raise ValueError(f"{address!r} is not a TCP address (tcp://HOST:PORT, tcp://[IPV6]:PORT)")


def join_tcp(host: str, port: int) -> str:
    """The address of ``host`` and ``port``, with the brackets that IPv6 needs."""
    return f"{TCP}[{host}]:{port}" if ":" in host else f"{TCP}{host}:{port}"


def ipc_path(address: str) -> str:
    """The path of ``ipc:///ABSOLUTE/PATH``. Raises ValueError for another form, OSError where the
    operating system cannot take a path that long."""
    path = address.removeprefix(IPC)
    if not address.startswith(IPC) or not os.path.isabs(path):
        raise ValueError(f"{address!r} is not an ipc address (ipc:///ABSOLUTE/PATH)")
    size = len(os.fsencode(path))
    if size > IPC_PATH_LIMIT:
        raise OSError(
            errno.ENAMETOOLONG,
            f"cannot listen on {address}: the path has {size} bytes, this system allows "
            f"{IPC_PATH_LIMIT}; use a shorter directory",
        )
    return path


def directory_fault(directory: str, mode: int, owner: int, us: int) -> str:
    """Why ``directory`` may not hold our sockets, or "". ``mode`` and ``owner`` are ``st_mode`` and
    ``st_uid`` of its ``lstat``, ``us`` is our user id."""
    if not stat.S_ISDIR(mode):
        return f"{directory} must be a directory, not a link or a file"
    if owner != us:
        return (
            f"{directory} belongs to user {owner}, not to us ({us}); "
            "sockets need a directory of our own"
        )
    rights = stat.S_IMODE(mode)
    if rights & 0o077:
        return (
            f"{directory} has mode {rights:04o}, others could reach our sockets; "
            f"use a directory of mode 0700 (chmod 700 {directory})"
        )
    return ""


def places_of(address: str, data_address: str | None) -> list[str]:
    """The address of each port a listener needs: of one that both lanes share, or one for each. An
    empty ``data_address`` means the control lane's own port, whichever the system chooses.

    Raises ValueError for lanes of different kinds and for what is no address."""
    shared = data_address == ""
    places = [address]
    if data_address and data_address != address:
        places.append(data_address)
    if address.startswith(IPC):
        if shared:
            raise ValueError(f"{address}: the lanes of a socket file cannot share one")
        if len(places) == 1:
            places.append(address + DATA_SUFFIX)
    elif len(places) == 1 and split_tcp(address)[1] == 0 and not shared:
        places.append(address)
    if len({place.partition("://")[0] for place in places}) != 1:
        raise ValueError(f"{places[0]} and {places[1]}: both lanes need the same kind of address")
    return places
