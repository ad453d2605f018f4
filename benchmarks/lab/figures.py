"""What a run in the laboratory comes to.

Owns: the sums that are kept while a run goes on, and the figures made of them. Must never: know how
anything was scheduled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


def quantile(samples: Sequence[float], share: float) -> float:
    """The value that ``share`` of the samples do not exceed; nan of none."""
    if not samples:
        return math.nan
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


@dataclass(slots=True)
class Figures:
    """Of one run. ``capacity`` in CPUs; waits in seconds from the submission to the first start."""

    name: str
    capacity: float
    waits: dict[int, list[float]] = field(default_factory=dict)
    waiting: dict[int, dict[int, float]] = field(default_factory=dict)
    """By priority, since when a job that has not begun waits."""
    held: float = 0.0
    """CPUs that are held now."""
    preemptions: int = 0
    lost: float = 0.0
    """CPU-seconds of work that was done and thrown away."""
    passed: float = 0.0
    """Seconds of the grid's own time."""
    done: float = 0.0
    """CPU-seconds of work of the jobs that ended."""
    submitted: int = 0
    finished: int = 0
    decisions: int = 0
    """Placements and preemptions."""
    thinking: float = 0.0
    """Seconds of CPU that the scheduler took for them."""
    ticking: float = 0.0
    """Of these, for ticks: looking for leases to ask back goes on while anybody waits, at most so
    often a second of the grid's time, however few decisions there are in it."""
    collecting: float = 0.0
    """Of these, for Python's collector of garbage."""
    memory: float = 0.0
    """Bytes of peak resident memory of the process, less those before the run."""
    used: list[tuple[float, float]] = field(default_factory=list)
    """(time, share of the CPUs held), for the plot."""
    _integral: float = 0.0
    _since: float = 0.0
    _began: float = 0.0

    def begin(self, now: float) -> None:
        """Count the use from here on."""
        self._integral, self._since, self._began = 0.0, now, now

    def hold(self, cpus: float, now: float) -> None:
        """So many more CPUs (less, when negative) are held from now on."""
        self._integral += self.held * (now - self._since)
        self._since = now
        self.held += cpus
        if not self.used or now - self.used[-1][0] >= 1.0:
            self.used.append((now, self.held / self.capacity))

    def submit(self, job: int, priority: int, now: float) -> None:
        """It waits from now on."""
        self.submitted += 1
        self.waiting.setdefault(priority, {})[job] = now

    def begun(self, job: int, priority: int, now: float) -> None:
        """It runs; only its first start counts."""
        since = self.waiting.get(priority, {}).pop(job, None)
        if since is not None:
            self.waits.setdefault(priority, []).append(now - since)

    def utilisation(self, now: float) -> float:
        """Share of the CPUs that were held since the beginning."""
        passed = now - self._began
        total = self._integral + self.held * (now - self._since)
        return total / (self.capacity * passed) if passed else 0.0

    def wait(self, priority: int, share: float, now: float) -> float:
        """That quantile; who still waits has waited until now, or those never served would count
        as the best served."""
        begun = self.waits.get(priority, [])
        return quantile(
            begun + [now - since for since in self.waiting.get(priority, {}).values()], share
        )

    def rate(self) -> float:
        """Decisions a second of CPU."""
        return self.decisions / self.thinking if self.thinking else math.nan
