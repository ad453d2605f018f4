"""Worker processes started as fresh Pythons: the adapter for platforms without a sound fork.

Owns: one subprocess a worker and three threads beside it (stdout, stderr, end), which only pass
bytes and facts on; all state belongs to the thread that asks. Must never: let a thread outlive its
process, or a reader run ahead of who reads (its queue is bounded).

Each worker watches over its own group, with a thread on its lifeline. That is weaker than a zygote
in one case: a worker and the provider killed in the same instant leave the worker's children.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import IO

import msgspec

from guactors.config import WorkerConfig
from guactors.errors import Death
from guactors.messages import Limits
from guactors.runtimes import tree
from guactors.runtimes.command import FOREIGN, environment, foreign_module, python_module
from guactors.runtimes.entry import LENGTH_BYTES, WORKER_ENTRY, Birth
from guactors.runtimes.fences import find_fences
from guactors.runtimes.output import Lines, StreamSplitter
from guactors.runtimes.workers import Ended, OutputLines, ProcessEvent, Started

_READ = 65536
_CHUNKS_AHEAD = 64
_DRAIN_WITHIN = 0.5
_NEVER_REAPED = 0x7FFF


@dataclass(frozen=True)
class _Chunk:
    worker: str
    stream: int
    data: bytes


@dataclass(frozen=True)
class _Gone:
    worker: str
    status: int
    """As Popen.returncode: negative for a signal."""
    rss_bytes: int


@dataclass
class _Worker:
    config: WorkerConfig
    popen: subprocess.Popen[bytes]
    streams: dict[int, StreamSplitter]
    threads: list[threading.Thread]
    lock: threading.Lock
    """Held to signal and to reap: a reaped number may be somebody else's."""
    reaped: bool = False
    killed: bool = False
    detail: str = ""
    """Why we killed it, where nobody asked for that."""


class SpawnedWorkers:
    """:class:`~guactors.runtimes.workers.WorkerProcesses` by ``python -m``. ``entry``: what is
    run."""

    def __init__(self, entry: str = WORKER_ENTRY) -> None:
        self._entry = entry
        self._workers: dict[str, _Worker] = {}
        self._told: list[ProcessEvent] = []
        self._news: queue.Queue[_Chunk | _Gone] = queue.Queue()
        self._room = threading.Semaphore(_CHUNKS_AHEAD)
        self._closing = False
        self._fences = find_fences()
        self._bell, self._ring = socket.socketpair()
        for end in (self._bell, self._ring):
            end.setblocking(False)

    # --- asked by the holder --------------------------------------------------------------------

    def start(self, config: WorkerConfig) -> None:
        """See the port."""
        try:
            popen = subprocess.Popen(
                _command(config.python),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
                start_new_session=True,
            )
        except OSError as error:
            reason = f"no process could be started: {error}"
            death = Death(
                "start_failed", reason, worker=config.worker, provider=config.provider_name
            )
            self._told.append(Ended(config.worker, death))
            self._poke()
            return
        now = time.monotonic()
        splitters = {1: StreamSplitter(now), 2: StreamSplitter(now)}
        worker = _Worker(config, popen, splitters, [], threading.Lock())
        self._workers[config.worker] = worker
        self._told.append(Started(config.worker, popen.pid))
        self._poke()
        self._tell_birth(worker)
        self._start_threads(worker)

    def signal(self, worker: str, number: int) -> None:
        """See the port."""
        held = self._workers.get(worker)
        if held is None:
            return
        with held.lock:
            if not held.reaped:
                tree.signal_tree(held.popen.pid, number)

    def freeze(self, worker: str) -> None:
        """See the port."""
        self._halt(worker, stop=True)

    def thaw(self, worker: str) -> None:
        """See the port."""
        self._halt(worker, stop=False)

    def _halt(self, worker: str, *, stop: bool) -> None:
        held = self._workers.get(worker)
        if held is None:
            return
        with held.lock:
            if not held.reaped:
                tree.halt_tree(held.popen.pid, stop=stop)

    def limit(self, worker: str, limits: Limits) -> None:
        """See the port."""
        held = self._workers.get(worker)
        if held is None:
            return
        try:
            with held.lock:
                if not held.reaped:
                    self._fences.put(worker, held.popen.pid, limits)
        except OSError as error:
            held.detail = f"it could not be held to its limits: {error}"
            self.kill(worker)

    @property
    def fences(self) -> str:
        """See the port."""
        return self._fences.guarantee

    def kill(self, worker: str) -> None:
        """See the port."""
        if worker in self._workers:
            self._workers[worker].killed = True
            self.signal(worker, getattr(signal, "SIGKILL", signal.SIGTERM))

    def events(self) -> list[ProcessEvent]:
        """See the port."""
        if self._closing:
            return []
        try:
            while self._bell.recv(4096):
                continue
        except BlockingIOError:
            pass
        now = time.monotonic()
        while not self._news.empty():
            self._on_news(self._news.get(), now)
        for worker in self._workers.values():
            for stream, splitter in worker.streams.items():
                self._tell(worker, stream, splitter.flush(now))
        told, self._told = self._told, []
        return told

    def filenos(self) -> tuple[int, ...]:
        """See the port."""
        return (self._bell.fileno(),)

    def wake_after(self) -> float | None:
        """See the port."""
        now = time.monotonic()
        splitters = (one for held in self._workers.values() for one in held.streams.values())
        waits = [wait for one in splitters if (wait := one.wake_after(now)) is not None]
        return min(waits, default=None)

    def close(self) -> None:
        """See the port."""
        if self._closing:
            return
        self._closing = True
        for name in list(self._workers):
            self.kill(name)
        for _ in range(_CHUNKS_AHEAD):
            self._room.release()
        for worker in self._workers.values():
            for thread in worker.threads:
                thread.join(2 * _DRAIN_WITHIN)
        self._workers.clear()
        self._fences.close()
        self._bell.close()
        self._ring.close()

    # --- the threads ----------------------------------------------------------------------------

    def _tell_birth(self, worker: _Worker) -> None:
        birth = msgspec.msgpack.encode(Birth(self._entry, worker.config, sys.path))
        stdin = worker.popen.stdin
        assert stdin is not None
        try:
            stdin.write(len(birth).to_bytes(LENGTH_BYTES, "big") + birth)
            stdin.flush()
        except BrokenPipeError:
            # It ended before it listened; its death report says why.
            return

    def _start_threads(self, worker: _Worker) -> None:
        name = worker.config.worker
        stdout, stderr = worker.popen.stdout, worker.popen.stderr
        assert stdout is not None
        assert stderr is not None
        readers = [
            threading.Thread(target=self._read, args=(name, stream, pipe), daemon=True)
            for stream, pipe in ((1, stdout), (2, stderr))
        ]
        waiter = threading.Thread(target=self._wait, args=(worker, readers), daemon=True)
        worker.threads += [*readers, waiter]
        for thread in worker.threads:
            thread.start()

    def _read(self, worker: str, stream: int, pipe: IO[bytes]) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), _READ):
                if not self._closing:
                    self._room.acquire()
                    self._news.put(_Chunk(worker, stream, data))
                    self._poke()

    def _wait(self, worker: _Worker, readers: list[threading.Thread]) -> None:
        status, rss = _await_end(worker)
        for reader in readers:
            # Somebody who left the group may hold the pipe open for ever.
            reader.join(_DRAIN_WITHIN)
        if worker.popen.stdin is not None:
            worker.popen.stdin.close()
        self._news.put(_Gone(worker.config.worker, status, rss))
        self._poke()

    def _poke(self) -> None:
        try:
            self._ring.send(b"!")
        except BlockingIOError:
            return
        except OSError:
            if not self._closing:
                raise

    # --- what they said -------------------------------------------------------------------------

    def _on_news(self, news: _Chunk | _Gone, now: float) -> None:
        worker = self._workers.get(news.worker)
        match news:
            case _Chunk(stream=stream, data=data):
                self._room.release()
                if worker is not None:
                    self._tell(worker, stream, worker.streams[stream].feed(data, now))
            case _Gone(status=status, rss_bytes=rss):
                if worker is not None:
                    self._ended(worker, status, rss)

    def _tell(self, worker: _Worker, stream: int, found: list[Lines]) -> None:
        name, pid = worker.config.worker, worker.popen.pid
        self._told += [
            OutputLines(name, pid, stream, lines.name, lines.lines, lines.dropped)
            for lines in found
        ]

    def _ended(self, worker: _Worker, status: int, rss: int) -> None:
        del self._workers[worker.config.worker]
        for stream, splitter in worker.streams.items():
            self._tell(worker, stream, splitter.finish())
        number = -status if status < 0 else None
        if worker.killed and (number == 9 or tree.WINDOWS):
            cause = "killed"
        else:
            cause = "exited" if number is None else "signal"
        broken = self._fences.broken_by(worker.config.worker) if number else ""
        self._fences.remove(worker.config.worker)
        death = Death(
            "memory_limit" if broken else cause, broken or worker.detail,
            None if number else status, number, worker.streams[2].tail(), rss,
            worker.config.worker, worker.config.provider_name,
        )  # fmt: skip
        self._told.append(Ended(worker.config.worker, death))


def _command(python: str) -> list[str]:
    module = "guactors.runtimes.entry"
    return foreign_module(python, module, FOREIGN) if python else python_module(module)


def _await_end(worker: _Worker) -> tuple[int, int]:
    """Wait for the worker's end, end its group, reap it: its status and peak resident bytes."""
    popen = worker.popen
    if sys.platform == "win32":
        return popen.wait(), 0
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
    else:
        _sleep_until_zombie(popen.pid)
    from guactors.runtimes.process import kill_group, reap  # type: ignore[attr-defined,unused-ignore]

    with worker.lock:
        kill_group(popen.pid)
        ended = reap(popen.pid, block=True)
        worker.reaped = True
    status, rss = ended or (_NEVER_REAPED, 0)
    popen.returncode = os.waitstatus_to_exitcode(status)
    return popen.returncode, rss


def _sleep_until_zombie(pid: int) -> None:
    import psutil

    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.02)
