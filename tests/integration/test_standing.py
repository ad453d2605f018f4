"""What callers of suspended work see on a real grid: they wait, or are told, as they chose."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors import errors
from guactors.util import state
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]
WITHIN = 20.0


def until(condition: Callable[[], Any], seconds: float = WITHIN) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)
    return value


@gu.remote
def work(path: str, end: str) -> str:
    """Says that it began; runs until told to end."""
    Path(path).touch()
    while not Path(end).exists():
        time.sleep(0.005)
    return "done"


@gu.remote(num_cpus=2, priority=10)
def urgent(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.005)


@gu.remote(num_cpus=2)
class Keeper:
    def there(self) -> int:
        return 1


def read_all(stream: Any, seen: list[int]) -> None:
    for ref in stream:
        seen.append(gu.get(ref))


class Urgent:
    """Work that has all processors, until it is told to end."""

    def __init__(self, directory: Path) -> None:
        self._end = directory / "urgent.end"
        self._ref = urgent.remote(str(self._end))

    def end(self) -> None:
        self._end.touch()
        gu.get(self._ref, timeout=WITHIN)
        self._end.unlink()
        until(lambda: not suspended("tasks"))


def suspended(what: str) -> list[Any]:
    return state.list_rows(what, filters=[("state", "=", "SUSPENDED")], detail=True)


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes a task that runs until the test is over."""
    end, made = tmp_path / "end", []

    def make(**options: Any) -> Any:
        path = tmp_path / str(len(made))
        made.append(work.options(**options).remote(str(path), str(end)))
        until(path.exists)
        return made[-1]

    yield make
    end.touch()
    assert gu.get(made, timeout=WITHIN, count_suspended=False) == ["done"] * len(made)


def test_get_is_told_and_later_has_the_value(busy: Callable[..., Any], tmp_path: Path) -> None:
    ref = busy(on_suspended="raise", num_cpus=2, memory=1000)
    other = Urgent(tmp_path)
    began = time.monotonic()
    with pytest.raises(errors.Suspended, match="get\\(\\) it again") as caught:
        gu.get(ref, timeout=WITHIN)
    assert time.monotonic() - began < WITHIN / 2 and caught.value.by
    with pytest.raises(errors.Suspended):
        gu.get([ref])
    with pytest.raises(errors.Suspended):
        ref.future().result(WITHIN)
    assert gu.wait([ref], timeout=0.1)[0] == []
    (row,) = suspended("tasks")
    assert row.suspended_by == caught.value.by and "priority 10" in row.suspended_reason
    (lease,) = suspended("leases")
    assert lease.suspended_by == row.suspended_by
    (node,) = state.list_nodes(detail=True)
    assert node.resources_suspended == {"memory": 1000.0}
    other.end()


def test_a_future_that_waits_is_told(busy: Callable[..., Any], tmp_path: Path) -> None:
    ref = busy(on_suspended="raise", num_cpus=2)
    future = ref.future()
    other = Urgent(tmp_path)
    with pytest.raises(errors.Suspended):
        future.result(WITHIN)

    async def ask() -> None:
        await ref

    with pytest.raises(errors.Suspended):
        asyncio.run(ask())
    other.end()


def test_a_stream_that_stands_still_says_so(tmp_path: Path) -> None:
    @gu.remote(num_cpus=2, on_suspended="raise")
    def ticks(end: str) -> Iterator[int]:
        number = 0
        while not Path(end).exists():
            yield (number := number + 1)
            time.sleep(0.01)

    end = tmp_path / "ticks.end"
    stream = ticks.remote(str(end))
    seen = [gu.get(next(stream))]
    other = Urgent(tmp_path)
    with pytest.raises(errors.Suspended):
        read_all(stream, seen)
    other.end()
    end.touch()
    read_all(stream, seen)
    assert seen == list(range(1, len(seen) + 1))


def test_a_call_to_a_suspended_actor_waits_or_says_so(tmp_path: Path) -> None:
    keeper = Keeper.remote()
    assert gu.get(keeper.there.remote(), timeout=WITHIN) == 1
    other = Urgent(tmp_path)
    (row,) = until(lambda: suspended("actors"))
    assert row.suspended_by and row.suspended_time_ms > 0
    until(lambda: _told(keeper))
    waiting = keeper.there.remote()
    assert gu.wait([waiting], timeout=0.1)[0] == []
    other.end()
    assert gu.get(waiting, timeout=WITHIN) == 1
    assert gu.get(keeper.there.options(on_suspended="raise").remote(), timeout=WITHIN) == 1
    gu.kill(keeper)


def _told(keeper: Any) -> bool:
    try:
        gu.get(keeper.there.options(on_suspended="raise").remote(), timeout=WITHIN)
    except errors.Suspended as error:
        return "was not sent" in str(error)
    return False


def test_timeouts_stop_their_clock_where_that_is_asked(
    busy: Callable[..., Any], tmp_path: Path
) -> None:
    ref = busy(num_cpus=2)
    other = Urgent(tmp_path)
    until(lambda: suspended("tasks"))
    threading.Timer(0.6, other.end).start()
    began = time.monotonic()
    with pytest.raises(errors.GetTimeout):
        gu.get(ref, timeout=0.3, count_suspended=False)
    assert time.monotonic() - began > 0.8
    with pytest.raises(errors.GetTimeout):
        gu.get(ref, timeout=0)


def test_a_call_with_a_timeout_outlives_its_suspension(tmp_path: Path) -> None:
    end = tmp_path / "end"
    timed = work.options(num_cpus=2, timeout=1.0, count_suspended=False)
    ref = timed.remote(str(tmp_path / "began"), str(end))
    until((tmp_path / "began").exists)
    other = Urgent(tmp_path)
    until(lambda: suspended("tasks"))
    assert gu.wait([ref], timeout=1.5)[0] == []
    other.end()
    end.touch()
    assert gu.get(ref, timeout=WITHIN) == "done"
