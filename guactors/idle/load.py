"""How many processors others than the grid keep busy.

Owns: the difference of two measurements: the machine's time, less that of our own processes, with
that of those that they have outlived. Must never: count a container's processes as ours, for they
belong to its daemon.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from guactors.idle.base import Reading


class Spent(NamedTuple):
    """Seconds: of a clock, of processors at work for anybody, and for us."""

    at: float
    all: float
    own: float


def measure() -> Spent:
    """Of this machine, now."""
    import psutil

    times = psutil.cpu_times()
    names = ("user", "nice", "system", "irq", "softirq", "interrupt", "dpc")
    busy = sum(getattr(times, name, 0.0) for name in names)
    me = psutil.Process()
    own = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            spent = process.cpu_times()
        except psutil.Error:
            continue  # it has ended, and its parent counts its time
        own += spent.user + spent.system + spent.children_user + spent.children_system
    return Spent(time.monotonic(), busy, own)


class Load:
    """``measured`` looks at the machine."""

    def __init__(self, measured: Callable[[], Spent] = measure) -> None:
        self._measured = measured
        self._before: Spent | None = None

    def read(self) -> Reading:
        """Since the reading before."""
        try:
            before, now = self._before, self._measured()
        except OSError as error:
            return Reading(fault=str(error))
        self._before = now
        if before is None or now.at <= before.at:
            return Reading(fault="it has only begun to measure")
        own = max(0.0, now.own - before.own)
        load = max(0.0, now.all - before.all - own) / (now.at - before.at)
        return Reading(load=load, text=f"others keep {load:.1f} processors busy")
