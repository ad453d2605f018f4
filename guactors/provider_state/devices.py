"""Which device belongs to whom on this machine.

Owns: the assignment of devices (``accelerators``) to orders, and from their begin on to workers.
Whole ones are exclusive; fractions share one, the fullest that has room. Must never: give a device
away before the process that had it is gone: its memory is on it.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from guactors.errors import InternalError
from guactors.provider_state.workers import Devices, Job, order_key, order_shape

STEP = 10_000
"""Steps per device, in which shares are counted."""


class DeviceBook:
    """``devices``: ids by kind."""

    def __init__(self, devices: Mapping[str, list[str]]) -> None:
        self._used = {kind: dict.fromkeys(ids, 0) for kind, ids in devices.items()}
        self._held: dict[str, dict[tuple[str, str], int]] = {}
        """By order or worker: steps by kind and id."""

    def equip(self, job: Job) -> Job | None:
        """The job with the devices it is to have; None while there are not enough."""
        if not self._used:
            return job
        key = order_key(job.order)
        self.release(key)
        held: dict[tuple[str, str], int] = {}
        found: list[tuple[str, tuple[str, ...]]] = []
        resources = order_shape(job.order).resources
        for kind in sorted(self._used):
            steps = round(resources.get(kind, 0.0) * STEP)
            ids = self._find(kind, steps)
            if ids is None:
                return None
            held.update({(kind, id): min(steps, STEP) for id in ids})
            found.append((kind, tuple(ids)))
        for (kind, id), steps in held.items():
            self._used[kind][id] += steps
        if held:
            self._held[key] = held
        devices: Devices = tuple(found)
        return replace(job, binding=replace(job.binding, devices=devices))

    def _find(self, kind: str, steps: int) -> list[str] | None:
        used = self._used[kind]
        if not steps:
            return []
        if steps >= STEP:
            free = [id for id, taken in used.items() if not taken]
            wanted = -(-steps // STEP)
            return free[:wanted] if len(free) >= wanted else None
        fitting = [id for id, taken in used.items() if taken + steps <= STEP]
        # Of equals max takes the first.
        return [max(fitting, key=lambda id: used[id])] if fitting else None

    def hand_over(self, order: str, worker: str) -> None:
        """The order has its worker, which keeps its devices until its process is gone."""
        held = self._held.pop(order, None)
        if held is not None:
            self._held[worker] = held

    def release(self, holder: str) -> None:
        """An order that never had a worker, or a worker that is gone, needs its devices no more."""
        for (kind, id), steps in self._held.pop(holder, {}).items():
            self._used[kind][id] -= steps

    def check(self) -> None:
        """Raise InternalError if a device is given away twice."""
        sums: dict[tuple[str, str], int] = {}
        for held in self._held.values():
            for key, steps in held.items():
                sums[key] = sums.get(key, 0) + steps
        for kind, used in self._used.items():
            for id, taken in used.items():
                if taken != sums.get((kind, id), 0) or taken > STEP:
                    raise InternalError(f"{kind} {id}: {taken} steps are taken, by {self._held}")
