"""How others schedule, in the laboratory only: first come first served, preemption that kills, and
preemption that suspends.

Owns: these policies. Must never: be taken for the systems they are named after: they have the
policy and the *configured* times of those, none of their delays, so they do better here than there.

``FIFO``: no priorities; what does not fit lets those behind it pass. ``KILL_5`` and ``KILL_30``: as
Nomad (kill_timeout 5 s) and Kubernetes (30 s) do, victims of a priority at least 10 lower are
stopped, keep their room for the grace, lose what they have done and queue again. ``SUSPEND``: as
Slurm does with ``PreemptMode=SUSPEND,GANG``, victims are stopped 2 s after they were chosen, give
back their CPUs and nothing else, and go on in place when their CPUs are free; small jobs backfill.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from benchmarks.lab.clock import Clock
from benchmarks.lab.cluster import WANTS, Amounts, Cluster
from benchmarks.lab.figures import Figures
from benchmarks.lab.grid import Run
from benchmarks.lab.workload import SHAPES, Job, Machine

GAP = 10
TRIED = 24
"""Machines that are looked at for victims."""
PAUSE = 1.0
"""Seconds until victims are looked for again after there were none."""


@dataclass(frozen=True)
class Policy:
    """``preempts``: none, kill or suspend. ``grace``: seconds until a victim's room is free."""

    name: str
    priorities: bool = True
    preempts: str = "none"
    grace: float = 0.0


FIFO = Policy("FIFO, no priorities", priorities=False)
KILL_5 = Policy("kill, 5 s (as Nomad)", preempts="kill", grace=5.0)
KILL_30 = Policy("kill, 30 s (as Kubernetes)", preempts="kill", grace=30.0)
SUSPEND = Policy("suspend, 2 s (as Slurm)", preempts="suspend", grace=2.0)
POLICIES = (FIFO, KILL_5, KILL_30, SUSPEND)


class Placed(Run):
    """A run on a machine."""

    __slots__ = ("leaving", "node")

    def __init__(self, job: Job, node: int) -> None:
        super().__init__(job)
        self.node = node
        self.leaving = False


class Baseline:
    """A cluster under one policy; offers what ``Grid`` does."""

    def __init__(self, machines: list[Machine], policy: Policy, random: Random) -> None:
        self.clock = Clock()
        self.policy = policy
        self.figures = Figures(policy.name, sum(machine.cpus for machine in machines))
        self.on_end: Callable[[Job], None] = lambda job: None
        self._random = random
        self._cluster = Cluster(machines)
        self._queues: dict[tuple[int, int], deque[Job]] = {}
        self._on: list[dict[Placed, None]] = [{} for _ in machines]
        self._paused: dict[int, dict[Placed, None]] = {}
        self._running: dict[int, list[Placed]] = {}
        """By priority; those that ended are dropped when they are drawn."""
        self._quiet: dict[tuple[int, int], float] = {}

    def submit(self, job: Job) -> None:
        """A user wants it done."""
        self.figures.submit(job.number, job.priority, self.clock.now)
        self._queue(job).append(job)
        self._serve()

    def check(self) -> None:
        """What is held is what runs, and no machine has given more than it has."""
        runs = [run for there in self._on for run in there if not run.paused]
        assert sum(run.job.cpus for run in runs) == self.figures.held
        for node, free in enumerate(self._cluster.free):
            assert all(
                -1e-6 <= a <= b for a, b in zip(free, self._cluster.total[node], strict=True)
            )

    def _queue(self, job: Job) -> deque[Job]:
        level = job.priority if self.policy.priorities else 0
        return self._queues.setdefault((level, job.shape), deque())

    def _serve(self) -> None:
        began = time.process_time()
        waiting = [(-key[0], queue[0].number, key) for key, queue in self._queues.items() if queue]
        for _, _, key in sorted(waiting):
            queue = self._queues[key]
            while queue and (node := self._cluster.find(key[1])) is not None:
                self._start(queue.popleft(), node)
            if queue and self.policy.preempts != "none" and key[0] >= GAP:
                self._preempt(key, queue)
        self.figures.thinking += time.process_time() - began

    def _start(self, job: Job, node: int) -> None:
        now = self.clock.now
        run = Placed(job, node)
        self._cluster.take(node, WANTS[job.shape])
        self._on[node][run] = None
        self._running.setdefault(job.priority, []).append(run)
        self.figures.decisions += 1
        self.figures.begun(job.number, job.priority, now)
        self.figures.hold(job.cpus, now)
        self.clock.at(run.go(now), self._ended, run, run.turn)

    def _ended(self, run: Placed, turn: int) -> None:
        if run.turn != turn or run not in self._on[run.node]:
            return
        job = run.job
        self.figures.done += job.cpus * job.seconds
        self.figures.finished += 1
        self.figures.hold(-job.cpus, self.clock.now)
        self._free(run, WANTS[job.shape])
        self.on_end(job)
        self._serve()

    def _free(self, run: Placed, amounts: Amounts) -> None:
        del self._on[run.node][run]
        self._cluster.take(run.node, amounts, -1)
        self._resume(run.node)

    # --- preemption -----------------------------------------------------------------------------

    def _preempt(self, key: tuple[int, int], queue: deque[Job]) -> None:
        now = self.clock.now
        if self._quiet.get(key, 0.0) > now:
            return
        for _ in range(len(queue)):
            victims = self._victims(*key)
            if victims is None:
                self._quiet[key] = now + PAUSE
                return
            job = queue.popleft()
            for victim in victims:
                victim.leaving = True
            self.figures.preemptions += len(victims)
            self.figures.decisions += len(victims)
            self.clock.at(now + self.policy.grace, self._gone, victims, job)

    def _victims(self, priority: int, shape: int) -> list[Placed] | None:
        """The runs on one machine that have to go, the lowest and youngest first."""
        want = WANTS[shape]
        for level in sorted(self._running):
            runs = self._running[level]
            for _ in range(TRIED if level <= priority - GAP else 0):
                while runs and (runs[-1] not in self._on[runs[-1].node] or runs[-1].leaving):
                    runs.pop()
                if not runs:
                    break
                node = self._random.choice(runs).node
                if not self._cluster.could(node, shape):
                    continue
                free = list(self._cluster.free[node])
                chosen: list[Placed] = []
                there = [r for r in self._on[node] if not (r.leaving or r.paused)]
                for run in sorted(there, key=lambda r: (r.job.priority, -r.begun)):
                    if run.job.priority > priority - GAP or all(
                        a >= b for a, b in zip(free, want, strict=True)
                    ):
                        break
                    chosen.append(run)
                    for at, amount in enumerate(self._given(run)):
                        free[at] += amount
                if chosen and all(a >= b for a, b in zip(free, want, strict=True)):
                    return chosen
        return None

    def _given(self, run: Placed) -> Amounts:
        """What it gives back as a victim."""
        amounts = WANTS[run.job.shape]
        return amounts if self.policy.preempts == "kill" else (amounts[0], 0.0, 0.0)

    def _gone(self, victims: list[Placed], job: Job) -> None:
        """The grace is over: the winner has its place, if that is still enough."""
        now = self.clock.now
        for run in victims:
            run.leaving = False
            if run not in self._on[run.node]:
                continue
            if self.policy.preempts == "kill":
                self.figures.lost += run.job.cpus * (now - run.begun)
                run.turn += 1
                del self._on[run.node][run]
                self._queue(run.job).append(run.job)
            else:
                run.pause(now)
                self._paused.setdefault(run.node, {})[run] = None
            self.figures.hold(-run.job.cpus, now)
            self._cluster.take(run.node, self._given(run), -1)
        node = victims[0].node
        if self._cluster.fits(node, job.shape):
            self._start(job, node)
        else:
            self._queue(job).appendleft(job)
            self._serve()

    def _resume(self, node: int) -> None:
        """Those that were suspended longest go on first, where nobody more important waits for the
        same CPUs (he preempts again)."""
        for run in list(self._paused.get(node, ())):
            cpus = SHAPES[run.job.shape][0]
            if self._cluster.free[node][0] >= cpus:
                del self._paused[node][run]
                self._cluster.take(node, (cpus, 0.0, 0.0))
                self.figures.hold(run.job.cpus, self.clock.now)
                self.clock.at(run.go(self.clock.now), self._ended, run, run.turn)
