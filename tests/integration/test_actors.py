"""Remote classes on a real embedded grid: sync, threaded, async; names, restarts, deaths, order."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors import errors
from guactors.config import Identity
from guactors.refs import current_session
from guactors.transport import open_transport
from guactors.transport.base import Lane
from tests import leaks
from tests.command import ended, eventually

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


@gu.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, n: int = 1) -> int:
        self.value += n
        return self.value

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise ZeroDivisionError("on purpose")

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def nap(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def count(self, n: int) -> Iterator[int]:
        yield from range(n)


def test_state_is_kept_and_calls_run_in_order() -> None:
    counter = Counter.remote(10)
    assert gu.get([counter.add.remote() for _ in range(100)]) == list(range(11, 111))


def test_arguments_may_be_references_and_order_holds_while_they_are_pending() -> None:
    @gu.remote
    def late() -> int:
        time.sleep(0.2)
        return 100

    counter = Counter.remote()
    first = counter.add.remote(late.remote())
    second = counter.add.remote(1)
    assert gu.get([first, second]) == [100, 101]


def test_constructor_arguments_may_be_pending_references() -> None:
    @gu.remote
    def late() -> int:
        time.sleep(0.1)
        return 7

    assert gu.get(Counter.remote(late.remote()).add.remote(), timeout=20) == 8


def test_an_error_leaves_the_actor_alive() -> None:
    counter = Counter.remote()
    with pytest.raises(ZeroDivisionError, match="on purpose"):
        gu.get(counter.fail.remote())
    assert gu.get(counter.add.remote()) == 1


def test_a_failing_constructor_fails_every_call_with_its_error() -> None:
    @gu.remote
    class Broken:
        def __init__(self) -> None:
            raise LookupError("no such thing")

        def m(self) -> None: ...

    actor = Broken.remote()
    for _ in range(2):
        with pytest.raises(LookupError, match="no such thing"):
            gu.get(actor.m.remote(), timeout=20)


def test_kill_fails_calls_with_the_cause() -> None:
    counter = Counter.remote()
    gu.get(counter.add.remote())
    running = counter.nap.remote(60)
    gu.kill(counter)
    with pytest.raises(errors.ActorKilled):
        gu.get(running, timeout=20)
    with pytest.raises(errors.ActorDied):
        gu.get(counter.add.remote(), timeout=20)


def test_a_crash_without_restarts_is_the_end() -> None:
    counter = Counter.remote()
    with pytest.raises(errors.ActorDied) as caught:
        gu.get(counter.die.remote(), timeout=20)
    assert caught.value.death is not None and caught.value.death.signal == signal.SIGKILL


def test_restarts_run_the_constructor_again() -> None:
    counter = Counter.options(max_restarts=1).remote(5)
    assert gu.get(counter.add.remote()) == 6
    with pytest.raises(errors.PeerLost):
        gu.get(counter.die.remote(), timeout=20)
    assert gu.get(counter.add.remote(), timeout=20) == 6
    with pytest.raises(errors.PeerLost):
        gu.get(counter.die.remote(), timeout=20)
    with pytest.raises(errors.ActorDied):
        gu.get(counter.add.remote(), timeout=20)


def test_lost_calls_are_repeated_where_asked(tmp_path: Path) -> None:
    @gu.remote(max_restarts=1, max_task_retries=1)
    class Once:
        def die_once(self, path: str) -> str:
            if not Path(path).exists():
                Path(path).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return "alive"

    actor = Once.remote()
    assert gu.get(actor.die_once.remote(str(tmp_path / "x")), timeout=20) == "alive"


def test_threads_run_calls_at_the_same_time() -> None:
    @gu.remote(max_concurrency=4)
    class Meeting:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(4)

        def join(self) -> int:
            return self.barrier.wait(20)

    meeting = Meeting.remote()
    assert sorted(gu.get([meeting.join.remote() for _ in range(4)], timeout=30)) == [0, 1, 2, 3]


@gu.remote
class Async:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self) -> str:
        await self.event.wait()
        return "awake"

    async def set(self) -> None:
        self.event.set()

    async def clear(self) -> None:
        self.event.clear()

    async def forever(self) -> None:
        await asyncio.sleep(3600)

    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    async def fail(self) -> None:
        raise OSError("async")

    def plain(self) -> str:
        return "plain"


def test_coroutines_overlap() -> None:
    actor = Async.remote()
    waiting = [actor.wait.remote() for _ in range(20)]
    gu.get(actor.set.remote(), timeout=20)
    assert gu.get(waiting, timeout=20) == ["awake"] * 20
    assert gu.get(actor.plain.remote(), timeout=20) == "plain"
    with pytest.raises(OSError, match="async"):
        gu.get(actor.fail.remote(), timeout=20)


def test_what_came_behind_a_waiting_coroutine_is_seen() -> None:
    actor = Async.remote()
    gu.get(actor.plain.remote(), timeout=20)
    for count in (0, 1, 40, 600):  # in its frame, in the next one, in many
        waiting = [actor.wait.remote()]
        others = [actor.plain.remote() for _ in range(count)]
        gu.get(actor.set.remote(), timeout=20)
        assert gu.get(waiting + others, timeout=20) == ["awake"] + ["plain"] * count
        gu.get(actor.clear.remote(), timeout=20)


def test_async_calls_are_cancelled_and_timed_out() -> None:
    actor = Async.remote()
    gu.get(actor.plain.remote())
    ref = actor.forever.remote()
    with pytest.raises(errors.GetTimeout):
        gu.get(ref, timeout=0.1)
    gu.cancel(ref)
    with pytest.raises(errors.TaskCancelled):
        gu.get(ref, timeout=20)
    with pytest.raises(errors.CallTimeout):
        gu.get(actor.forever.options(timeout=0.1).remote(), timeout=20)
    assert gu.get(actor.plain.remote(), timeout=20) == "plain"


def test_streams_of_actors() -> None:
    assert [gu.get(r) for r in Counter.remote().count.remote(4)] == [0, 1, 2, 3]
    assert [gu.get(r) for r in Async.remote().count.remote(4)] == [0, 1, 2, 3]


def test_a_method_keeps_its_actor() -> None:
    pid = Counter.remote().pid
    number = gu.get(pid.remote())
    threading.Event().wait(0.3)  # in which an actor that nobody holds would end
    assert gu.get(pid.options(name="again").remote()) == number
    del pid
    eventually(lambda: ended(number), "the last method is gone, and the actor with it")


def test_a_timed_out_call_that_waits_in_the_queue_never_runs() -> None:
    counter = Counter.remote()
    busy = counter.nap.remote(0.5)
    late = counter.add.options(timeout=0.1).remote(1000)
    with pytest.raises(errors.CallTimeout):
        gu.get(late, timeout=20)
    gu.get(busy)
    assert gu.get(counter.add.remote()) == 1


def test_names() -> None:
    counter = Counter.options(name="the-counter").remote(3)
    assert gu.get(gu.get_actor("the-counter").add.remote()) == 4
    with pytest.raises(errors.NameTaken, match="the-counter"):
        Counter.options(name="the-counter").remote()
    same = Counter.options(name="the-counter", get_if_exists=True).remote()
    assert gu.get(same.add.remote()) == 5
    with pytest.raises(ValueError, match="nobody"):
        gu.get_actor("nobody")
    gu.kill(counter)
    with pytest.raises(errors.ActorDied):
        gu.get(counter.add.remote(), timeout=20)
    again = Counter.options(name="the-counter").remote()
    assert gu.get(again.add.remote(), timeout=20) == 1


def test_handles_travel_to_tasks_and_other_actors() -> None:
    counter = Counter.remote()

    @gu.remote
    def bump(handle: Any, n: int) -> int:
        return int(gu.get(handle.add.remote(n)))

    gu.get([bump.remote(counter, 1) for _ in range(5)], timeout=40)
    assert gu.get(counter.add.remote(0)) == 5


def test_the_last_handle_ends_the_actor_after_its_calls() -> None:
    counter = Counter.remote()
    pid = gu.get(counter.pid.remote())
    last = counter.add.remote(5)
    del counter
    assert gu.get(last) == 5
    until(lambda: not alive(pid))


def test_nested_actor_calls() -> None:
    @gu.remote
    class Outer:
        def __init__(self) -> None:
            self.inner = Counter.remote(100)

        def add(self) -> int:
            return int(gu.get(self.inner.add.remote()))

    outer = Outer.remote()
    assert gu.get([outer.add.remote() for _ in range(3)], timeout=30) == [101, 102, 103]


def test_a_sync_call_that_is_cancelled_sees_the_flag() -> None:
    @gu.remote(max_concurrency=2)
    class Patient:
        def __init__(self) -> None:
            self.started = threading.Event()

        def work(self) -> str:
            self.started.set()
            until(gu.get_runtime_context().is_canceled)
            return "saw it"

        def has_started(self) -> bool:
            return self.started.wait(20)

    actor = Patient.remote()
    ref = actor.work.remote()
    assert gu.get(actor.has_started.remote(), timeout=20)
    gu.cancel(ref)
    assert gu.get(ref, timeout=20) == "saw it"
    with pytest.raises(errors.UsageError):
        gu.cancel(actor.work.remote(), force=True)


def test_unknown_methods_and_direct_calls_are_refused() -> None:
    counter = Counter.remote()
    with pytest.raises(AttributeError, match="no method 'nothing'"):
        counter.nothing.remote()
    with pytest.raises(TypeError):
        counter.add(1)
    with pytest.raises(TypeError):
        Counter(1)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        threading.Event().wait(0.01)


def test_garbage_on_a_worker_s_own_sockets_is_answered_a_few_times_and_harms_nobody() -> None:
    counter = Counter.remote()
    gu.get(counter.add.remote())
    session = current_session()
    assert session is not None
    target = session.core.actors.actors[counter._actor.id].target
    assert target is not None
    transport = open_transport(Identity())
    link = transport.dial(target.endpoints[0])
    try:
        for i in range(60):
            for lane in Lane:
                link.send(lane, [bytes([i % 7]) + os.urandom(i)])
        faults = 0
        assert gu.get([counter.add.remote() for _ in range(100)], timeout=20)[-1] == 101

        def answered() -> bool:
            nonlocal faults
            while link.receive() is not None:
                faults += 1
            return faults >= 16

        until(answered)
        assert gu.get(counter.add.remote(), timeout=20) == 102
        answered()
        assert faults == 16
    finally:
        transport.close()
