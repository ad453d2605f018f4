"""References that travel with code and with constructor arguments."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import guactors as gu
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


@gu.remote
def echo(value: Any) -> Any:
    return value


@gu.remote
def when(path: str, value: Any) -> Any:
    until(Path(path).exists)
    if isinstance(value, Exception):
        raise value
    return value


@gu.remote(max_restarts=1, max_task_retries=-1)
class Keeper:
    """Keeps what it was made with."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.given = given
        self.named = named

    def get(self) -> Any:
        return self.given

    def look(self) -> Any:
        return gu.get(list(self.given[0]), timeout=20)

    def look_deep(self) -> Any:
        return gu.get(gu.get(self.given[0][0], timeout=20)[0], timeout=20)

    def die(self, path: str) -> None:
        import os

        if not Path(path).exists():
            Path(path).touch()
            os._exit(3)


# --- code -----------------------------------------------------------------------------------------


def test_a_function_finds_the_values_it_captured_on_every_worker() -> None:
    refs = [gu.put({"one": 1}), gu.put(np.arange(1000)), echo.remote("made")]

    @gu.remote
    def look(seconds: float) -> tuple[int, int, str, str | None]:
        time.sleep(seconds)
        table, array, made = gu.get(refs, timeout=20)
        worker = gu.get_runtime_context().get_worker_id()
        return table["one"], int(array.sum()), made, worker

    results = gu.get([look.remote(0.3) for _ in range(4)], timeout=20)
    assert {result[:3] for result in results} == {(1, 999 * 500, "made")}
    assert len({result[3] for result in results}) >= 2
    # Where the function came from they may be gone.
    refs.clear()
    again = gu.get([look.options(num_cpus=0.5).remote(0) for _ in range(3)], timeout=20)
    assert {result[:3] for result in again} == {(1, 999 * 500, "made")}


def test_a_function_inside_a_function_finds_them_too() -> None:
    number = gu.put(20)

    @gu.remote
    def inner() -> int:
        return 2 * int(gu.get(number, timeout=20))

    @gu.remote
    def outer() -> int:
        return 2 + int(gu.get(inner.remote(), timeout=20))

    assert gu.get(outer.remote(), timeout=20) == 42


def test_what_code_captured_may_still_be_on_its_way(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    later = when.remote(str(gate), "later")

    @gu.remote
    def ask() -> str:
        return str(gu.get(later, timeout=20))

    answer = ask.remote()
    gate.touch()
    assert gu.get(answer, timeout=20) == "later"


def test_a_class_finds_the_values_it_captured() -> None:
    table = gu.put([1, 2])

    @gu.remote
    class Reader:
        total = sum(gu.get(table))

        def read(self) -> list[int]:
            return list(gu.get(table, timeout=20))

    assert gu.get(Reader.remote().read.remote(), timeout=20) == [1, 2]


# --- constructor arguments ------------------------------------------------------------------------


def test_references_inside_arguments_stay_references() -> None:
    keeper = Keeper.remote([gu.put(1), echo.remote(2)], direct=gu.put(3))
    given = gu.get(keeper.get.remote(), timeout=20)
    assert all(isinstance(ref, gu.ObjectRef) for ref in given[0])
    assert gu.get(given[0], timeout=20) == [1, 2]
    assert gu.get(keeper.look.remote(), timeout=20) == [1, 2]


def test_references_inside_their_values_are_found_too() -> None:
    deep = gu.put([gu.put("deep")])
    keeper = Keeper.remote([deep])
    del deep
    assert gu.get(keeper.look_deep.remote(), timeout=20) == "deep"


def test_a_restarted_actor_has_them_again(tmp_path: Path) -> None:
    keeper = Keeper.remote([gu.put("kept")])
    keeper.die.remote(str(tmp_path / "died"))
    assert gu.get(keeper.look.remote(), timeout=20) == ["kept"]
    assert (tmp_path / "died").exists()


def test_an_actor_is_made_when_its_arguments_are_there(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    keeper = Keeper.remote([when.remote(str(gate), "inside")])
    seen = keeper.look.remote()
    assert gu.wait([seen], timeout=0.1)[0] == []
    gate.touch()
    assert gu.get(seen, timeout=20) == ["inside"]


@pytest.mark.parametrize("name", [None, "made of an error"])
@pytest.mark.parametrize("pending", [True, False])
def test_an_argument_that_failed_is_what_calls_end_with(
    pending: bool, name: str | None, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    failing = when.remote(str(gate), ValueError("no value"))
    if name or not pending:
        gate.touch()
    if not pending:
        gu.wait([failing], timeout=20)
    keeper = Keeper.options(name=name).remote(failing)
    call = keeper.get.remote()
    gate.touch()
    with pytest.raises(ValueError, match="no value"):
        gu.get(call, timeout=20)
    with pytest.raises(ValueError, match="no value"):
        gu.get(keeper.get.remote(), timeout=20)


def test_an_error_inside_an_argument_is_the_actor_s_to_find(tmp_path: Path) -> None:
    (tmp_path / "gate").touch()
    failing = when.remote(str(tmp_path / "gate"), ValueError("inside"))
    keeper = Keeper.remote([failing])
    assert gu.get(keeper.get.remote(), timeout=20)
    with pytest.raises(ValueError, match="inside"):
        gu.get(keeper.look.remote(), timeout=20)


# --- results --------------------------------------------------------------------------------------


def test_a_generator_may_give_a_fixed_number_of_results() -> None:
    @gu.remote(num_returns=3)
    def count(items: int) -> Iterator[int]:
        yield from range(items)

    assert gu.get(count.remote(3), timeout=20) == [0, 1, 2]
    for wrong in (2, 4):
        with pytest.raises(ValueError, match="num_returns=3"):
            gu.get(count.remote(wrong), timeout=20)


def test_a_method_may_outlive_the_handle_it_was_taken_from() -> None:
    assert gu.get(Keeper.remote(1).get.options(name="late").remote(), timeout=20) == (1,)


def until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
