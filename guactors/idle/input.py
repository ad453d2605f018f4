"""How long ago somebody touched keyboard or mouse.

Owns: who is asked on which system: terminals and logind on Linux, IOKit's registry on macOS,
GetLastInputInfo on Windows. Must never: see what was typed.

A desktop on Linux tells logind by its own rules when it counts as idle; one that never does so
keeps the machine from being lent, and one that logind does not know is not seen. A Windows service
sees no input: the provider must run in its owner's session.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from guactors.idle.base import Reading, Run

DESKTOPS: Final = ("x11", "wayland", "mir")
_PROPERTIES: Final = ("Type", "Class", "State", "IdleHint", "IdleSinceHint")
_TERMINAL: Final = re.compile(r"tty\d+|pts/\d+")
_HID: Final = re.compile(r'"HIDIdleTime"\s*=\s*(\d+)')

Quiet = Callable[[], float | None]
"""Seconds since the last touch; None where there is nothing to touch. Raises OSError."""


class Input:
    """``ways``: all are asked, and the latest touch counts; what one that failed might have seen
    nobody knows. Without, those of this system."""

    def __init__(self, run: Run, ways: Iterable[Quiet] | None = None) -> None:
        self._ways = list(_ways(run) if ways is None else ways)

    def read(self) -> Reading:
        """Ask."""
        try:
            found = [quiet for way in self._ways if (quiet := way()) is not None]
        except OSError as error:  # with TimeoutError
            return Reading(fault=str(error))
        if not found:
            return Reading(fault="there is no terminal and no desktop here")
        return Reading(quiet=max(0.0, min(found)), text="keyboard or mouse")


def _ways(run: Run) -> list[Quiet]:
    if sys.platform == "darwin":
        return [lambda: registry_quiet(run)]
    if sys.platform == "win32":
        return [windows_quiet]
    return [lambda: terminals_quiet(Path("/dev"), time.time()), lambda: desktops_quiet(run)]


def terminals_quiet(dev: Path, now: float) -> float | None:
    """By when a terminal was last read from, as ``w`` shows it. ``now``: epoch seconds."""
    last = None
    for path in (*dev.glob("tty*"), *dev.glob("pts/*")):
        if _TERMINAL.fullmatch(path.relative_to(dev).as_posix()):
            with suppress(FileNotFoundError):  # it was closed just now
                last = max(last or 0.0, path.stat().st_atime)
    return None if last is None else now - last


def desktops_quiet(run: Run, wall: Callable[[], float] = time.time) -> float | None:
    """By what the desktops tell logind; None where there is no logind, or no desktop."""
    try:
        listed = run(["loginctl", "list-sessions", "--no-legend"])
    except FileNotFoundError:
        return None
    if listed.status:
        return None
    names = [line.split()[0] for line in listed.output.splitlines() if line.strip()]
    found = []
    for name in names:
        shown = run(["loginctl", "show-session", name, *(f"--property={x}" for x in _PROPERTIES)])
        lines = (line.partition("=") for line in shown.output.splitlines())
        quiet = _desktop_quiet({key: value for key, _, value in lines}, wall())
        if quiet is not None:
            found.append(quiet)
    return min(found, default=None)


def _desktop_quiet(session: Mapping[str, str], now: float) -> float | None:
    if session.get("Type") not in DESKTOPS or session.get("Class") != "user":
        return None
    if session.get("State") == "closing":
        return None
    since = session.get("IdleSinceHint", "")
    if session.get("IdleHint") != "yes" or not since.isdigit():
        return 0.0
    return now - int(since) / 1e6


def registry_quiet(run: Run) -> float | None:
    """By IOKit's registry."""
    found = _HID.search(run(["ioreg", "-c", "IOHIDSystem", "-d", "4"]).output)
    return int(found[1]) / 1e9 if found else None


def since_tick(now: int, last: int) -> float:
    """Seconds between two counts of milliseconds of 32 bits, which begin anew after 49 days."""
    return ((now - last) & 0xFFFFFFFF) / 1e3


def windows_quiet() -> float | None:
    """By GetLastInputInfo."""
    if sys.platform != "win32":
        return None
    import ctypes

    class LastInputInfo(ctypes.Structure):
        _fields_ = (("cbSize", ctypes.c_uint), ("dwTime", ctypes.c_uint))

    info = LastInputInfo(cbSize=ctypes.sizeof(LastInputInfo))
    if not ctypes.windll.user32.GetLastInputInfo(ctypes.byref(info)):
        return None
    return since_tick(ctypes.windll.kernel32.GetTickCount(), info.dwTime)
