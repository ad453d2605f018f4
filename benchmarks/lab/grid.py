"""The scheduler of guactors in a simulated grid: providers that start what they are told, callers
that work and return.

Owns: what simulated providers and callers answer. Must never: look into the scheduler; it is driven
through its events and messages alone, as the hub does.

The time that the scheduler takes is measured around each of its calls (``handle``, ``on_tick``,
``next_wake``), in seconds of CPU of this process, so that the simulation does not count.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any, ClassVar

from benchmarks.lab.clock import Clock
from benchmarks.lab.figures import Figures
from benchmarks.lab.workload import Job, Machine, resources_of, zone_of
from guactors import messages as m
from guactors.config import Timing
from guactors.scheduling import events as e
from guactors.scheduling.state import SchedulerState

START = 0.01
"""Seconds until a worker is bound."""
PYTHON = "3.11"


class Run:
    """A job that holds a lease: its work goes on while it is not paused."""

    __slots__ = ("begun", "job", "left", "paused", "turn")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.left = job.seconds
        self.begun = math.inf
        """Since when it works; inf while its lease starts."""
        self.turn = 0
        """Counts its pauses: an end that was due in an earlier turn is none."""
        self.paused = False

    def go(self, now: float) -> float:
        """It works from now on; when it ends."""
        self.begun, self.paused = now, False
        return now + self.left

    def pause(self, now: float) -> None:
        """It stops, and keeps what it has done."""
        self.left -= max(0.0, now - self.begun)
        self.begun, self.paused = math.inf, True
        self.turn += 1


class Grid:
    """``providers`` join first, then whatever is submitted runs. ``on_end`` is told each job that
    ended. A caller has one demand for all its jobs of a kind, as real callers have; with ``apart``
    one for each, which is harder for the scheduler. Work is suspended for what is more urgent,
    which callers without a grant, those of the hub's own machine, may always ask for; with
    ``yields`` false its owners say ``never``."""

    def __init__(
        self,
        providers: list[Machine],
        users: int,
        name: str = "guactors",
        *,
        apart: bool = False,
        yields: bool = True,
    ) -> None:
        self.clock = Clock()
        numbers = count(1)
        self.state = SchedulerState(Timing(), lambda kind: f"{kind[0]}-{next(numbers)}", -1e6)
        self.figures = Figures(name, sum(machine.cpus for machine in providers))
        self.runs: dict[str, Run] = {}
        """By lease."""
        self.on_end: Callable[[Job], None] = lambda job: None
        self.pending: dict[tuple[str, str], deque[Job]] = {}
        """Those that have no lease yet, by caller and key of their demand."""
        self._counts: dict[tuple[str, str], int] = {}
        """Jobs that wait or run, by caller and key."""
        self._apart = apart
        self._ways = [] if yields else ["never"]
        self._thinks = False
        """The scheduler works, not the simulation."""
        self._collecting = 0.0
        """When the collector of garbage began."""
        self._wake = math.inf
        self._users = users
        self._shapes: dict[tuple[int, int], m.Shape] = {}
        for user in range(users):
            self.event(e.CallerJoined(f"c-{user}", f"s-{user}", PYTHON, root=True))
        for number, machine in enumerate(providers):
            self.join(f"p-{number}", machine)

    def check(self) -> None:
        """What is held is what runs."""
        held = sum(run.job.cpus for run in self.runs.values() if not run.paused)
        assert held == self.figures.held, f"{held} CPUs run, {self.figures.held} are held"

    def join(self, peer: str, machine: Machine) -> None:
        """A provider's Hello and Offer."""
        self.event(e.ProviderJoined(peer, f"box-{peer}", PYTHON))
        labels = {"zone": machine.zone}
        self.say(peer, m.Offer(machine.resources, labels, [], [], m.MachineInfo()))

    def submit(self, job: Job) -> None:
        """A user wants it done."""
        self.pending.setdefault(self._key(job), deque()).append(job)
        self.figures.submit(job.number, job.priority, self.clock.now)
        self._demand(job, 1)

    def _key(self, job: Job) -> tuple[str, str]:
        kind = f"d-{job.number}" if self._apart else f"{job.shape}-{job.priority}"
        return f"c-{job.user}", kind

    def _demand(self, job: Job, change: int) -> None:
        peer, key = self._key(job)
        count = self._counts.get((peer, key), 0) + change
        self._counts[peer, key] = count
        if not count:
            del self._counts[peer, key]
        self.say(peer, m.SetDemand(key, self._shape(job), count))

    def _shape(self, job: Job) -> m.Shape:
        kind = job.shape, job.priority
        shape = self._shapes.get(kind)
        if shape is None:
            zone = zone_of(job.shape)
            labels = {"zone": zone} if zone else {}
            shape = self._shapes[kind] = m.Shape(
                resources_of(job.shape), job.priority, labels, preemption=self._ways
            )
        return shape

    # --- the scheduler --------------------------------------------------------------------------

    def say(self, peer: str, message: m.Message) -> None:
        """A peer says something to the hub."""
        self.event(e.FromPeer(peer, message))

    def event(self, event: e.Event) -> None:
        """Give it to the scheduler, and its effects to whom they are for."""
        now = self.clock.now
        self._thinks = True
        began = time.process_time()
        effects = self.state.handle(event, now)
        wake = self.state.next_wake(now)
        self.figures.thinking += time.process_time() - began
        self._thinks = False
        self._do(effects, wake)

    def collects(self, phase: str, _info: dict[str, int]) -> None:
        """For ``gc.callbacks``: the collector begins or ends. What it takes counts as the
        scheduler's where that had it begin, though it goes through the simulation's things too."""
        if phase == "start":
            self._collecting = time.process_time()
        elif self._thinks:
            self.figures.collecting += time.process_time() - self._collecting

    def _tick(self) -> None:
        now = self.clock.now
        if self._wake > now:
            return
        self._wake = math.inf
        self._thinks = True
        began = time.process_time()
        effects = self.state.on_tick(now)
        wake = self.state.next_wake(now)
        passed = time.process_time() - began
        self._thinks = False
        self.figures.thinking += passed
        self.figures.ticking += passed
        self._do(effects, wake)

    def _do(self, effects: list[e.Effect], wake: float | None) -> None:
        if wake is not None and wake < self._wake:
            self._wake = max(wake, self.clock.now)
            self.clock.at(self._wake, self._tick)
        for effect in effects:
            if isinstance(effect, e.ToPeer):
                act = self._ON.get(type(effect.message))
                if act is not None:
                    act(self, effect.peer, effect.message)

    # --- providers ------------------------------------------------------------------------------

    def _start(self, peer: str, message: m.StartLease) -> None:
        self.figures.decisions += 1 + len(message.displaces)
        for word in message.displaces:
            self._pause(peer, word)
        self.clock.at(self.clock.now + START, self._started, peer, message.lease)

    def _pause(self, peer: str, word: m.Displaced) -> None:
        run = self.runs.get(word.key)
        if run is not None and not run.paused:
            self.figures.preemptions += 1
            self.figures.hold(-run.job.cpus, self.clock.now)
            run.pause(self.clock.now)
        self.say(peer, m.Suspended(word.key, word.number))

    def _resume(self, peer: str, message: m.Resume) -> None:
        run = self.runs.get(message.key)
        if run is not None and run.paused:
            self.figures.hold(run.job.cpus, self.clock.now)
            self.clock.at(run.go(self.clock.now), self._ended, message.key, run.turn)
        self.say(peer, m.Resumed(message.key, message.number))

    def _started(self, peer: str, lease: str) -> None:
        self.say(peer, m.LeaseStarted(lease, f"w-{lease}", []))

    # --- callers --------------------------------------------------------------------------------

    def _granted(self, peer: str, message: m.LeaseGranted) -> None:
        line = self.pending[peer, message.key]
        job = line.popleft()
        if not line:
            del self.pending[peer, message.key]
        run = self.runs[message.lease] = Run(job)
        now = self.clock.now
        self.figures.begun(job.number, job.priority, now)
        self.figures.hold(job.cpus, now)
        self.clock.at(run.go(now), self._ended, message.lease, run.turn)

    def _ended(self, lease: str, turn: int) -> None:
        run = self.runs.get(lease)
        if run is None or run.turn != turn:
            return
        del self.runs[lease]
        job = run.job
        self.figures.hold(-job.cpus, self.clock.now)
        self.figures.done += job.cpus * job.seconds
        self.figures.finished += 1
        self._demand(job, -1)
        self.say(f"c-{job.user}", m.ReturnLease(lease))
        self.on_end(job)

    _ON: ClassVar[dict[type[m.Message], Callable[[Grid, str, Any], None]]] = {
        m.StartLease: _start,
        m.LeaseGranted: _granted,
        m.Resume: _resume,
    }
    """What peers do about a message. A recalled lease needs no line: its caller finishes the one
    job that it has, and returns it then."""
