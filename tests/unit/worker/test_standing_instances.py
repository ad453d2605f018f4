"""Instances whose worker stands still: who asks them for something waits, and is not refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from guactors.errors import InstanceLost, RuntimeMissing, UsageError
from guactors.messages import Limits
from guactors.runtimes import instance as instances
from guactors.runtimes import program
from guactors.runtimes.base import Command
from guactors.runtimes.instance import Instance
from guactors.runtimes.life import State
from guactors.runtimes.program import private_instance
from tests.unit.worker.test_deployment import WHERE, FakeDriver, FakeRuntime

WITHIN = 10.0
SHORTLY = 0.05
"""For what must not happen."""
RUN = Command(("/bin/x",))

Ask = Callable[..., Future[Any]]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Does something on a thread of its own."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit
        program.resume_all()


@pytest.fixture
def made(ask: Ask) -> Iterator[tuple[Instance, FakeDriver]]:
    runtime = FakeRuntime()
    with private_instance(runtime, WHERE, Limits()) as instance:  # type: ignore[arg-type]
        yield instance, runtime.drivers[0]


def waits(asked: Future[Any]) -> bool:
    with pytest.raises(TimeoutError):
        asked.result(SHORTLY)
    return True


@pytest.mark.parametrize(
    "deed",
    [
        lambda it: it.exec(RUN), lambda it: it.put("/a", [b"x"]), lambda it: list(it.get("/a")),
        Instance.pause, Instance.resume,
    ],
)  # fmt: skip
def test_what_is_asked_meanwhile_is_done_later(
    made: tuple[Instance, FakeDriver], ask: Ask, deed: Callable[[Instance], object]
) -> None:
    instance, driver = made
    driver.files["/a"] = b"x"
    program.pause_all()
    assert instance.state is State.PAUSED
    asked = ask(deed, instance)
    assert waits(asked)
    program.resume_all()
    asked.result(WITHIN)
    assert driver.done[:3] == ["start", "pause", "resume"]


def test_a_new_one_begins_when_its_worker_goes_on(ask: Ask) -> None:
    runtime = FakeRuntime()

    def run() -> State:
        with private_instance(runtime, WHERE, Limits()) as instance:  # type: ignore[arg-type]
            instance.exec(RUN)
            return instance.state

    program.pause_all()
    asked = ask(run)
    assert waits(asked)
    assert not runtime.drivers
    program.resume_all()
    assert asked.result(WITHIN) is State.RUNNING


def test_one_that_is_just_starting_stands_still_before_it_runs_anything(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, starting, go = FakeRuntime(), threading.Event(), threading.Event()

    def start(driver: FakeDriver) -> None:
        starting.set()
        assert go.wait(WITHIN)

    monkeypatch.setattr(FakeDriver, "start", start)

    def run() -> None:
        with private_instance(runtime, WHERE, Limits()) as instance:  # type: ignore[arg-type]
            instance.exec(RUN)

    asked = ask(run)
    assert starting.wait(WITHIN)
    program.pause_all()
    go.set()
    assert waits(asked)
    (driver,) = runtime.drivers
    assert driver.done == ["pause"] and not driver.processes
    program.resume_all()
    asked.result(WITHIN)
    assert driver.processes


def test_it_stands_still_after_a_program_has_been_started_not_amid(
    made: tuple[Instance, FakeDriver], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, driver = made
    starting, go, really = threading.Event(), threading.Event(), driver.exec

    def slowly(command: Command) -> Any:
        starting.set()
        assert go.wait(WITHIN)
        driver.done.append("exec")
        return really(command)

    monkeypatch.setattr(driver, "exec", slowly)
    started = ask(instance.exec, RUN)
    assert starting.wait(WITHIN)
    halted = ask(program.pause_all)
    assert waits(halted)
    go.set()
    halted.result(WITHIN)
    started.result(WITHIN)
    assert driver.done == ["start", "exec", "pause"]


def test_a_program_whose_start_hangs_is_told_of(
    made: tuple[Instance, FakeDriver], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, driver = made
    starting, go, really = threading.Event(), threading.Event(), driver.exec

    def slowly(command: Command) -> Any:
        starting.set()
        assert go.wait(WITHIN)
        return really(command)

    monkeypatch.setattr(instances, "MOVE_WITHIN", SHORTLY)
    monkeypatch.setattr(driver, "exec", slowly)
    started = ask(instance.exec, RUN)
    assert starting.wait(WITHIN)
    with pytest.raises(instances.Refused, match="is being done"):
        program.pause_all()
    go.set()
    program.resume_all()
    started.result(WITHIN)
    assert driver.done == ["start"] and instance.state is State.RUNNING


def test_one_that_its_owner_paused_stays_so(made: tuple[Instance, FakeDriver]) -> None:
    instance, driver = made
    instance.pause()
    program.pause_all()
    program.resume_all()
    assert instance.state is State.PAUSED and driver.done == ["start", "pause"]
    with pytest.raises(UsageError, match="is paused"):
        instance.exec(RUN)


def test_who_waits_is_told_of_its_end(made: tuple[Instance, FakeDriver], ask: Ask) -> None:
    instance, _ = made
    program.pause_all()
    asked = ask(instance.exec, RUN)
    assert waits(asked)
    instance.close()
    with pytest.raises(InstanceLost):
        asked.result(WITHIN)


def test_what_is_left_of_a_lost_one_ends(made: tuple[Instance, FakeDriver]) -> None:
    instance, driver = made
    instance.lost("its daemon is dead")
    program.pause_all()
    program.resume_all()
    assert driver.done == ["start", "close"]


@pytest.mark.parametrize("error", [RuntimeMissing, InstanceLost])
def test_one_that_was_not_paused_in_time_is_made_to_go_on(
    made: tuple[Instance, FakeDriver],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
) -> None:
    """The daemon may do later what it did not answer in time; and it may come back."""
    instance, driver = made

    def fails() -> None:
        raise error("the daemon does not answer")

    monkeypatch.setattr(driver, "pause", fails)
    with pytest.raises(error):
        program.pause_all()
    program.resume_all()
    assert driver.done == ["start", "resume"] and instance.state is State.RUNNING
    monkeypatch.setattr(driver, "resume", fails)
    with pytest.raises(error):
        program.pause_all()
    program.resume_all()
    instance.exec(RUN)
