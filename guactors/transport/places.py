"""Where a socket is bound: names made numeric, directories and stale socket files.

Owns: what must be so on this machine before a bind. Must never: bind.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys

from guactors.transport import addresses


def resolve(place: str) -> str:
    """``place`` with a numeric host, the only kind libzmq binds."""
    host, port = addresses.split_tcp(place)
    if host == "*":
        return place
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as fault:
        raise OSError(
            errno.EADDRNOTAVAIL, f"cannot listen on {place}: no such host ({fault.strerror})"
        ) from fault
    return addresses.join_tcp(str(found[0][4][0]), port)


def own_directory(directory: str) -> None:
    """A directory that only we may enter, made if it is missing. Raises PermissionError."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    # On Windows the rights come from the user's profile directory.
    if hasattr(os, "getuid"):
        facts = os.lstat(directory)
        fault = addresses.directory_fault(directory, facts.st_mode, facts.st_uid, os.getuid())
        if fault:
            raise PermissionError(errno.EACCES, fault)


def clear_stale(place: str, path: str) -> None:
    """Remove a socket file that nobody serves any more: libzmq would take over a live one too."""
    if sys.platform == "win32" or not os.path.lexists(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        code = probe.connect_ex(path)
    if code != errno.ECONNREFUSED:
        code = errno.EADDRINUSE if code in {0, errno.EAGAIN} else code
        raise OSError(code, f"cannot listen on {place}: {os.strerror(code)}")
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise OSError(errno.EEXIST, f"cannot listen on {place}: a file that is no socket is there")
    os.unlink(path)
