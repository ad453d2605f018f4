"""Every source of idleness keeps the contract: it answers within its time, says one thing, raises
nothing; with what other systems print, as it was recorded there."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from guactors.config import Lending
from guactors.errors import UsageError
from guactors.idle import SOURCES, open_sources
from guactors.idle.base import IdleSource, Ran, Reading, Run
from guactors.idle.command import OwnCommand
from guactors.idle.input import (
    Input,
    desktops_quiet,
    registry_quiet,
    since_tick,
    terminals_quiet,
    windows_quiet,
)
from guactors.idle.load import Load, Spent
from guactors.idle.power import Power
from guactors.runtimes.brief import Brief

IOREG = """\
+-o Root  <class IORegistryEntry, id 0x100000100, retain 30>
  +-o IOHIDSystem  <class IOHIDSystem, id 0x1000004a1, registered, matched, active, busy 0>
      {
        "IOClass" = "IOHIDSystem"
        "HIDIdleTime" = 4523790125
        "HIDParameters" = {"Clicking"=0,"HIDIdleTime2"=1}
      }
"""
SESSIONS = "  2 1000 ann  seat0 tty2 \n c1  120 gdm seat0 tty1\n  7 1000 ann - pts/0\n"
DESKTOP = "Type=wayland\nClass=user\nState=active\nIdleHint={hint}\nIdleSinceHint={since}\n"
GREETER = "Type=x11\nClass=greeter\nState=online\nIdleHint=no\nIdleSinceHint=0\n"
TERMINAL = "Type=tty\nClass=user\nState=active\nIdleHint=no\nIdleSinceHint=1700000000000000\n"


class Battery(NamedTuple):
    percent: float
    power_plugged: bool | None


def logind(desktop: str, listed: int = 0) -> Run:
    shown = {"2": desktop, "c1": GREETER, "7": TERMINAL}

    def run(argv: Sequence[str]) -> Ran:
        if argv[1] == "list-sessions":
            return Ran(listed, SESSIONS)
        return Ran(0, shown[argv[2]])

    return run


def absent(argv: Sequence[str]) -> Ran:
    raise FileNotFoundError(f"no {argv[0]}")


def slow(argv: Sequence[str]) -> Ran:
    raise TimeoutError("it took more than 5 s")


def spent(*looks: Spent) -> Callable[[], Spent]:
    left = list(looks)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def broken() -> Spent:
    raise OSError("no /proc here")


def broken_battery() -> Battery:
    raise OSError("no /sys here")


# --- the contract ---------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[], IdleSource]] = {
    **{f"this machine's {name}": lambda name=name: SOURCES[name](  # type: ignore[misc]
        Lending(sources=[name], command=[sys.executable, "-c", ""]), Brief().run)
       for name in SOURCES},
    "logind in use": lambda: Input(absent, [lambda: desktops_quiet(logind(DESKTOP))]),
    "logind that hangs": lambda: Input(slow, [lambda: desktops_quiet(slow)]),
    "no logind": lambda: Input(absent, [lambda: desktops_quiet(absent)]),
    "macOS": lambda: Input(absent, [lambda: registry_quiet(lambda _: Ran(0, IOREG))]),
    "macOS without a screen": lambda: Input(absent, [lambda: registry_quiet(lambda _: Ran(0, ""))]),
    "macOS without ioreg": lambda: Input(absent, [lambda: registry_quiet(absent)]),
    "nobody to ask": lambda: Input(absent, []),
    "load": lambda: Load(spent(Spent(1.0, 5.0, 1.0), Spent(2.0, 6.0, 1.5))),
    "load without figures": lambda: Load(broken),
    "battery": lambda: Power(lambda: Battery(40.0, False)),
    "no battery": lambda: Power(lambda: None),
    "battery without figures": lambda: Power(broken_battery),
    "command missing": lambda: OwnCommand(["/nowhere/at-all"], Brief().run),
    "command that hangs": lambda: OwnCommand(["sleep", "60"], Brief(0.2).run),
}  # fmt: skip


@pytest.mark.parametrize("name", MAKERS)
def test_it_says_one_thing_and_raises_nothing(name: str) -> None:
    source = MAKERS[name]()
    for _ in range(3):
        began = time.monotonic()
        reading = source.read()
        assert time.monotonic() - began < 5.5
        said = [reading.quiet, reading.load, reading.busy, reading.fault or None]
        assert sum(one is not None for one in said) == 1, reading
        assert reading.quiet is None or reading.quiet >= 0
        assert reading.load is None or reading.load >= 0
        assert len(reading.text) <= 1000 and len(reading.fault) <= 1000
        assert reading.busy is not True or reading.text, "people are told what it is"


# --- each of them ---------------------------------------------------------------------------------


def test_names() -> None:
    found = open_sources(Lending(sources=["load", "power"]), absent)
    assert list(found) == ["load", "power"]
    with pytest.raises(UsageError, match=r"idle_source.*'webcam'.*input, load, power, command"):
        open_sources(Lending(sources=["webcam"]), absent)


def test_a_desktop_in_use_and_one_that_rests() -> None:
    used = DESKTOP.format(hint="no", since="0")
    assert desktops_quiet(logind(used)) == 0.0
    rests = DESKTOP.format(hint="yes", since=1_700_000_000 * 10**6)
    assert desktops_quiet(logind(rests), lambda: 1_700_000_090.0) == 90.0


def test_greeters_and_terminals_are_no_desktops() -> None:
    closing = DESKTOP.format(hint="no", since="0").replace("active", "closing")
    assert desktops_quiet(logind(closing)) is None
    assert desktops_quiet(logind(closing, listed=1)) is None, "no logind is running"


def test_terminals(tmp_path: Path) -> None:
    assert terminals_quiet(tmp_path, 1000.0) is None
    (tmp_path / "pts").mkdir()
    for name, at in (("tty1", 400), ("pts/3", 700), ("pts/ptmx", 999), ("ttyS0", 999)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at, 999))
    assert terminals_quiet(tmp_path, 1000.0) == 300.0


def test_the_latest_touch_counts_and_what_one_that_failed_saw_nobody_knows() -> None:
    def fails() -> float | None:
        raise OSError("no")

    assert Input(absent, [lambda: 90.0, lambda: 30.0, lambda: None]).read().quiet == 30.0
    assert Input(absent, [lambda: -5.0]).read().quiet == 0.0, "the clock was set back"
    assert Input(absent, [lambda: 90.0, fails]).read() == Reading(fault="no")


def test_the_registry_of_macos() -> None:
    assert registry_quiet(lambda _: Ran(0, IOREG)) == pytest.approx(4.523790125)


def test_ticks_of_windows_begin_anew() -> None:
    assert since_tick(5_000, 2_000) == 3.0
    assert since_tick(1_000, 2**32 - 1_000) == 2.0
    assert sys.platform == "win32" or windows_quiet() is None


def test_load_is_the_others_share() -> None:
    looks = spent(Spent(10.0, 100.0, 50.0), Spent(12.0, 103.0, 52.0), Spent(14.0, 104.0, 54.0))
    source = Load(looks)
    assert source.read().fault
    assert source.read().load == pytest.approx(0.5)
    assert source.read().load == 0.0, "ours was counted a little later"


def test_the_work_of_our_own_processes_is_not_the_others() -> None:
    """Also of those that end in between."""
    before = Load().read
    source = Load()
    assert before().fault and source.read().fault
    burn = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    began = time.monotonic()
    assert Brief().run([sys.executable, "-c", burn]).status == 0
    took = time.monotonic() - began
    import psutil

    reading = source.read()
    assert reading.load is not None
    # Others work on this machine too; but without ours there is so much left at the most.
    assert reading.load <= (psutil.cpu_count() or 1) - 0.6 / took + 0.25


@pytest.mark.parametrize(("plugged", "busy"), [(True, False), (None, False), (False, True)])
def test_a_battery_is_its_owners(plugged: bool | None, busy: bool) -> None:
    reading = Power(lambda: Battery(41.6, plugged)).read()
    assert reading.busy is busy
    assert not busy or "42 %" in reading.text


def test_a_command_of_the_owners() -> None:
    run = Brief().run
    assert OwnCommand(["sh", "-c", "exit 0"], run).read().busy is False
    used = OwnCommand(["sh", "-c", "echo a  game; exit 1"], run).read()
    assert (used.busy, used.text) == (True, "a game")
    assert "status 3" in OwnCommand(["sh", "-c", "exit 3"], run).read().fault
    assert "took more than" in OwnCommand(["sleep", "60"], Brief(0.1).run).read().fault
    assert "/nowhere" in OwnCommand(["/nowhere/at-all"], run).read().fault


def test_a_command_has_no_secret_and_no_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GU_PASSPHRASE", "tell nobody")
    ran = Brief().run(["sh", "-c", 'cat; echo "<$GU_PASSPHRASE>"'])
    assert ran.output == "<>\n"


def test_closing_ends_what_runs_with_all_that_it_has_started() -> None:
    brief = Brief()
    found: list[Ran] = []
    thread = threading.Thread(
        target=lambda: found.append(brief.run(["sh", "-c", "sleep 60 & sleep 60"]))
    )
    began = time.monotonic()
    thread.start()
    while brief._process is None:
        assert time.monotonic() - began < 5.0
    brief.close()
    thread.join(5.0)
    assert found and found[0].status != 0 and time.monotonic() - began < 5.0
