"""The actor kit from plain threads and from other loops than its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from guactors.actors import Actor, ActorRef, ActorSystem, Completed, Failed, Stopped
from guactors.errors import ActorDied, ActorKilled, CallTimeout, MailboxFull, UsageError
from tests.contract.on_loop import eventually_sync, on_loop


class Counter(Actor):
    def __init__(self) -> None:
        self.by_sender: dict[Any, list[Any]] = {}
        self.count = 0

    def receive(self, message: Any) -> Any:
        match message:
            case "count":
                return self.count
            case "senders":
                return self.by_sender
            case (sender, number):
                self.by_sender.setdefault(sender, []).append(number)
        self.count += 1
        return self.count


class Slow(Actor):
    async def receive(self, message: float) -> float:
        await asyncio.sleep(message)
        return message


@pytest.fixture
def system() -> Iterator[ActorSystem]:
    with ActorSystem.in_thread("own thread") as running:
        yield running


def test_spawn_tell_ask_and_end_from_a_plain_thread(system: ActorSystem) -> None:
    ref = system.spawn(Counter, name="counter")
    for _ in range(100):
        ref.tell("x")
    assert ref.ask_sync("count", timeout=5) == 100
    assert system.actor("counter") is ref
    assert system.run(system.stop(ref), timeout=5) == Stopped("ActorSystem.stop")
    with pytest.raises(ActorKilled):
        ref.ask_sync("count")


def test_each_threads_messages_stay_in_order_and_none_is_lost(system: ActorSystem) -> None:
    ref = system.spawn(Counter, mailbox_size=None)

    def send(sender: int) -> None:
        for number in range(2000):
            ref.tell((sender, number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    senders = ref.ask_sync("senders", timeout=10)
    assert senders == {sender: list(range(2000)) for sender in range(4)}


def test_the_bound_holds_between_threads(system: ActorSystem) -> None:
    ref = system.spawn(Slow, mailbox_size=5)
    ref.tell(60.0)
    eventually_sync(lambda: "running, 0 queued" in repr(ref))
    together = threading.Barrier(4)

    def send(_: int) -> int:
        together.wait(5)
        accepted = 0
        for _ in range(50):
            try:
                ref.tell(0.0)
            except MailboxFull:
                continue
            accepted += 1
        return accepted

    with ThreadPoolExecutor(4) as pool:
        accepted = sum(pool.map(send, range(4)))
    assert accepted == 5
    system.run(system.kill(ref))


def test_ask_sync_times_out_and_withdraws(system: ActorSystem) -> None:
    ref = system.spawn(Slow)
    ref.tell(0.1)
    began = time.monotonic()
    with pytest.raises(CallTimeout, match=r"within 0.02 s"):
        ref.ask_sync(60.0, timeout=0.02)
    assert ref.ask_sync(0.0, timeout=5) == 0.0
    assert time.monotonic() - began < 5


def test_errors_reach_the_thread_that_asked(system: ActorSystem) -> None:
    class Broken(Actor):
        def receive(self, message: Any) -> None:
            raise OSError("no such thing")

    ref = system.spawn(Broken)
    with pytest.raises(OSError, match="no such thing"):
        ref.ask_sync("x", timeout=5)
    assert isinstance(system.run(system.wait_dead(ref)), Failed)


def test_leaving_the_block_answers_whoever_still_waits() -> None:
    with ThreadPoolExecutor(1) as pool:
        with ActorSystem.in_thread("t") as system:
            ref = system.spawn(Slow)
            ref.tell(0.05)
            asking = pool.submit(ref.ask_sync, 60.0)
            eventually_sync(lambda: "1 queued" in repr(ref))
        with pytest.raises(ActorDied, match="system was shut down"):
            asking.result(5)
    with pytest.raises(ActorDied):
        ref.tell(0.0)


def test_an_error_in_the_block_still_ends_the_thread() -> None:
    def doomed() -> None:
        with ActorSystem.in_thread("doomed") as system:
            system.spawn(Counter)
            raise KeyError

    with pytest.raises(KeyError):
        doomed()
    assert not [t for t in threading.enumerate() if t.name == "actors doomed"]


@on_loop
async def test_blocking_the_loop_for_an_answer_is_refused() -> None:
    async with ActorSystem("t") as system:
        ref = system.spawn(Counter)
        with pytest.raises(UsageError, match=r"await ref\.ask"):
            ref.ask_sync("count")
        with pytest.raises(UsageError, match="use await"):
            system.run(system.stop(ref))
        assert await asyncio.to_thread(ref.ask_sync, "count") == 0


def test_another_loop_awaits_as_usual(system: ActorSystem) -> None:
    async def elsewhere(ref: ActorRef, narrow: ActorRef) -> None:
        assert await ref.ask("x", timeout=5) == 1
        with pytest.raises(CallTimeout):
            await narrow.ask(0.0, timeout=0.01)
        await narrow.tell_wait(0.0, timeout=5)
        with pytest.raises(CallTimeout):
            await narrow.tell_wait(0.0, timeout=0.01)
        assert await system.drain(ref) == Completed()
        await system.kill(narrow)
        with pytest.raises(ActorKilled):
            await narrow.ask(0.0)

    narrow = system.spawn(Slow, mailbox_size=1)
    narrow.tell(60.0)
    eventually_sync(lambda: "running, 0 queued" in repr(narrow))
    asyncio.run(elsewhere(system.spawn(Counter), narrow))


def test_a_system_that_was_never_started_says_so() -> None:
    with pytest.raises(UsageError, match="takes no new Counter: it is new"):
        ActorSystem("t").spawn(Counter)
