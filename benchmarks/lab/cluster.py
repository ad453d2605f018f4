"""The machines of the baselines: what is free on each, and the first on which a shape fits.

Owns: the free amounts. Must never: know priorities, or who runs where.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from benchmarks.lab.workload import SHAPES, Machine, resources_of, zone_of

Amounts = tuple[float, float, float]
"""CPUs, bytes of memory, GPUs."""


def _amounts(resources: dict[str, float]) -> Amounts:
    return resources["CPU"], resources["memory"], resources.get("GPU", 0.0)


WANTS = tuple(_amounts(resources_of(shape)) for shape in range(len(SHAPES)))


class Cluster:
    """First fit, by a heap per shape of machines that may have room; those that turn out not to are
    dropped until something comes free on them."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.total = [_amounts(machine.resources) for machine in machines]
        self.free = [list(amounts) for amounts in self.total]
        self._zones = [machine.zone for machine in machines]
        self._heaps = [
            [number for number in range(len(machines)) if self.could(number, shape)]
            for shape in range(len(SHAPES))
        ]
        self._listed = [set(heap) for heap in self._heaps]

    def could(self, number: int, shape: int) -> bool:
        """Whether the shape fits the empty machine."""
        zone = zone_of(shape)
        there = all(a >= b for a, b in zip(self.total[number], WANTS[shape], strict=True))
        return there and zone in ("", self._zones[number])

    def fits(self, number: int, shape: int) -> bool:
        """Whether it fits now."""
        free, want = self.free[number], WANTS[shape]
        return free[0] >= want[0] and free[1] >= want[1] and free[2] >= want[2]

    def find(self, shape: int) -> int | None:
        """The first machine with room."""
        heap, listed = self._heaps[shape], self._listed[shape]
        while heap:
            if self.fits(heap[0], shape):
                return heap[0]
            listed.discard(heapq.heappop(heap))
        return None

    def take(self, number: int, amounts: Amounts, sign: int = 1) -> None:
        """So much is taken there; given back with ``sign`` -1."""
        free = self.free[number]
        for at in range(3):
            free[at] -= sign * amounts[at]
        if sign < 0:
            for shape in range(len(SHAPES)):
                listed = self._listed[shape]
                if number not in listed and self.fits(number, shape) and self.could(number, shape):
                    listed.add(number)
                    heapq.heappush(self._heaps[shape], number)
