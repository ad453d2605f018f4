"""The zygote: a preloaded, single-threaded process that forks the workers of one provider.

Owns: the workers' pids until they are reaped, and so the only safe place to signal them. Must
never: start a thread, create a ZeroMQ context, open a file it keeps, or outlive its provider.

It learns that the provider is gone by the end of the channel (or, should somebody else hold the
other end, by SIGTERM from the kernel), kills every worker's process group, and exits. Its own death
ends the workers through the kernel (PDEATHSIG); the provider then sees to their groups.

Run as a module it is the replacement of a zygote that died: it cannot be forked from a provider
that has threads by now. Its arguments name the descriptors of its channel and lifeline.
"""

from __future__ import annotations

import atexit
import gc
import os
import select
import signal
import socket
import sys
from types import FrameType
from typing import NoReturn

assert sys.platform != "win32", "needs fork; spawn.py serves Windows"

from guactors.runtimes import entry as worker_entry
from guactors.runtimes import process, tree
from guactors.runtimes.channel import (
    Channel,
    Fork,
    Forked,
    ForkFailed,
    Halt,
    Reaped,
    Signal,
    ToZygote,
)
from guactors.runtimes.command import FOREIGN, join_paths


def serve(channel_fd: int, lifeline: int, provider_pid: int, entry: str) -> NoReturn:
    """Be a zygote until the provider is gone. Never returns, never unwinds."""
    status = 1
    try:
        os.setsid()
        process.close_all_but((channel_fd, lifeline))
        process.adopt_orphans()
        if process.die_with_parent(signal.SIGTERM, provider_pid):
            Zygote(socket.socket(fileno=channel_fd), lifeline, entry).run()
        status = 0
    except BaseException:  # noqa: BLE001 - a fork that failed must not run its parent's code
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


class Zygote:
    """Its loop and its workers."""

    def __init__(self, end: socket.socket, lifeline: int, entry: str) -> None:
        self._channel: Channel[ToZygote] = Channel(end, ToZygote)
        self._lifeline = lifeline
        self._entry = entry
        self._pids: dict[str, int] = {}
        self._workers: dict[int, str] = {}
        self._ending = False
        self._pid = os.getpid()
        # The wake-up pipe makes a signal a readable descriptor: no race between look and sleep.
        self._wake, self._woken = os.pipe()

    def run(self) -> None:
        """Serve until the provider is gone, then leave nothing behind."""
        gc.disable()
        worker_entry.preload_entry(self._entry)
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Pages that hold objects the collector never visits stay shared with every worker.
        process.give_back_memory()
        gc.freeze()
        gc.enable()
        poll = select.poll()
        poll.register(self._channel.fileno(), select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._ending:
            ready = {fd for fd, _ in poll.poll()}
            try:
                if self._wake in ready:
                    self._drain_wake()
                    self._reap()
                if self._channel.fileno() in ready:
                    for message in self._channel.receive():
                        self._on_message(message)
            except (EOFError, BrokenPipeError):
                self._ending = True
        self._end_all()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._ending = self._ending or number == signal.SIGTERM

    def _drain_wake(self) -> None:
        try:
            while os.read(self._wake, 4096):
                continue
        except BlockingIOError:
            return

    def _on_message(self, message: ToZygote) -> None:
        match message:
            case Fork():
                self._fork(message)
            case Signal(worker=worker, number=number):
                if worker in self._pids:
                    process.kill_group(self._pids[worker], number)
            case Halt(worker=worker, stop=stop):
                if worker in self._pids:
                    tree.halt_tree(self._pids[worker], stop=stop)

    def _fork(self, message: Fork) -> None:
        worker = message.config.worker
        streams = (self._channel.take_descriptor(), self._channel.take_descriptor())
        try:
            pid = os.fork()
        except OSError as error:
            self._channel.send(ForkFailed(worker, f"fork: {error}"))
        else:
            if pid == 0:
                self._be_worker(message, *streams)
            self._pids[worker], self._workers[pid] = pid, worker
            self._channel.send(Forked(worker, pid))
        for stream in streams:
            os.close(stream)

    def _be_worker(self, message: Fork, stdout: int, stderr: int) -> NoReturn:
        try:
            os.setsid()
            worker_entry.default_signals()
            if not process.die_with_parent(signal.SIGKILL, self._pid):
                os._exit(1)
            atexit._clear()
            worker_entry.take_streams(os.open(os.devnull, os.O_RDONLY), stdout, stderr)
            process.close_all_but((self._lifeline,))
            worker_entry.run_and_exit(self._entry, message.config, self._lifeline)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        while (pid := process.next_dead_child(self._workers)) is not None:
            worker = self._workers.pop(pid, None)
            if worker is not None:
                # Before it is reaped its number, and so its group's, cannot be anybody else's.
                process.kill_group(pid)
            reaped = process.reap(pid)
            if worker is None or reaped is None:
                continue
            del self._pids[worker]
            self._channel.send(Reaped(worker, *reaped))

    def _end_all(self) -> None:
        for pid in self._workers:
            process.kill_group(pid)
        for pid in self._workers:
            process.reap(pid, block=True)
        process.end_children()


def main() -> NoReturn:
    """Entry of a replacement: ``channel_fd lifeline_fd provider_pid entry sys.path``, and FOREIGN
    where another interpreter runs it."""
    channel_fd, lifeline, provider_pid = (int(word) for word in sys.argv[1:4])
    given = sys.argv[5].split(os.pathsep)
    sys.path[:] = join_paths(sys.path, given) if sys.argv[6:] == [FOREIGN] else given
    process.preload()
    serve(channel_fd, lifeline, provider_pid, sys.argv[4])


if __name__ == "__main__":
    main()
