"""Options of actors on a real grid: concurrency groups, order, limits of what is pending."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors import exceptions
from guactors.refs import current_session
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


@gu.remote(concurrency_groups={"io": 2, "compute": 1})
class Groups:
    """Each method says how many calls of it ran at the same time at the most."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = 0
        self.most = 0
        self.gate = threading.Event()

    def _run(self) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.gate.wait(20)
        with self.lock:
            self.running -= 1

    @gu.method(concurrency_group="io")
    def read(self) -> str:
        self._run()
        return threading.current_thread().name

    @gu.method(concurrency_group="compute")
    def crunch(self) -> None:
        self._run()

    def open(self) -> None:
        self.gate.set()

    def wait_for(self, count: int) -> int:
        until(lambda: self.running >= count)
        return self.running

    def get_most(self) -> int:
        return self.most


def test_each_group_has_its_own_limit_and_does_not_hold_up_the_others() -> None:
    actor = Groups.remote()
    reads = [actor.read.remote() for _ in range(5)]
    assert gu.get(actor.wait_for.remote(2), timeout=20) == 2
    crunches = [actor.crunch.remote() for _ in range(3)]
    assert gu.get(actor.wait_for.remote(3), timeout=20) == 3
    # The default group still has its thread, and five calls of the others wait.
    gu.get(actor.open.remote(), timeout=20)
    gu.get([*reads, *crunches], timeout=20)
    assert gu.get(actor.get_most.remote(), timeout=20) == 3
    assert {name.rpartition("-")[0] for name in gu.get(reads)} == {"guactors-call-io"}


def test_a_call_may_name_another_group_than_its_method() -> None:
    actor = Groups.remote()
    first = actor.crunch.remote()
    gu.get(actor.wait_for.remote(1), timeout=20)
    second = actor.crunch.options(concurrency_group="io").remote()
    assert gu.get(actor.wait_for.remote(2), timeout=20) == 2
    gu.get(actor.open.remote(), timeout=20)
    gu.get([first, second], timeout=20)
    with pytest.raises(exceptions.UnknownOption, match="did you mean compute"):
        actor.crunch.options(concurrency_group="computing")


def test_calls_that_wait_in_a_group_can_be_cancelled() -> None:
    actor = Groups.remote()
    running = actor.crunch.remote()
    gu.get(actor.wait_for.remote(1), timeout=20)
    waiting = actor.crunch.remote()
    gu.cancel(waiting)
    with pytest.raises(exceptions.TaskCancelledError):
        gu.get(waiting, timeout=20)
    gu.get(actor.open.remote(), timeout=20)
    gu.get(running, timeout=20)
    assert gu.get(actor.get_most.remote(), timeout=20) == 1


def test_groups_of_an_async_actor() -> None:
    @gu.remote(concurrency_groups={"one": 1}, max_concurrency=2)
    class Async:
        def __init__(self) -> None:
            self.running = {"one": 0, "rest": 0}
            self.gate = asyncio.Event()
            self.full = asyncio.Event()

        async def _run(self, name: str) -> None:
            self.running[name] += 1
            if sum(self.running.values()) == 2:
                self.full.set()
            await self.gate.wait()

        @gu.method(concurrency_group="one")
        async def alone(self) -> None:
            await self._run("one")

        async def together(self) -> None:
            await self._run("rest")

        @gu.method(concurrency_group="one")
        async def alone_and_last(self) -> dict[str, int]:
            return self.running

        async def running_when_full(self) -> dict[str, int]:
            await self.full.wait()
            before = dict(self.running)
            self.gate.set()
            return before

    actor = Async.remote()
    calls = [actor.alone.remote() for _ in range(3)]
    calls += [actor.together.remote()]
    seen = actor.running_when_full.remote()
    calls += [actor.together.remote() for _ in range(3)]
    assert gu.get(seen, timeout=20) == {"one": 1, "rest": 1}
    gu.get(calls, timeout=20)
    assert gu.get(actor.alone_and_last.remote(), timeout=20) == {"one": 3, "rest": 4}


def test_a_handle_that_travelled_knows_the_groups() -> None:
    @gu.remote
    def crunch_as_io(handle: Any) -> str:
        return str(gu.get(handle.crunch.options(concurrency_group="io").remote()))

    actor = Groups.remote()
    gu.get(actor.open.remote(), timeout=20)
    assert gu.get(crunch_as_io.remote(actor), timeout=20) == "None"


@gu.remote
class Log:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def add(self, what: str) -> list[str]:
        self.seen.append(what)
        return list(self.seen)


@gu.remote
def when(path: str, value: str) -> str:
    until(Path(path).exists)
    return value


@pytest.mark.parametrize("unordered", [True, False])
def test_calls_overtake_one_that_waits_for_its_argument_only_where_allowed(
    unordered: bool, tmp_path: Path
) -> None:
    log = Log.options(allow_out_of_order_execution=unordered).remote()
    gate = tmp_path / "gate"
    slow = log.add.remote(when.remote(str(gate), "late"))
    quick = log.add.remote("quick")
    ready, _ = gu.wait([quick], timeout=20 if unordered else 0.2)
    assert bool(ready) is unordered
    gate.touch()
    order = ["quick", "late"] if unordered else ["late", "quick"]
    assert max(gu.get([slow, quick], timeout=20), key=len) == order


def test_a_threaded_actor_overtakes_without_being_asked(tmp_path: Path) -> None:
    log = Log.options(max_concurrency=2).remote()
    gate = tmp_path / "gate"
    slow = log.add.remote(when.remote(str(gate), "late"))
    assert gu.get(log.add.remote("quick"), timeout=20) == ["quick"]
    gate.touch()
    assert gu.get(slow, timeout=20) == ["quick", "late"]
    with pytest.raises(ValueError, match="allow_out_of_order_execution=False"):
        Log.options(max_concurrency=2, allow_out_of_order_execution=False).remote()


@gu.remote(max_concurrency=1, concurrency_groups={"side": 1})
class Register:
    """Notes in which order its calls run."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.seen: list[int] = []

    def hold(self) -> None:
        self.gate.wait(20)

    def note(self, what: int) -> None:
        self.seen.append(what)

    def all(self) -> list[int]:
        return self.seen

    @gu.method(concurrency_group="side")
    def begin(self) -> None:
        """It arrives behind all that was sent before."""
        self.gate.set()


def test_calls_queued_at_one_actor_run_by_their_exact_priorities() -> None:
    register = Register.remote()
    register.hold.remote()
    order = [0, 5, -5, 50, 5, 0, 49, -6]
    for priority in order:
        register.note.options(priority=priority).remote(priority)
    register.begin.remote()
    assert gu.get(register.all.options(priority=-7).remote(), timeout=20) == sorted(order)[::-1]


def test_a_handle_may_have_so_many_calls_pending() -> None:
    actor = Groups.options(max_pending_calls=3).remote()
    for _ in range(10):
        gu.get([actor.get_most.remote() for _ in range(3)], timeout=20)
    calls = [actor.crunch.remote() for _ in range(3)]
    with pytest.raises(exceptions.PendingCallsLimitExceeded, match="max_pending_calls=3"):
        actor.get_most.remote()
    gu.kill(actor)
    with pytest.raises(exceptions.RayActorError):
        gu.get(calls, timeout=20)


def test_a_method_s_own_errors_are_retried_where_it_says_so() -> None:
    class Odd(Exception):
        pass

    @gu.remote(max_task_retries=2)
    class Flaky:
        def __init__(self) -> None:
            self.tries = 0

        @gu.method(retry_exceptions=[Odd, OSError])
        def third_time(self) -> int:
            self.tries += 1
            if self.tries < 3:
                raise Odd if self.tries == 1 else ConnectionResetError
            return self.tries

        @gu.method(retry_exceptions=[OSError])
        def never(self) -> None:
            self.tries += 1
            raise Odd

        def get_tries(self) -> int:
            return self.tries

    flaky = Flaky.remote()
    assert gu.get(flaky.third_time.remote(), timeout=20) == 3
    with pytest.raises(exceptions.RayTaskError):
        gu.get(flaky.never.remote(), timeout=20)
    assert gu.get(flaky.get_tries.remote(), timeout=20) == 4


def test_records_of_calls_are_switched_off_where_asked() -> None:
    @gu.remote(enable_task_events=False)
    class Quiet:
        def silent(self) -> None: ...

        @gu.method(enable_task_events=True)
        def loud(self) -> None: ...

    @gu.remote
    def task() -> None: ...

    session = current_session()
    assert session is not None
    quiet, log = Quiet.remote(), Log.remote()
    for method, recorded in [
        (quiet.silent, False),
        (quiet.loud, True),
        (quiet.loud.options(enable_task_events=False), False),
        (task, True),
        (task.options(enable_task_events=False), False),
    ]:
        ref = method.remote()
        made = session.core.objects.entries[ref.id].task
        assert made is None or made.events is recorded
        gu.get(ref, timeout=20)
    assert gu.get(log.add.remote("x"), timeout=20) == ["x"]


def until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)
