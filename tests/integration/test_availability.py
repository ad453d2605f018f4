"""A machine whose owner uses it himself now and then: a file that is there says so."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import guactors as gu
from guactors.util import state
from tests import leaks
from tests.command import first_line, running
from tests.command import gu as command

pytestmark = [pytest.mark.needs("posix"), pytest.mark.may_keep(*leaks.KINDS)]
WITHIN = 20.0
OWNED = ("--cpus", "1", "--idle-after", "0.2s", "--busy-after", "0s", "--dwell", "0s")


def until(condition: Callable[[], Any], seconds: float = WITHIN) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)
    return value


class Owner:
    """Of the machine that the provider ``attic`` lends."""

    def __init__(self, here: Path, home: Path) -> None:
        self.here = here
        self.home = home

    def comes(self) -> None:
        self.here.touch()
        until(lambda: self.row()["state"] == "NOT_LENT")

    def leaves(self) -> None:
        self.here.unlink()
        until(lambda: self.row()["state"] == "LENT")

    def row(self) -> dict[str, Any]:
        (row,) = state.list_rows("providers", filters=[("node_name", "=", "attic")], detail=True)
        return row


@pytest.fixture(scope="module")
def grid(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Owner]:
    """Two machines with a CPU each; that of ``attic`` has an owner."""
    home = tmp_path_factory.mktemp("grid-home")
    here = tmp_path_factory.mktemp("owner") / "here"
    program = f"sh -c 'test -e {here} && echo a game && exit 1; exit 0'"
    attic = ("provider", "--hub", "auto", "--name", "attic", "--idle-command", program, *OWNED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GU_HOME", str(home))
        command("up", "--cpus", "1")
        with running(*attic, "--leave-after", "0.5s") as provider:
            assert "attic serves" in first_line(provider)
            gu.init("auto")
            yield Owner(here, home)
            gu.shutdown()
        command("down")


@pytest.fixture
def owner(grid: Owner, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    """He is away when the test begins."""
    monkeypatch.setenv("GU_HOME", str(grid.home))
    until(lambda: grid.row()["state"] == "LENT")
    yield grid
    grid.here.unlink(missing_ok=True)


@gu.remote(max_retries=0)
def count(path: str) -> int:
    """Counts, and tells of it in a file; runs until the file has a neighbour."""
    me = os.open(path, os.O_WRONLY | os.O_CREAT)
    done = 0
    while not Path(path).with_suffix(".end").exists():
        done += 1
        os.pwrite(me, b"%10d %10d" % (os.getpid(), done), 0)
        time.sleep(0.002)
    os.close(me)
    return done


def read(path: Path) -> tuple[int, int]:
    """Process and count."""
    words = until(lambda: path.exists() and path.read_text().split())
    return int(words[0]), int(words[1])


def stands(path: Path) -> bool:
    return psutil.Process(read(path)[0]).status() == psutil.STATUS_STOPPED


def test_what_runs_stands_still_while_the_owner_is_there_and_loses_nothing(
    owner: Owner, tmp_path: Path
) -> None:
    path = tmp_path / "counter"
    running = count.options(provider="attic", preemption=["never"]).remote(str(path))
    read(path)
    owner.comes()
    until(lambda: stands(path))
    before = read(path)
    row = owner.row()
    assert row["reason"] == "it is used: a game"
    assert (row["leases"], row["suspended"]) == (1, 1)
    assert gu.wait([running], timeout=0.3)[0] == []
    assert read(path) == before
    owner.leaves()
    until(lambda: read(path)[1] > before[1])
    path.with_suffix(".end").touch()
    assert gu.get(running, timeout=WITHIN) == read(path)[1]
    assert read(path)[0] == before[0], "the same process went on"


def test_what_waits_goes_to_the_others_and_nothing_new_comes(owner: Owner) -> None:
    @gu.remote
    def where(number: int) -> str:
        time.sleep(0.005)
        return str(gu.get_runtime_context().get_node_id())

    refs = [where.remote(number) for number in range(600)]
    attic = until(lambda: owner.row()["leases"] and owner.row()["node_id"])
    owner.comes()
    # The one call that had begun there stands still with its worker.
    done, _ = gu.wait(refs, num_returns=599, timeout=WITHIN)
    assert len(done) >= 599
    late = [where.remote(number) for number in range(20)]
    assert attic not in gu.get(late, timeout=WITHIN)
    owner.leaves()
    gu.get(refs, timeout=WITHIN)


def test_an_actor_waits_and_explain_says_why(owner: Owner) -> None:
    @gu.remote
    class Counter:
        def __init__(self) -> None:
            self.total = 0

        def add(self) -> int:
            self.total += 1
            return self.total

        def pid(self) -> int:
            return os.getpid()

    counter = Counter.options(provider="attic").remote()
    assert gu.get(counter.add.remote(), timeout=WITHIN) == 1
    process = psutil.Process(gu.get(counter.pid.remote(), timeout=WITHIN))
    owner.comes()
    until(lambda: process.status() == psutil.STATUS_STOPPED)
    waiting = counter.add.remote()
    assert gu.wait([waiting], timeout=0.3)[0] == []
    other = count.options(provider="attic").remote("/nowhere")
    rows = until(lambda: [x for x in gu.explain(other) if x["node_name"] == "attic"])
    assert rows[0]["reason"] == "closed" and "a game" in rows[0]["detail"]
    assert gu.plan(num_cpus=1).places[0].name != "attic"
    gu.cancel(other)
    owner.leaves()
    assert gu.get(waiting, timeout=WITHIN) == 2


def test_what_may_be_requeued_leaves(owner: Owner, tmp_path: Path) -> None:
    path, other = tmp_path / "counter", tmp_path / "other"
    (home,) = state.list_rows("providers", filters=[("node_name", "!=", "attic")], detail=True)
    blocker = count.options(provider=home["node_id"]).remote(str(other))
    read(other)
    running = count.options(preemption=["suspend", "requeue"]).remote(str(path))
    first = read(path)[0]
    owner.comes()
    until(lambda: not psutil.pid_exists(first))
    other.with_suffix(".end").touch()
    gu.get(blocker, timeout=WITHIN)
    until(lambda: read(path)[0] != first)
    path.with_suffix(".end").touch()
    gu.get(running, timeout=WITHIN)


def test_what_gu_says_of_it(owner: Owner) -> None:
    owner.comes()
    assert "not lent" in command("peers").stdout
    shown = command("list", "providers").stdout
    assert "NOT_LENT" in shown and "it is used: a game" in shown
    peers = json.loads(command("peers", "--json").stdout)
    (attic,) = [peer for peer in peers if peer["name"] == "attic"]
    assert attic["free"] == {} and not attic["availability"]["lent"]
