"""QEMU that connects to us over 127.0.0.1, where it can inherit nothing.

Owns: the ports, and who may come: one connection each, of the very process that was started, which
the system says of its peer. Must never: have QEMU listen, keep a port open once it has come, or
take a connection whose process is not known.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any, Final

import msgspec
import psutil

from guactors.errors import RuntimeMissing
from guactors.runtimes.qemu.argv import Machine, build_argv
from guactors.runtimes.qemu.hosts.ending import Launched, WaitedEnd, how_ended

CONNECT_WITHIN: Final = 20.0
_HERE: Final = "127.0.0.1"
_LOOK: Final = 0.1
_WAITING: Final = 8
_WORDS: Final = 2000
_KEPT: Final = ("PATH", "SYSTEMROOT", "TEMP", "TMP")
"""Variables without which a program does not start on Windows, or has no network."""
_NO_WINDOW: Final = 0x08000200 if sys.platform == "win32" else 0
"""CREATE_NO_WINDOW and CREATE_NEW_PROCESS_GROUP."""


def start_connecting(machine: Machine, within: float = CONNECT_WITHIN) -> Launched:
    """With all three channels. Raises RuntimeMissing where it does not come within that time."""
    with ExitStack() as listening, ExitStack() as ours:
        monitor, agent, console = (listening.enter_context(_listener()) for _ in range(3))
        machine = msgspec.structs.replace(
            machine, monitor=_port(monitor), agent=_port(agent), console=_port(console)
        )
        errors, words = socket.socketpair()
        ours.callback(errors.close)
        with ExitStack() as unused:
            unused.callback(words.close)
            popen = _start(machine)
            unused.pop_all()
        end = WaitedEnd(popen, words)
        try:
            until = time.monotonic() + within
            found = []
            for listener in (monitor, agent, console):
                found.append(_accept(listener, popen, until))
                ours.callback(found[-1].close)
        except BaseException as error:
            end.kill()
            end.close()
            if isinstance(error, RuntimeMissing):
                said = errors.recv(_WORDS).decode("utf-8", "replace").strip()
                raise RuntimeMissing(f"{error}; its last words: {said}") from None
            raise
        ours.pop_all()
    return Launched(popen, end, found[1], found[0], (found[2], errors))


def _listener() -> socket.socket:
    sock = socket.socket()
    try:
        if sys.platform == "win32":  # else another program could bind the port as well
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        sock.bind((_HERE, 0))
        sock.listen(_WAITING)
    except BaseException:
        sock.close()
        raise
    return sock


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _start(machine: Machine) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            build_argv(machine),
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            cwd=os.path.dirname(machine.qemu) or None,
            creationflags=_NO_WINDOW,
            start_new_session=sys.platform != "win32",
        )
    except OSError as error:
        raise RuntimeMissing(f"{machine.qemu} cannot be started: {error}") from None


def _accept(listener: socket.socket, popen: subprocess.Popen[bytes], until: float) -> socket.socket:
    """Its connection; those of others are closed."""
    listener.settimeout(_LOOK)
    while True:
        try:
            sock, peer = listener.accept()
        except TimeoutError:
            if (code := popen.poll()) is not None:
                raise RuntimeMissing(f"QEMU ended {how_ended(code)} before it came") from None
        else:
            if is_of(popen.pid, peer, sock.getsockname()):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            sock.close()
        if time.monotonic() > until:
            raise RuntimeMissing("QEMU did not connect to this process")


def is_of(pid: int, peer: tuple[str, int], here: tuple[str, int]) -> bool:
    """Whether the other end of a connection, at ``peer``, is of that process; ``here``: our end. A
    system that does not tell has not said so."""
    try:
        process: Any = psutil.Process(pid)
        ask = getattr(process, "net_connections", None) or process.connections
        found = ask("tcp4")
    except psutil.Error:
        return False
    return any(tuple(one.laddr) == peer and tuple(one.raddr) == here for one in found)
