"""What waits on a real grid and why, what would run where, and that just this happens then."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

import guactors as gu
from guactors.cli import foresight
from guactors.errors import UnknownOption
from guactors.looking import asker
from guactors.messages import Message
from guactors.refs import current_session
from guactors.util import state
from tests import leaks
from tests.unit.cli.stand_in_hub import gu as run_gu

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]
WITHIN = 20.0


def until(condition: Callable[[], Any], seconds: float = WITHIN) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return value


class Here:
    """The line of a command to the grid of this process, which has no address."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def ask(self, question: Message, timeout: float) -> Message:
        session = current_session()
        assert session is not None
        return asker(session, timeout)(question)


def command(*args: str) -> str:
    """What ``gu`` prints about this grid."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foresight, "open_hub", lambda *_: Here())
        return run_gu(*args).out


@gu.remote
def stay(end: str, begun: str = "") -> float:
    """Runs until a file is there; when that was. It says when it begins."""
    if begun:
        Path(begun).touch()
    while not Path(end).exists():
        time.sleep(0.005)
    return time.monotonic()


@gu.remote
def urgent() -> float:
    return time.monotonic()


@gu.remote(num_cpus=1)
class Waiter:
    def here(self) -> bool:
        return True


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[None]:
    """Both processors are at work."""
    end = tmp_path / "end"
    begun = [tmp_path / "begun-0", tmp_path / "begun-1"]
    refs = [stay.remote(str(end), str(path)) for path in begun]
    until(lambda: all(path.exists() for path in begun))
    # Leases of the test before may be on their way back.
    until(lambda: len(state.list_rows("leases")) == 2)
    yield
    end.touch()
    gu.get(refs, timeout=WITHIN)


@pytest.mark.usefixtures("busy")
def test_a_call_and_an_actor_that_wait() -> None:
    assert str(gu.explain()) == "nothing waits"
    waiting = stay.options(num_cpus=2).remote("/")
    found = until(lambda: gu.explain(waiting))
    (row,) = found
    assert (row["reason"], row["preemption"]) == ("short", "gap")
    assert row["asked"] == {"CPU": 2.0} and row["free"] == {"CPU": 0.0}
    assert "asked 2 CPU, free 0 of 2" in str(found)
    actor = Waiter.remote()
    (row,) = until(lambda: gu.explain(actor))
    assert (row["kind"], row["reason"]) == ("actor", "short")
    assert {one["kind"] for one in gu.explain()} == {"actor", "lease"}
    gu.cancel(waiting)
    gu.kill(actor)
    until(lambda: str(gu.explain()) == "nothing waits")


@pytest.mark.usefixtures("busy")
def test_where_a_call_runs_and_one_that_has_run() -> None:
    plan = gu.plan(priority=10)
    running = urgent.options(priority=10).remote()
    assert plan and len(plan.victims) == 1
    gu.get(running, timeout=WITHIN)
    assert "it is there already" in str(gu.explain(running))


@pytest.mark.usefixtures("busy")
def test_the_plan_is_what_happens(tmp_path: Path) -> None:
    plan = gu.plan(2, num_cpus=1, priority=10)
    assert plan and len(plan.places) == 2
    names = {victim.key for victim in plan.victims}
    held = {lease["lease_id"] for lease in state.list_rows("leases")}
    assert names == held and {victim.mode for victim in plan.victims} == {"suspend"}
    assert "would be suspended, which frees 1 CPU" in str(plan)
    end = tmp_path / "urgent"
    refs = [stay.options(priority=10).remote(str(end)) for _ in range(2)]
    until(lambda: len(state.list_rows("leases")) == 4)
    for victim in names:
        (row,) = until(lambda victim=victim: rows_of(victim, "suspended"))
        assert "has stood still" in row["detail"]
    again = gu.plan(priority=10)
    assert not again and again.missing == 1
    assert again.misses[0].reason == "short" and "gap" in again.misses[0].preemption
    end.touch()
    gu.get(refs, timeout=WITHIN)


def rows_of(subject: str, reason: str) -> list[dict[str, Any]]:
    shown = json.loads(command("explain", subject, "--json"))
    return [row for row in shown if row["reason"] == reason]


@pytest.mark.usefixtures("busy")
def test_the_same_as_commands() -> None:
    text = command("plan", "--priority", "10", "--cpus", "1")
    assert "1 starts on" in text and "would be suspended" in text
    shown = json.loads(command("plan", "--cpus", "4", "--json"))
    assert shown["missing"] == 1 and shown["misses"][0]["reason"] == "too_small"
    assert "asked 4 CPU, the most there is is 2" in shown["never"]
    assert command("explain").strip() == "nothing waits"
    last = stay.options(num_cpus=2).remote("/")
    until(lambda: "asked 2 CPU, free 0 of 2" in command("explain"))
    assert last is not None


def test_options_that_cannot_be() -> None:
    with pytest.raises(UnknownOption, match="num_cpus"):
        gu.plan(num_cpus=float("nan"))
    with pytest.raises(UnknownOption, match="num_cpu"):
        gu.plan(num_cpu=1)
