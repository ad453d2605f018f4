"""Whether the machine runs on its battery, which is its owner's.

Owns: that reading. Must never: count a machine without a battery as one that has an empty one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from guactors.idle.base import Reading


class Battery(Protocol):
    """As psutil describes it."""

    @property
    def percent(self) -> float:
        """How full it is."""

    @property
    def power_plugged(self) -> bool | None:
        """Whether it is being charged; None: nobody knows."""


def _battery() -> Battery | None:
    import psutil

    sensor = getattr(psutil, "sensors_battery", None)
    return None if sensor is None else sensor()


class Power:
    """``battery`` finds it; None where there is none."""

    def __init__(self, battery: Callable[[], Battery | None] = _battery) -> None:
        self._battery = battery

    def read(self) -> Reading:
        """On battery the machine is not to be lent."""
        try:
            found = self._battery()
        except OSError as error:
            return Reading(fault=str(error))
        if found is None or found.power_plugged is not False:
            return Reading(busy=False)
        return Reading(busy=True, text=f"it runs on battery, {found.percent:.0f} %")
