"""The provider's hold on its zygote: bring it up, talk to it, see it end.

Owns: the zygote's pid, the channel, the lifeline. Must never: know the workers.
"""

from __future__ import annotations

import os
import socket
import sys

assert sys.platform != "win32", "needs fork; spawn.py serves Windows"

from guactors.runtimes import process, zygote
from guactors.runtimes.channel import Channel, FromZygote
from guactors.runtimes.command import (
    FOREIGN,
    environment,
    foreign_module,
    holds_secrets,
    python_module,
)

_END_WITHIN = 1.5


class ZygoteHandle:
    """One zygote, from its start to its end.

    It is forked from this process while that has a single thread and no secret in its environment
    (its pages are shared then), and started as a fresh Python otherwise; as ``python`` if that is
    another interpreter. Raises OSError when the system gives no process."""

    def __init__(self, entry: str, python: str = "") -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        lifeline, self._lifeline = os.pipe()
        try:
            if not python and process.single_threaded() and not holds_secrets():
                self.pid = _fork(theirs.fileno(), lifeline, entry)
            else:
                self.pid = _spawn(theirs.fileno(), lifeline, entry, python)
        except OSError:
            ours.close()
            os.close(self._lifeline)
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        ours.setblocking(False)
        self.channel: Channel[FromZygote] = Channel(ours, FromZygote)

    def gone(self) -> str:
        """After the channel's end: reap it, and say how it ended. From then on its workers are
        children of this process (where the platform lets us adopt them)."""
        self.channel.close()
        # Its descriptors close before the kernel ends its workers. Were the lifeline to close now,
        # a worker could leave by itself, and its death be told as an ordinary exit.
        ended = process.reap_within(self.pid, _END_WITHIN)
        self._let_go()
        if ended is None:
            return self._finish_off()
        return _describe(ended[0])

    def close(self) -> None:
        """End it, and with it every worker and its group."""
        self._let_go()
        if process.reap_within(self.pid, _END_WITHIN) is None:
            self._finish_off()

    def _let_go(self) -> None:
        self.channel.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def _finish_off(self) -> str:
        if self.pid in process.children():
            process.kill_group(self.pid)
            process.reap(self.pid, block=True)
        return "it no longer answered and was killed"


def _fork(channel_fd: int, lifeline: int, entry: str) -> int:
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        zygote.serve(channel_fd, lifeline, parent, entry)
    return pid


def _spawn(channel_fd: int, lifeline: int, entry: str, python: str) -> int:
    words = (str(channel_fd), str(lifeline), str(os.getpid()), entry, os.pathsep.join(sys.path))
    if python:
        command = foreign_module(python, "guactors.runtimes.zygote", *words, FOREIGN)
    else:
        command = python_module("guactors.runtimes.zygote", *words)
    for fd in (channel_fd, lifeline):
        os.set_inheritable(fd, True)
    return os.posix_spawn(command[0], command, environment())


def _describe(status: int) -> str:
    code, number = process.split_status(status)
    return f"it exited with status {code}" if number is None else f"signal {number} ended it"
