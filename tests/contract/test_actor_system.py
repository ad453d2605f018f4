"""The actor kit on a real loop: messages, priorities, back-pressure, ends, and who is told."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import pytest

from guactors.actors import (
    Actor,
    ActorRef,
    ActorSystem,
    Completed,
    Killed,
    Priority,
    StartFailed,
    Stopped,
    SystemShutdown,
    Terminated,
)
from guactors.errors import (
    ActorDied,
    ActorKilled,
    CallTimeout,
    MailboxFull,
    NameTaken,
    NotSerializable,
    TaskCancelled,
    UsageError,
)
from tests.contract.on_loop import eventually, on_loop, until


class Recorder(Actor):
    """Keeps what it is sent; ``"all"`` asks for it."""

    def __init__(self) -> None:
        self.got: list[Any] = []

    def receive(self, message: Any) -> Any:
        if message == "all":
            return list(self.got)
        self.got.append(message)
        return len(self.got)


class Gate(Actor):
    """Handles one message at a time, each after the event in it is set."""

    def __init__(self, journal: list[str] | None = None) -> None:
        self.journal = journal if journal is not None else []

    async def receive(self, message: Any) -> Any:
        if isinstance(message, asyncio.Event):
            self.journal.append("in")
            await message.wait()
            self.journal.append("out")
        else:
            self.journal.append(str(message))
        return message

    def on_stop(self, cause: object) -> None:
        self.journal.append(f"stop {type(cause).__name__}")


class Careless(Actor):
    expected_errors = (LookupError,)

    def receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        return message


# --- messages ------------------------------------------------------------------------------------


@on_loop
async def test_ask_returns_what_receive_returns_plain_or_async() -> None:
    async with ActorSystem("t") as system:
        assert await system.spawn(Recorder).ask("x") == 1
        assert await system.spawn(Gate).ask("x") == "x"


@on_loop
async def test_messages_of_one_priority_arrive_in_order_and_urgent_ones_first() -> None:
    async with ActorSystem("t") as system:
        ref = system.spawn(Recorder)
        for n in range(5):
            ref.tell(f"low {n}", priority=Priority.LOW)
            ref.tell(f"normal {n}")
        ref.tell("high", priority=Priority.HIGH)
        system.control(ref, "control")
        expected = ["control", "high", *[f"normal {n}" for n in range(5)]]
        assert await ref.ask("all") == expected
        await system.drain(ref)


@on_loop
async def test_users_cannot_send_at_system() -> None:
    async with ActorSystem("t") as system:
        ref = system.spawn(Recorder)
        with pytest.raises(UsageError, match="reserved"):
            ref.tell(1, priority=Priority.SYSTEM)
        with pytest.raises(UsageError, match="reserved"):
            await ref.ask(1, priority=Priority.SYSTEM)
        assert await ref.ask("all") == []


@on_loop
async def test_one_message_at_a_time_while_others_run() -> None:
    async with ActorSystem("t") as system:
        journal: list[str] = []
        gate, other = system.spawn(Gate, journal), system.spawn(Recorder)
        event = asyncio.Event()
        first = asyncio.create_task(gate.ask(event))
        await eventually(lambda: journal == ["in"])
        gate.tell("second")
        assert await other.ask("x") == 1
        assert journal == ["in"]
        event.set()
        await first
        await system.drain(gate)
        assert journal == ["in", "out", "second", "stop Completed"]


@on_loop
async def test_a_flood_does_not_keep_others_or_the_loop_waiting() -> None:
    class Endless(Actor):
        def receive(self, message: Any) -> None:
            self.context.self_ref.tell(message)

    class EndlessAsync(Actor):
        async def receive(self, message: Any) -> None:
            self.context.self_ref.tell(message)

    async with ActorSystem("t") as system:
        for kind in (Endless, EndlessAsync):
            busy, other = system.spawn(kind), system.spawn(Recorder)
            busy.tell("go")
            assert await other.ask("x", timeout=5) == 1
            assert await system.stop(busy) == Stopped("ActorSystem.stop")


@on_loop
async def test_the_sender_is_seen_where_it_is_told() -> None:
    class Echo(Actor):
        def receive(self, message: Any) -> None:
            sender = self.context.sender
            assert sender is not None
            sender.tell(("echo", message))

    async with ActorSystem("t") as system:
        recorder, echo = system.spawn(Recorder), system.spawn(Echo)
        echo.tell("hello", sender=recorder)
        await system.drain(echo)
        assert await recorder.ask("all") == [("echo", "hello")]


@on_loop
async def test_scheduled_messages_come_unless_cancelled() -> None:
    class Clockwork(Recorder):
        def on_start(self) -> None:
            self.context.schedule(0.02, "later")
            self.context.schedule(0.0, "sooner")
            self.context.schedule(0.01, "never").cancel()

    async with ActorSystem("t") as system:
        ref = system.spawn(Clockwork)
        got = await until(lambda: ref.ask("all"), lambda got: len(got) == 2)
        assert got == ["sooner", "later"]


# --- errors and time-outs ------------------------------------------------------------------------


@on_loop
async def test_an_exception_answers_the_ask_and_ends_the_actor() -> None:
    async with ActorSystem("t") as system:
        ref = system.spawn(Careless)
        with pytest.raises(ZeroDivisionError):
            await ref.ask(ZeroDivisionError("x"))
        cause = await system.wait_dead(ref)
        assert repr(cause) == "Failed(error=ZeroDivisionError('x'))"


@on_loop
async def test_expected_errors_are_answers_only() -> None:
    async with ActorSystem("t") as system:
        ref = system.spawn(Careless)
        with pytest.raises(KeyError):
            await ref.ask(KeyError("x"))
        assert await ref.ask("still here") == "still here"
        assert system.statistics().actors[0].failures == 0


@on_loop
async def test_an_actors_own_timeout_error_is_not_taken_for_ours() -> None:
    async with ActorSystem("t") as system:
        with pytest.raises(TimeoutError) as caught:
            await system.spawn(Careless).ask(TimeoutError("its own"), timeout=5)
        assert not isinstance(caught.value, CallTimeout)


@pytest.mark.parametrize("error", [StopIteration("x"), asyncio.CancelledError()], ids=repr)
@on_loop
async def test_errors_that_a_future_would_misread_still_answer(error: BaseException) -> None:
    async with ActorSystem("t") as system:
        with pytest.raises((RuntimeError, ActorDied, TaskCancelled)):
            await system.spawn(Careless).ask(error, timeout=5)


@on_loop
async def test_awaiting_something_cancelled_is_a_failure_like_any_other() -> None:
    class Unlucky(Actor):
        async def receive(self, message: Any) -> None:
            cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled

    async with ActorSystem("t") as system:
        ref = system.spawn(Unlucky)
        with pytest.raises(TaskCancelled, match="unlucky-1 awaited something"):
            await ref.ask("x")
        assert type(await system.wait_dead(ref)).__name__ == "Failed"


@on_loop
async def test_a_late_answer_raises_and_a_queued_question_is_withdrawn() -> None:
    async with ActorSystem("t") as system:
        journal: list[str] = []
        gate, event = system.spawn(Gate, journal), asyncio.Event()
        gate.tell(event)
        with pytest.raises(CallTimeout, match=r"'gate-1' of system 't' .* within 0.01 s"):
            await gate.ask("queued", timeout=0.01)
        event.set()
        await system.drain(gate)
        assert "queued" not in journal


@on_loop
async def test_an_actor_that_asks_itself_is_told_so() -> None:
    class Narcissus(Actor):
        async def receive(self, message: Any) -> Any:
            return await self.context.self_ref.ask(message)

    async with ActorSystem("t") as system:
        with pytest.raises(UsageError, match="asks itself"):
            await system.spawn(Narcissus).ask("x")


@on_loop
async def test_async_methods_run_in_a_task_of_the_actors_own() -> None:
    class Introspective(Actor):
        async def receive(self, message: Any) -> Any:
            async with asyncio.timeout(5):
                await asyncio.sleep(0)
            return asyncio.current_task()

    async with ActorSystem("t") as system:
        ref = system.spawn(Introspective)
        tasks = {await ref.ask("x") for _ in range(10)}
        assert len(tasks) == 1
        assert tasks.pop().get_name() == "actor introspective-1 of t"


# --- back-pressure -------------------------------------------------------------------------------


@on_loop
async def test_a_full_mailbox_refuses_tells_and_makes_the_others_wait() -> None:
    async with ActorSystem("t") as system:
        journal: list[str] = []
        gate, event = system.spawn(Gate, journal, mailbox_size=2), asyncio.Event()
        gate.tell(event)
        await eventually(lambda: journal == ["in"])
        gate.tell("a")
        gate.tell("b")
        with pytest.raises(MailboxFull):
            gate.tell("refused")
        with pytest.raises(CallTimeout):
            await gate.tell_wait("gave up", timeout=0.01)
        waiting = asyncio.create_task(gate.tell_wait("c"))
        asking = asyncio.create_task(gate.ask("d"))
        await eventually(lambda: system.statistics().actors[0].parked == 2)
        with pytest.raises(MailboxFull):
            gate.tell("no barging in")
        event.set()
        await waiting
        assert await asking == "d"
        assert journal == ["in", "out", "a", "b", "c", "d"]


@on_loop
async def test_system_messages_pass_a_full_mailbox() -> None:
    async with ActorSystem("t") as system:
        gate, event = system.spawn(Gate, mailbox_size=1), asyncio.Event()
        gate.tell(event)
        parked = asyncio.create_task(gate.tell_wait("x"))
        await asyncio.sleep(0)
        more = asyncio.create_task(gate.tell_wait("y"))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(system.stop(gate))
        await asyncio.sleep(0)
        event.set()
        assert await stopping == Stopped("ActorSystem.stop")
        results = await asyncio.gather(parked, more, return_exceptions=True)
        assert any(isinstance(result, ActorKilled) for result in results)


# --- ends ----------------------------------------------------------------------------------------


@on_loop
async def test_stop_ends_after_the_current_message_and_answers_the_queue() -> None:
    async with ActorSystem("t") as system:
        journal: list[str] = []
        gate, event = system.spawn(Gate, journal), asyncio.Event()
        current = asyncio.create_task(gate.ask(event))
        await eventually(lambda: journal == ["in"])
        queued = asyncio.create_task(gate.ask("queued"))
        await asyncio.sleep(0)
        gate.tell("lost")
        stopping = asyncio.create_task(system.stop(gate))
        await asyncio.sleep(0)
        event.set()
        assert await stopping == Stopped("ActorSystem.stop")
        assert await current is event
        with pytest.raises(ActorKilled, match=r"stopped by ActorSystem.stop"):
            await queued
        assert journal == ["in", "out", "stop Stopped"]
        assert system.statistics().dead_letters == 1
        with pytest.raises(ActorKilled, match="'gate-1' of system 't'"):
            gate.tell("too late")


@on_loop
async def test_drain_handles_all_that_is_queued_and_takes_nothing_new() -> None:
    async with ActorSystem("t") as system:
        ref = system.spawn(Recorder)
        asks = [asyncio.create_task(ref.ask(n)) for n in range(500)]
        await asyncio.sleep(0)
        draining = asyncio.create_task(system.drain(ref))
        await asyncio.sleep(0)
        with pytest.raises(ActorDied, match="drained"):
            ref.tell("new")
        assert await draining == Completed()
        assert await asyncio.gather(*asks) == list(range(1, 501))


@on_loop
async def test_kill_cancels_what_runs_and_calls_no_hook() -> None:
    async with ActorSystem("t") as system:
        journal: list[str] = []
        gate = system.spawn(Gate, journal)
        current = asyncio.create_task(gate.ask(asyncio.Event()))
        await eventually(lambda: journal == ["in"])
        assert await system.kill(gate) == Killed("ActorSystem.kill")
        with pytest.raises(ActorKilled):
            await current
        assert journal == ["in"]


@on_loop
async def test_an_actor_ends_itself() -> None:
    class Once(Actor):
        def receive(self, message: Any) -> Any:
            self.context.stop()
            return message

    async with ActorSystem("t") as system:
        ref = system.spawn(Once)
        assert await ref.ask("x") == "x"
        assert await system.wait_dead(ref) == Completed()


@pytest.mark.parametrize("where", ["__init__", "on_start", "async on_start"])
@on_loop
async def test_a_failed_start_is_told_to_all_who_wait(where: str) -> None:
    class Stillborn(Actor):
        def __init__(self) -> None:
            if where == "__init__":
                raise ValueError("no")

        def on_start(self) -> Any:
            if where == "async on_start":
                return self.start_slowly()
            raise ValueError("no")

        async def start_slowly(self) -> None:
            await asyncio.sleep(0)
            raise ValueError("no")

        def receive(self, message: Any) -> None:
            raise AssertionError("never started")

    async with ActorSystem("t") as system:
        ref = system.spawn(Stillborn)
        with pytest.raises(ActorDied, match="failed to start with ValueError") as caught:
            await ref.ask("x")
        assert caught.value.death is not None
        assert caught.value.death.cause == "creation_failed"
        assert type(await system.wait_dead(ref)) is StartFailed


@on_loop
async def test_shutdown_ends_all_and_kills_what_does_not_stop() -> None:
    journal: list[str] = []
    system = ActorSystem("t")
    async with system:
        gate, stuck = system.spawn(Gate, journal), system.spawn(Gate)
        hopeless = asyncio.create_task(stuck.ask(asyncio.Event()))
        assert await gate.ask("x") == "x"
        await system.shutdown(timeout=0.05)
        with pytest.raises(ActorKilled, match="shutdown"):
            await hopeless
        assert await system.wait_dead(gate) == SystemShutdown()
        assert journal == ["x", "stop SystemShutdown"]
        with pytest.raises(UsageError, match="shut down"):
            system.spawn(Gate)
        with pytest.raises(ActorDied, match="shut down"):
            gate.tell("x")
    assert system.actors() == ()


@on_loop
async def test_an_actor_that_swallows_its_cancellation_cannot_stop_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = asyncio.Event()

    class Stubborn(Actor):
        async def receive(self, message: Any) -> str:
            while not release.is_set():
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    asyncio.get_running_loop().call_later(1.2, release.set)
                    await release.wait()
            return "unheard"

    async with ActorSystem("t") as system:
        ref = system.spawn(Stubborn)
        asking = asyncio.create_task(ref.ask("x"))
        await asyncio.sleep(0.01)
        await system.shutdown(timeout=0.01)
        with pytest.raises(ActorKilled):
            await asking
    assert "swallows its cancellation" in caplog.text
    await release.wait()
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


@on_loop
async def test_waiting_for_ones_own_end_is_refused() -> None:
    class Ouroboros(Actor):
        async def receive(self, message: Any) -> None:
            await getattr(self.context.system, message)(*self.arguments(message))

        def arguments(self, message: str) -> tuple[ActorRef, ...]:
            return () if message == "shutdown" else (self.context.self_ref,)

    async with ActorSystem("t") as system:
        for verb in ("stop", "drain", "shutdown", "wait_dead"):
            with pytest.raises(UsageError, match=r"itself|current message"):
                await system.spawn(Ouroboros).ask(verb, timeout=5)


# --- names, watching, looking --------------------------------------------------------------------


@on_loop
async def test_names_are_unique_among_the_living_and_found() -> None:
    async with ActorSystem("t") as system:
        ref = system.spawn(Recorder, name="bob")
        assert system.actor("bob") is ref
        with pytest.raises(NameTaken, match="has an actor 'bob'"):
            system.spawn(Recorder, name="bob")
        with pytest.raises(UsageError, match="did you mean 'bob'"):
            system.actor("bo")
        await system.stop(ref)
        assert system.spawn(Recorder, name="bob") is not ref
        for name in ("", "a/b", "x" * 200):
            with pytest.raises(UsageError, match="1 to 128 characters"):
                system.spawn(Recorder, name=name)
        with pytest.raises(UsageError, match="subclass of Actor"):
            system.spawn(Recorder())  # type: ignore[arg-type]


class Watcher(Recorder):
    def receive(self, message: Any) -> Any:
        if isinstance(message, ActorRef):
            self.context.watch(message)
            return None
        return super().receive(message)


@on_loop
async def test_watchers_are_told_once_with_the_cause_even_of_the_long_dead() -> None:
    async with ActorSystem("t") as system:
        watcher, ref = system.spawn(Watcher), system.spawn(Recorder)
        await watcher.ask(ref)
        await watcher.ask(ref)
        await system.stop(ref)
        assert await watcher.ask("all") == [Terminated(ref, Stopped("ActorSystem.stop"))]
        await watcher.ask(ref)
        await until(lambda: watcher.ask("all"), lambda got: len(got) == 2)


@on_loop
async def test_statistics_and_reprs_say_what_is_going_on() -> None:
    async with ActorSystem("demo") as system:
        ref = system.spawn(Recorder, name="worker")
        ref.tell(1)
        ref.tell(2, priority=Priority.LOW)
        assert repr(ref) == "<ActorRef 'worker' of 'demo', starting, 2 queued>"
        assert repr(system) == "<ActorSystem 'demo' running, 1 actors, 2 queued, 0 dead letters>"
        await ref.ask("all", priority=Priority.LOW)
        (look,) = system.statistics().actors
        assert (look.name, look.state, look.processed) == ("worker", "running", 3)
        assert look.mailbox.accepted == 3
        await system.kill(ref)
        assert repr(ref) == "<ActorRef 'worker' of 'demo', dead: killed by ActorSystem.kill>"
        assert system.statistics().processed == 3


@on_loop
async def test_local_refs_do_not_pickle() -> None:
    async with ActorSystem("t") as system:
        with pytest.raises(NotSerializable, match="remote"):
            pickle.dumps(system.spawn(Recorder))


@on_loop
async def test_an_idle_actor_costs_no_wake_ups() -> None:
    async with ActorSystem("t") as system:
        refs = [system.spawn(kind) for kind in (Recorder, Gate) for _ in range(100)]
        await asyncio.gather(*(ref.ask("x") for ref in refs))
        loop = asyncio.get_running_loop()
        calls: list[object] = []
        usual = loop.call_soon
        loop.call_soon = lambda *a, **k: (calls.append(a), usual(*a, **k))[1]  # type: ignore[method-assign]
        try:
            await asyncio.sleep(0.05)
        finally:
            loop.call_soon = usual  # type: ignore[method-assign]
        assert len(calls) <= 2, calls
