"""Worker processes forked from a zygote: the adapter used wherever fork is sound.

Owns: the pipes the workers print to, the zygote and its replacement, the facts of each death. Must
never: signal a pid itself while the zygote that reaps it lives, for only the zygote knows whether
the number still means that worker.

Make it before the process has a thread or a ZeroMQ context: the zygote is forked then and there.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from dataclasses import dataclass, field

assert sys.platform != "win32", "needs fork; spawn.py serves Windows"

from guactors.config import WorkerConfig
from guactors.errors import Death
from guactors.messages import Limits
from guactors.runtimes import process
from guactors.runtimes.channel import Fork, Forked, ForkFailed, FromZygote, Halt, Reaped, Signal
from guactors.runtimes.entry import WORKER_ENTRY
from guactors.runtimes.fences import find_fences
from guactors.runtimes.output import Lines, StreamSplitter
from guactors.runtimes.workers import Ended, OutputLines, ProcessEvent, Started
from guactors.runtimes.zygote_handle import ZygoteHandle

UNUSED_MOST = 60.0
"""Seconds that the zygote of another interpreter is kept without workers."""
_READ = 65536
_READS_AT_ONCE = 4
_READS_AT_END = 256


@dataclass
class _Worker:
    config: WorkerConfig
    streams: dict[int, StreamSplitter]
    """By descriptor; stdout first."""
    pid: int = 0
    killed: bool = False
    detail: str = ""
    """Why we killed it, where nobody asked for that."""
    numbers: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.numbers = dict(zip(self.streams, (1, 2), strict=True))


class PythonWorkers:
    """:class:`~guactors.runtimes.workers.WorkerProcesses` by fork. ``entry``: what a worker runs.

    There is a zygote for each interpreter that workers are started with. One that dies takes its
    workers with it; the next ``start`` brings up a new one."""

    def __init__(self, entry: str = WORKER_ENTRY) -> None:
        process.preload()
        process.adopt_orphans()
        self._entry = entry
        self._zygotes: dict[str, ZygoteHandle] = {"": ZygoteHandle(entry)}
        """By interpreter; our own's is named empty."""
        self._unused: dict[str, float] = {}
        """Since when no worker of another interpreter's zygote lives."""
        self._workers: dict[str, _Worker] = {}
        self._told: list[ProcessEvent] = []
        self._closed = False
        self._fences = find_fences()
        self._out_of_memory = process.OutOfMemoryWatch()
        # After the fork: a selector shared with the zygote would be one too many.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._zygotes[""].channel, selectors.EVENT_READ)

    # --- asked by the holder --------------------------------------------------------------------

    def start(self, config: WorkerConfig) -> None:
        """See the port."""
        try:
            zygote = self._living_zygote(config.python)
            (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        except OSError as error:
            self._start_failed(config, f"no process could be started: {error}")
            return
        now = time.monotonic()
        for fd in (out, err):
            os.set_blocking(fd, False)
        streams = {out: StreamSplitter(now), err: StreamSplitter(now)}
        self._workers[config.worker] = _Worker(config, streams)
        self._say(zygote, Fork(config), (out_end, err_end))

    def signal(self, worker: str, number: int) -> None:
        """See the port."""
        held = self._workers.get(worker)
        zygote = self._zygotes.get(held.config.python) if held is not None else None
        if zygote is not None:
            self._say(zygote, Signal(worker, number))

    def freeze(self, worker: str) -> None:
        """See the port."""
        self._halt(worker, stop=True)

    def thaw(self, worker: str) -> None:
        """See the port."""
        self._halt(worker, stop=False)

    def _halt(self, worker: str, *, stop: bool) -> None:
        held = self._workers.get(worker)
        zygote = self._zygotes.get(held.config.python) if held is not None else None
        if zygote is not None:
            self._say(zygote, Halt(worker, stop))

    def limit(self, worker: str, limits: Limits) -> None:
        """See the port."""
        held = self._workers.get(worker)
        if held is None or not held.pid:
            return
        try:
            self._fences.put(worker, held.pid, limits)
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
            self.signal(worker, signal.SIGKILL)

    def events(self) -> list[ProcessEvent]:
        """See the port."""
        if self._closed:
            return []
        ready = {key.fd: key.data for key, _ in self._selector.select(0)}
        for zygote in list(self._zygotes.values()):
            self._hear_zygote(zygote)
        now = time.monotonic()
        self._let_zygotes_go(now)
        for fd, worker in ready.items():
            if worker in self._workers:
                self._read(self._workers[worker], fd, _READS_AT_ONCE, now)
        for held in self._workers.values():
            for fd, splitter in held.streams.items():
                self._tell(held, fd, splitter.flush(now))
        told, self._told = self._told, []
        return told

    def filenos(self) -> tuple[int, ...]:
        """See the port. One descriptor stands for all: a selector is itself selectable here."""
        return (self._selector.fileno(),)

    def wake_after(self) -> float | None:
        """See the port."""
        if self._told:
            return 0.0
        now = time.monotonic()
        splitters = (one for held in self._workers.values() for one in held.streams.values())
        waits = [wait for one in splitters if (wait := one.wake_after(now)) is not None]
        waits += [max(0.0, since + UNUSED_MOST - now) for since in self._unused.values()]
        return min(waits, default=None)

    def close(self) -> None:
        """See the port."""
        if self._closed:
            return
        self._closed = True
        for zygote in self._zygotes.values():
            zygote.close()
        self._zygotes.clear()
        for worker in self._workers.values():
            self._bury_orphan(worker)
            for fd in worker.streams:
                os.close(fd)
        self._workers.clear()
        self._fences.close()
        self._selector.close()

    def zygote_pid(self) -> int | None:
        """The zygote's pid, for reports and tests; None until the next ``start`` makes one."""
        return self._zygotes[""].pid if "" in self._zygotes else None

    # --- the zygote -----------------------------------------------------------------------------

    def _living_zygote(self, python: str) -> ZygoteHandle:
        self._unused.pop(python, None)
        zygote = self._zygotes.get(python)
        if zygote is None:
            zygote = self._zygotes[python] = ZygoteHandle(self._entry, python)
            self._selector.register(zygote.channel, selectors.EVENT_READ)
        return zygote

    def _let_zygotes_go(self, now: float) -> None:
        for python, since in list(self._unused.items()):
            if now >= since + UNUSED_MOST:
                del self._unused[python]
                zygote = self._zygotes.pop(python)
                self._selector.unregister(zygote.channel)
                zygote.close()

    def _say(
        self, zygote: ZygoteHandle, message: Fork | Signal | Halt, descriptors: tuple[int, ...] = ()
    ) -> None:
        try:
            zygote.channel.send(message, descriptors)
        except OSError:
            self._zygote_gone(zygote)
            return
        self._watch(zygote)

    def _watch(self, zygote: ZygoteHandle) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if zygote.channel.pending() else 0)
        if self._selector.get_key(zygote.channel).events != wanted:
            self._selector.modify(zygote.channel, wanted)

    def _hear_zygote(self, zygote: ZygoteHandle) -> None:
        try:
            zygote.channel.flush()
            while messages := zygote.channel.receive():
                for message in messages:
                    self._on_message(message)
        except (EOFError, OSError):
            self._zygote_gone(zygote)
            return
        self._watch(zygote)

    def _on_message(self, message: FromZygote) -> None:
        worker = self._workers.get(message.worker)
        if worker is None:
            return
        match message:
            case Forked(pid=pid):
                worker.pid = pid
                for fd in worker.streams:
                    self._selector.register(fd, selectors.EVENT_READ, message.worker)
                self._told.append(Started(message.worker, pid))
            case ForkFailed(reason=reason):
                self._forget(worker)
                self._start_failed(worker.config, reason)
            case Reaped(status=status, rss_bytes=rss):
                self._ended(worker, status, rss)

    def _zygote_gone(self, zygote: ZygoteHandle) -> None:
        python = next((name for name, one in self._zygotes.items() if one is zygote), None)
        if python is None:
            return
        del self._zygotes[python]
        self._unused.pop(python, None)
        self._selector.unregister(zygote.channel)
        detail = f"the zygote it was forked from is gone: {zygote.gone()}"
        for worker in [one for one in self._workers.values() if one.config.python == python]:
            if not worker.pid:
                self._forget(worker)
                self._start_failed(worker.config, detail)
            else:
                status, rss = self._bury_orphan(worker) or (int(signal.SIGKILL), 0)
                self._ended(worker, status, rss, detail)

    def _bury_orphan(self, worker: _Worker) -> tuple[int, int] | None:
        """Kill what is left of a worker whose zygote is gone. It is ours now if it was not reaped
        before, and only then its number is still its own."""
        if not worker.pid or worker.pid not in process.children():
            return None
        process.kill_group(worker.pid)
        return process.reap(worker.pid, block=True)

    # --- the workers ----------------------------------------------------------------------------

    def _read(self, worker: _Worker, fd: int, most: int, now: float) -> None:
        for _ in range(most):
            try:
                data = os.read(fd, _READ)
            except BlockingIOError:
                return
            if not data:
                if fd in self._selector.get_map():
                    self._selector.unregister(fd)
                return
            self._tell(worker, fd, worker.streams[fd].feed(data, now))

    def _tell(self, worker: _Worker, fd: int, found: list[Lines]) -> None:
        name, pid, stream = worker.config.worker, worker.pid, worker.numbers[fd]
        self._told += [
            OutputLines(name, pid, stream, lines.name, lines.lines, lines.dropped)
            for lines in found
        ]

    def _ended(self, worker: _Worker, status: int, rss: int, detail: str = "") -> None:
        now = time.monotonic()
        for fd, splitter in worker.streams.items():
            self._read(worker, fd, _READS_AT_END, now)
            self._tell(worker, fd, splitter.finish())
        *_, stderr = worker.streams.values()
        self._forget(worker)
        code, number = process.split_status(status)
        broken = self._fences.broken_by(worker.config.worker) if number else ""
        self._fences.remove(worker.config.worker)
        cause = "memory_limit" if broken else self._cause(worker, number)
        death = Death(
            cause, broken or detail or worker.detail, code, number, stderr.tail(), rss,
            worker.config.worker, worker.config.provider_name,
        )  # fmt: skip
        self._told.append(Ended(worker.config.worker, death))

    def _cause(self, worker: _Worker, number: int | None) -> str:
        if number is None:
            return "exited"
        if number == signal.SIGKILL and worker.killed:
            return "killed"
        if number == signal.SIGKILL and self._out_of_memory.rose():
            return "out_of_memory"
        return "signal"

    def _start_failed(self, config: WorkerConfig, reason: str) -> None:
        death = Death("start_failed", reason, worker=config.worker, provider=config.provider_name)
        self._told.append(Ended(config.worker, death))

    def _forget(self, worker: _Worker) -> None:
        del self._workers[worker.config.worker]
        python = worker.config.python
        last = all(one.config.python != python for one in self._workers.values())
        if last and python and python in self._zygotes:
            self._unused[python] = time.monotonic()
        for fd in worker.streams:
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
            os.close(fd)
