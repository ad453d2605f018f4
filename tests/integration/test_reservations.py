"""Reservations on a real grid: from their start to their end, and across hubs."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

import guactors as gu
from guactors import errors
from guactors.grid_file import GridFile, read_grid_file
from guactors.looking import asker
from guactors.refs import current_session
from guactors.reservations import Reservation, ask_rows
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]
WITHIN = 40.0


def command(*args: str) -> str:
    line = [sys.executable, "-m", "guactors.cli.main", *args]
    done = subprocess.run(line, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def grid(gu_home: Path, permanent_threads: None) -> Iterator[GridFile]:
    command("up", "--providers", "1", "--cpus", "2")
    file = read_grid_file()
    assert file is not None
    gu.init("auto")
    yield file
    gu.shutdown()
    command("down")


def until(condition: Callable[[], Any], seconds: float = WITHIN) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.02)
    return value


@gu.remote
def hold(path: str) -> int:
    """Says who it is, and runs until the file has a neighbour."""
    Path(path).write_text(str(os.getpid()))
    while not Path(path).with_suffix(".end").exists():
        time.sleep(0.005)
    return os.getpid()


def started(path: Path, **options: Any) -> tuple[Any, psutil.Process]:
    ref = hold.options(**options).remote(str(path))
    return ref, psutil.Process(int(until(lambda: path.exists() and path.read_text())))


def let(*paths: Path) -> None:
    for path in paths:
        path.with_suffix(".end").touch()


def stands(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_STOPPED


def test_its_whole_life(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "in", "out")]
    low = [started(path) for path in paths[:2]]
    night = gu.reserve(
        "nightly", start=datetime.now(UTC) + timedelta(seconds=1), seconds=600, priority=10
    )
    waits = hold.options(reservation=night).remote(str(paths[2]))
    (row,) = gu.explain(waits)
    assert row["reason"] == "reserved" and "nightly begins at" in row["detail"]
    assert gu.get(night.ready(), timeout=WITHIN) == night
    until(lambda: sum(stands(process) for _, process in low) == 1)
    until(paths[2].exists)
    assert night.record()["state"] == "standing"
    assert command("reservations").split()[-1] == "1", "leases"
    let(paths[2])
    gu.get(waits, timeout=WITHIN)
    other = hold.remote(str(paths[3]))
    assert gu.wait([other], timeout=0.5)[0] == [], "its room is empty, and not for others"
    assert sum(stands(process) for _, process in low) == 1
    again, inside = started(tmp_path / "again", reservation="nightly")
    night.remove()
    assert night.record() == {}
    # What ran in it goes on; what gave way for it is the first in line.
    assert not stands(inside) and sum(stands(process) for _, process in low) == 1
    let(*paths, tmp_path / "again")
    done = gu.get([again, other, *(ref for ref, _ in low)], timeout=WITHIN)
    assert done[0] == inside.pid and set(done[2:]) == {process.pid for _, process in low}


def test_a_hub_that_is_killed_knows_them_again(grid: GridFile, tmp_path: Path) -> None:
    assert command("reserve", "--cpus", "1", "--for", "1h", "--name", "standing") == "standing\n"
    command("reserve", "--cpus", "2", "--from", "1d", "--for", "1h", "--name", "later")
    ref, inside = started(tmp_path / "in", reservation="standing")
    (file,) = Path(os.environ["GU_HOME"]).rglob("reservations.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    hub = next(pid for peer, pid in grid.pids.items() if peer.startswith("h-"))
    os.kill(hub, signal.SIGKILL)

    def known() -> bool:
        session = current_session()
        assert session is not None
        try:
            rows = ask_rows(asker(session, 2.0))  # a question that a dying hub took along is lost
        except (errors.HubUnreachable, errors.PeerLost):
            return False
        return [(row["name"], row["state"]) for row in rows] == [
            ("later", "to come"), ("standing", "standing"),
        ]  # fmt: skip

    until(known)
    assert Reservation("standing").record()["leases"] == 1
    let(tmp_path / "in")
    assert gu.get(ref, timeout=WITHIN) == inside.pid
    other = hold.options(num_cpus=2).remote(str(tmp_path / "other"))
    assert gu.wait([other], timeout=0.5)[0] == []
    command("unreserve", "standing")
    let(tmp_path / "other")
    gu.get(other, timeout=WITHIN)


def test_names_that_nobody_knows_and_bad_ones() -> None:
    with pytest.raises(errors.NoSuchReservation, match="'weekly'"):
        gu.get(hold.options(reservation="weekly").remote("/nowhere"), timeout=WITHIN)
    with pytest.raises(errors.NoSuchReservation, match="'weekly'"):
        Reservation("weekly").remove()
    with pytest.raises(errors.Unschedulable, match="asked 64 CPU"):
        gu.reserve("huge", num_cpus=64, seconds=60)
    with pytest.raises(errors.UsageError, match=r"start=.*ago"):
        gu.reserve("past", start=time.time() - 3600, seconds=7200)
    gu.reserve("once", start=time.time() + 3600, seconds=60)
    with pytest.raises(errors.NameTaken, match="'once'"):
        gu.reserve("once", start=time.time() + 7200, seconds=60)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"seconds": 0}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"start": float("nan")}, "start"),
        ({"start": "now"}, "start"),
        ({"name": ""}, "name"),
        ({"num_cpus": -1}, "num_cpus"),
        ({"num_cpus": 1e100}, "num_cpus"),
        ({"num_cpus": 0}, "asks for nothing"),
        ({"runtime": "native"}, "runtime"),
        ({"allow": "*"}, "allow"),
    ],
)
def test_impossible_ones(wrong: dict[str, Any], field: str) -> None:
    given = {"name": "nightly", "seconds": 60, **wrong}
    with pytest.raises(errors.UnknownOption, match=field):
        gu.reserve(**given)
