"""``gu.map``: chunks, back-pressure, order, errors, progress."""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors import errors
from guactors.integrations import mapping
from guactors.integrations import progress as bars
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


def eventually(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def square(x: int) -> int:
    return x * x


def invert(x: int) -> float:
    return 1 / x


class Odd(Exception):
    """Cannot be pickled."""

    def __init__(self, one: int, lock: Any) -> None:
        super().__init__(one)
        self.lock = lock


class Counted:
    """An endless iterable that knows how far it was drawn."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Iterator[int]:
        while True:
            yield self.drawn
            self.drawn += 1


def test_as_map() -> None:
    many = 30_000
    assert list(gu.map(square, range(many))) == [i * i for i in range(many)]
    assert list(gu.map(square, [])) == []
    assert list(gu.map(square, iter([3]))) == [9]
    assert sorted(gu.map(square, range(many), order=False)) == [i * i for i in range(many)]
    three = 3
    assert list(gu.map(lambda x: x + three, range(4), chunk=3)) == [3, 4, 5, 6]
    assert list(gu.map(math.sqrt, [4, 9])) == [2.0, 3.0]


def test_chunk_is_how_many_travel_together() -> None:
    seen: list[int] = []

    def runs_of(pids: list[tuple[int, float]]) -> list[int]:
        return [len(list(group)) for _, group in itertools.groupby(pids)]

    def stamp(_: int) -> tuple[int, float]:
        import guactors as gu

        return os.getpid(), gu.get_runtime_context().get_task_id()

    seen = runs_of(list(gu.map(stamp, range(20), chunk=6)))
    assert seen == [6, 6, 6, 2]
    assert runs_of(list(gu.map(stamp, range(5), chunk=1))) == [1] * 5


def test_chunks_grow_with_quick_items_and_not_with_slow_ones() -> None:
    def task(seconds: float) -> str:
        import guactors as gu

        time.sleep(seconds)
        return str(gu.get_runtime_context().get_task_id())

    assert len(set(gu.map(task, [0.03] * 8))) == 8
    assert len(set(gu.map(task, [0.0] * 20_000))) < 500


def test_an_endless_iterable_is_drawn_as_results_are_taken() -> None:
    for order in (True, False):
        items = Counted()
        results = gu.map(square, items, chunk=10, order=order)
        bound = 10 * mapping.UNREAD * 2
        assert items.drawn <= bound
        taken = list(itertools.islice(results, 1000))
        assert len(set(taken)) == 1000
        assert items.drawn <= 1000 + bound
        results.close()


def test_a_slow_item_does_not_let_the_others_run_away(tmp_path: Path) -> None:
    """The first result comes when the last chunk that may be drawn before it has run."""
    bound = 10 * mapping.UNREAD * 2
    gate = tmp_path / "gate"

    def wait_first(number: int) -> int:
        if number == bound - 1:
            gate.touch()
        while number == 0 and not gate.exists():
            time.sleep(0.05)
        return number

    items = Counted()
    results = gu.map(wait_first, items, chunk=10)
    assert next(results) == 0
    assert items.drawn <= bound
    results.close()


def test_ahead_bounds_what_is_drawn() -> None:
    items = Counted()
    results = gu.map(square, items, ahead=5)
    for taken in range(1, 50):
        next(results)
        assert items.drawn <= taken + 5
    results.close()


def test_results_come_while_others_run(tmp_path: Path) -> None:
    def wait_for(name: str) -> str:
        while not Path(tmp_path, name).exists():
            time.sleep(0.005)
        return name

    ordered = gu.map(wait_for, ["a", "b"])
    Path(tmp_path, "a").touch()
    assert next(ordered) == "a"
    Path(tmp_path, "b").touch()
    assert list(ordered) == ["b"]
    unordered = gu.map(wait_for, ["c", "d"], order=False)
    Path(tmp_path, "d").touch()
    assert next(unordered) == "d"
    Path(tmp_path, "c").touch()
    assert list(unordered) == ["c"]


@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
def test_an_error_comes_after_the_results_before_it_and_names_its_item(chunk: int | None) -> None:
    results = gu.map(invert, [1, 2, 4, 5, 0, 8, 0], chunk=chunk)
    assert [next(results) for _ in range(4)] == [1, 0.5, 0.25, 0.2]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert type(caught.value) is ZeroDivisionError
    assert caught.value.__notes__ == ["guactors.map: item 4 of invert: 0"]
    assert isinstance(caught.value.__cause__, errors.TaskError)
    assert "return 1 / x" in str(caught.value.__cause__)
    assert list(results) == []


def test_errors_can_take_the_place_of_results() -> None:
    found: list[Any] = list(gu.map(invert, [1, 0, 2, 0], errors="return", chunk=3))
    assert [found[0], found[2]] == [1, 0.5]
    assert [type(found[1]), type(found[3])] == [ZeroDivisionError] * 2
    assert "item 3 of invert: 0" in found[3].__notes__[0]


def test_an_error_that_cannot_be_pickled_has_its_text() -> None:
    def fail(x: int) -> None:
        raise Odd(x, threading.Lock())

    with pytest.raises(errors.TaskError, match="Odd: 7") as caught:
        list(gu.map(fail, [7]))
    assert "raise Odd(x, threading.Lock())" in str(caught.value)


def test_a_died_worker_names_the_items() -> None:
    def die(x: int) -> None:
        if x == 3:
            os._exit(1)

    with pytest.raises(errors.WorkerDied) as caught:
        list(gu.map(die, range(8), chunk=4, max_retries=0))
    assert caught.value.__notes__ == ["guactors.map: items 0 to 3 of die"]
    found: list[Any] = list(
        gu.map(die, range(8), chunk=4, max_retries=0, errors="return", num_cpus=2)
    )
    assert [isinstance(each, errors.WorkerDied) for each in found] == [True] * 4 + [False] * 4


def test_a_chunk_runs_again_when_its_worker_dies(tmp_path: Path) -> None:
    def die_once(x: int) -> int:
        try:
            Path(tmp_path, f"{x}").touch(exist_ok=False)
        except FileExistsError:
            return x
        os._exit(1)

    assert list(gu.map(die_once, [1], chunk=1)) == [1]


def test_what_cannot_be_sent_is_an_error_of_its_items() -> None:
    results = gu.map(square, [1, 2, threading.Lock()], chunk=2)
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(errors.NotSerializable) as caught:
        next(results)
    assert caught.value.__notes__ == ["guactors.map: item 2 of square"]
    with pytest.raises(TypeError, match="cannot be pickled") as late:
        list(gu.map(lambda _: threading.Lock(), [1, 2], chunk=2))
    assert late.value.__notes__ == ["guactors.map: items 0 to 1 of <lambda>"]


def test_a_broken_iterable_is_told_after_what_it_gave() -> None:
    def broken() -> Iterator[int]:
        yield from range(5)
        raise OSError("no more")

    for chunk in (None, 1, 2, 50):
        results = gu.map(square, broken(), chunk=chunk)
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        with pytest.raises(OSError, match="no more"):
            next(results)


def test_closing_cancels_what_runs(tmp_path: Path) -> None:
    def run_long(name: str) -> None:
        Path(tmp_path, f"{name} began").touch()
        try:
            time.sleep(60)
        finally:
            Path(tmp_path, f"{name} ended").touch()

    def quick_then_long(name: str) -> str:
        if name != "first":
            run_long(name)
        return name

    for result in gu.map(quick_then_long, ["first", "second"], chunk=1):
        assert result == "first"
        eventually(Path(tmp_path, "second began").exists)
        break
    eventually(Path(tmp_path, "second ended").exists)


def test_inside_tasks() -> None:
    @gu.remote
    def outer(n: int) -> int:
        return sum(gu.map(square, range(n)))

    assert gu.get([outer.remote(n) for n in (3, 4, 5, 6)], timeout=50) == [5, 14, 30, 55]


def test_options_are_those_of_a_task() -> None:
    with pytest.raises(errors.UnknownOption, match="did you mean num_cpus"):
        gu.map(square, [1], num_cpu=1)
    with pytest.raises(errors.UnknownOption, match="one result"):
        gu.map(square, [1], num_returns=2)
    with pytest.raises(errors.UnknownOption, match="chunk="):
        gu.map(square, [1], timeout=1)
    with pytest.raises(errors.CallTimeout):
        list(gu.map(time.sleep, [30], timeout=0.2, chunk=1))
    seconds = 0.15
    began = time.monotonic()
    assert len(list(gu.map(time.sleep, [seconds] * 3, num_cpus=2))) == 3
    assert time.monotonic() - began >= 3 * seconds, "two chunks of two CPUs ran at a time"


@pytest.mark.parametrize(
    ("wrong", "kind", "text"),
    [
        ({"chunk": 0}, ValueError, "chunk=0"),
        ({"chunk": 1.5}, ValueError, r"chunk=1\.5"),
        ({"ahead": -1}, ValueError, "ahead=-1"),
        ({"errors": "ignore"}, ValueError, "errors='ignore'"),
        ({"progress": "bar"}, errors.UsageError, '"tqdm", "rich"'),
        ({"progress": True}, errors.UsageError, "progress=True"),
    ],
)
def test_impossible_arguments(wrong: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        gu.map(square, [1], **wrong)
    with pytest.raises(errors.UsageError, match="plain function"):
        gu.map(gu.remote(square), [1])
    with pytest.raises(TypeError):
        gu.map(square, 5)  # type: ignore[arg-type]


def test_progress_is_told_to_a_function() -> None:
    told: list[tuple[int, int | None]] = []
    assert sum(gu.map(square, range(10), chunk=4, progress=lambda *now: told.append(now))) == 285
    dones = [done for done, _ in told]
    assert dones == sorted(dones)
    assert set(dones) <= {0, 2, 4, 6, 8, 10}
    assert told[-1] == (10, 10)
    told.clear()
    list(gu.map(square, (i for i in range(3)), progress=lambda *now: told.append(now)))
    assert told[-1] == (3, None)


@pytest.mark.needs("module:tqdm")
@pytest.mark.parametrize("kind", ["tqdm", "rich"])
def test_progress_bars(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tqdm.auto import tqdm

    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # a thread that stays for good
    assert sum(gu.map(square, range(10), chunk=4, progress=kind)) == 285
    told = "".join(capsys.readouterr())
    assert "square" in told
    assert "10/10" in told
    with pytest.raises(ZeroDivisionError):
        list(gu.map(invert, [0], progress=kind))
    assert list(gu.map(invert, [1], progress=kind)) == [1], "the bar before was not closed"


@pytest.mark.parametrize("kind", ["tqdm", "rich"])
def test_a_bar_that_is_not_installed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tqdm", "tqdm.auto", "rich.progress"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(errors.UsageError, match=rf"needs the package {kind}: pip install"):
        gu.map(square, [1], progress=kind)
    assert bars.open_progress(None, None, "square").close() is None  # type: ignore[func-returns-value]


def test_everything_pending_ends_with_the_grid() -> None:
    """The last test of this module that uses the fixture's grid: it makes its own afterwards."""
    results = gu.map(time.sleep, itertools.repeat(60))
    gu.shutdown()
    try:
        with pytest.raises(errors.SessionClosed):
            next(results)
        late = gu.map(square, [1, 2, 3])
        assert gu.is_initialized()
        assert list(late) == [1, 4, 9]
        gu.shutdown()
        endless = gu.map(square, itertools.count(), chunk=1)
        next(endless)
        gu.shutdown()
        with pytest.raises(errors.SessionClosed):
            list(endless)
        assert not gu.is_initialized(), "a map started a grid of its own"
    finally:
        gu.init(num_cpus=2, ignore_reinit_error=True)
