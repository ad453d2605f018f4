"""Families of actors: who restarts, who ends, who is told, in which order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from guactors.actors import (
    Actor,
    ActorRef,
    ActorSystem,
    AllForOne,
    Cause,
    Completed,
    Escalate,
    Escalated,
    Failed,
    Killed,
    Restart,
    Resume,
    Stop,
    Stopped,
)
from guactors.actors.supervision import Supervision
from guactors.errors import ActorDied, ActorKilled, MailboxFull, UsageError
from tests.contract.on_loop import eventually, on_loop

Journal = list[str]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "guactors.actors")


class Fragile(Actor):
    """Counts; ``"break"`` breaks it. Writes its hooks into the journal."""

    def __init__(self, journal: Journal, name: str = "it") -> None:
        self.journal, self.name, self.count = journal, name, 0
        journal.append(f"{name} made")

    def receive(self, message: Any) -> Any:
        if message == "break":
            raise ValueError("broken")
        if callable(message):
            return message(self)
        self.count += 1
        return self.count

    def on_start(self) -> None:
        self.journal.append(f"{self.name} start")

    def on_stop(self, cause: Cause) -> None:
        self.journal.append(f"{self.name} stop {type(cause).__name__}")

    def on_restart(self, cause: Cause) -> None:
        self.journal.append(f"{self.name} restart {type(cause).__name__}")


class Parent(Fragile):
    """``("spawn", name, supervision)`` makes a Fragile child; deaths go to the journal."""

    def receive(self, message: Any) -> Any:
        match message:
            case ("spawn", name, supervision):
                return self.context.spawn(
                    Fragile, self.journal, name, name=name, supervision=supervision
                )
        return super().receive(message)

    def on_child_death(self, ref: ActorRef, cause: Cause) -> None:
        self.journal.append(f"{self.name} told {ref.name} {type(cause).__name__}")


async def broken(ref: ActorRef) -> None:
    with pytest.raises(ValueError, match="broken"):
        await ref.ask("break")


@on_loop
async def test_resume_keeps_the_state() -> None:
    journal: Journal = []
    async with ActorSystem("t") as system:
        ref = system.spawn(Fragile, journal, supervision=Resume())
        assert await ref.ask("count") == 1
        await broken(ref)
        assert await ref.ask("count") == 2
    assert journal == ["it made", "it start", "it stop SystemShutdown"]


@on_loop
async def test_restart_makes_a_new_instance_and_keeps_the_mailbox_and_the_ref() -> None:
    journal: Journal = []
    async with ActorSystem("t") as system:
        ref = system.spawn(Fragile, journal, supervision=Restart())
        assert await ref.ask("count") == 1
        asks = [asyncio.create_task(ref.ask(word)) for word in ("count", "break", "a", "b")]
        results = await asyncio.gather(*asks, return_exceptions=True)
        assert results[0] == 2
        assert isinstance(results[1], ValueError)
        assert results[2:] == [1, 2]
        assert system.statistics().actors[0].restarts == 1
        await system.stop(ref)
    assert journal == [
        "it made", "it start",
        "it stop Failed", "it made", "it restart Failed", "it start",
        "it stop Stopped",
    ]  # fmt: skip


@on_loop
async def test_restarts_run_out() -> None:
    async with ActorSystem("t") as system:
        ref = system.spawn(Fragile, [], supervision=Restart(max_restarts=2))
        for _ in range(3):
            await broken(ref)
        cause = await system.wait_dead(ref)
        assert isinstance(cause, Failed)
        with pytest.raises(ActorDied, match="broken"):
            await ref.ask("count")


@on_loop
async def test_a_back_off_holds_messages_and_a_stop_cuts_it_short() -> None:
    async with ActorSystem("t") as system:
        short = system.spawn(Fragile, [], supervision=Restart(backoff=0.02))
        await broken(short)
        assert await short.ask("waits") == 1
        long = system.spawn(Fragile, [], supervision=Restart(backoff=30))
        await broken(long)
        waiting = asyncio.create_task(long.ask("in vain"))
        await eventually(lambda: "restarting" in repr(long))
        assert await system.stop(long) == Stopped("ActorSystem.stop")
        with pytest.raises(ActorKilled):
            await waiting


@on_loop
async def test_a_restart_that_fails_is_a_failure_of_its_own() -> None:
    fates = iter([None, ValueError("still down"), ValueError("still down"), None])

    class Connection(Actor):
        supervision = Restart(max_restarts=5)

        async def on_start(self) -> None:
            fate = next(fates)
            if fate is not None:
                raise fate

        def receive(self, message: Any) -> Any:
            if message == "break":
                raise ValueError("broken")
            return message

    async with ActorSystem("t") as system:
        ref = system.spawn(Connection)
        await broken(ref)
        assert await ref.ask("up again") == "up again"
        (look,) = system.statistics().actors
        assert (look.failures, look.restarts) == (3, 1)


@on_loop
async def test_children_end_before_their_parent_and_are_not_reported_then() -> None:
    journal: Journal = []
    async with ActorSystem("t") as system:
        parent = system.spawn(Parent, journal, "top", name="top")
        child = await parent.ask(("spawn", "kid", None))
        assert child.name == "top/kid"
        assert await child.ask("x") == 1
        await system.stop(parent)
        assert await system.wait_dead(child) == Stopped("top")
    assert journal == ["top made", "top start", "kid made", "kid start",
                       "kid stop Stopped", "top stop Stopped"]  # fmt: skip


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (lambda system, ref: system.stop(ref), Stopped),
        (lambda system, ref: system.drain(ref), Completed),
        (lambda system, ref: system.kill(ref), Killed),
        (lambda system, ref: broken(ref), Failed),
    ],
    ids=["stop", "drain", "kill", "fail"],
)
@on_loop
async def test_a_parent_is_told_of_a_childs_death_with_its_cause(
    end: Callable[[ActorSystem, ActorRef], Any], cause: type[Cause]
) -> None:
    journal: Journal = []
    async with ActorSystem("t") as system:
        parent = system.spawn(Parent, journal, "top", name="top")
        child = await parent.ask(("spawn", "kid", Stop()))
        await child.ask("x")
        await end(system, child)
        await eventually(lambda: f"top told top/kid {cause.__name__}" in journal)
        assert await parent.ask(lambda actor: actor.context.children) == ()


@on_loop
async def test_an_escalated_failure_fails_the_parent() -> None:
    journal: Journal = []
    async with ActorSystem("t") as system:
        parent = system.spawn(Parent, journal, "top", name="top", supervision=Stop())
        child = await parent.ask(("spawn", "kid", Escalate()))
        sibling = await parent.ask(("spawn", "sis", None))
        await broken(child)
        cause = await system.wait_dead(parent)
        assert isinstance(cause, Escalated)
        assert cause.child == "top/kid"
        assert await system.wait_dead(sibling) == Stopped("top")


@on_loop
async def test_an_escalated_failure_restarts_a_parent_that_restarts() -> None:
    journal: Journal = []
    async with ActorSystem("t") as system:
        parent = system.spawn(Parent, journal, "top", name="top", supervision=Restart())
        child = await parent.ask(("spawn", "kid", Restart(max_restarts=0, then_escalate=True)))
        await broken(child)
        await eventually(lambda: "top restart Escalated" in journal)
        assert await parent.ask("count") == 1
        assert await parent.ask(lambda actor: actor.context.children) == ()


@on_loop
async def test_all_for_one_restarts_the_group_and_nobody_else() -> None:
    journal: Journal = []
    group: Supervision = AllForOne(Restart(), "pipeline")
    async with ActorSystem("t") as system:
        parent = system.spawn(Parent, journal, "top", name="top")
        one, two, other = [
            await parent.ask(("spawn", name, supervision))
            for name, supervision in (("one", group), ("two", group), ("other", Restart()))
        ]
        for ref in (one, two, other):
            assert await ref.ask("count") == 1
        await broken(one)
        assert [await ref.ask("count") for ref in (one, two, other)] == [1, 1, 2]
        assert "two restart Stopped" in journal
        assert "other restart Stopped" not in journal


@on_loop
async def test_all_for_one_stops_the_group() -> None:
    async with ActorSystem("t") as system:
        one, two, other = [
            system.spawn(Fragile, [], supervision=supervision)
            for supervision in (AllForOne(Stop()), AllForOne(Stop()), AllForOne(Stop(), "b"))
        ]
        await broken(one)
        assert await system.wait_dead(two) == Stopped("the failure of fragile-1")
        assert await other.ask("count") == 1


@on_loop
async def test_a_failing_hook_is_a_failure_and_a_failing_on_stop_is_not_in_the_way() -> None:
    class Touchy(Parent):
        def on_child_death(self, ref: ActorRef, cause: Cause) -> None:
            raise ValueError("cannot bear it")

        def on_stop(self, cause: Cause) -> None:
            raise ValueError("not even this")

    async with ActorSystem("t") as system:
        parent = system.spawn(Touchy, [], "top", name="top")
        child = await parent.ask(("spawn", "kid", Stop()))
        await broken(child)
        cause = await system.wait_dead(parent)
        assert isinstance(cause, Failed)
        assert "cannot bear it" in str(cause.error)


@on_loop
async def test_killing_a_parent_kills_its_children_and_all_askers_hear_of_it() -> None:
    class Sleeper(Parent):
        async def receive(self, message: Any) -> Any:
            if message == "sleep":
                await asyncio.sleep(60)
            return super().receive(message)

    async with ActorSystem("t") as system:
        parent = system.spawn(Sleeper, [], "top", name="top")
        child = await parent.ask(("spawn", "kid", None))
        asleep = asyncio.create_task(parent.ask("sleep"))
        queued = asyncio.create_task(parent.ask("count"))
        await asyncio.sleep(0.01)
        await system.kill(parent)
        assert await system.wait_dead(child) == Killed("the death of top")
        for asking in (asleep, queued):
            with pytest.raises(ActorKilled):
                await asking


@on_loop
async def test_a_child_that_waits_for_its_stopping_parent_is_answered() -> None:
    class Child(Actor):
        async def receive(self, message: Any) -> Any:
            parent = self.context.parent
            assert parent is not None
            await asyncio.sleep(0.01)
            return await parent.ask("anything")

    class Top(Actor):
        def receive(self, message: Any) -> Any:
            return self.context.spawn(Child)

    async with ActorSystem("t") as system:
        parent = system.spawn(Top)
        child = await parent.ask("spawn")
        asking = asyncio.create_task(child.ask("x"))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await system.stop(parent)
        with pytest.raises(ActorDied):
            await asking


@on_loop
async def test_only_ones_own_children_can_be_ended_from_inside() -> None:
    async with ActorSystem("t") as system:
        parent, stranger = system.spawn(Parent, [], supervision=Resume()), system.spawn(Parent, [])
        with pytest.raises(UsageError, match="is no child of parent-1"):
            await parent.ask(lambda actor: actor.context.stop(stranger))
        child = await parent.ask(("spawn", "kid", None))
        await parent.ask(lambda actor: actor.context.kill(child))
        assert await system.wait_dead(child) == Killed("parent-1")


@on_loop
async def test_nobody_is_left_hanging_whoever_dies_whenever() -> None:
    """Every way to end, at many moments, under every kind of waiting: as many ends as asks."""

    class Busy(Actor):
        supervision = Restart(max_restarts=2, backoff=0.001)

        async def receive(self, message: Any) -> Any:
            await asyncio.sleep(0)
            if message % 7 == 3:
                raise ValueError(message)
            await asyncio.sleep(0.0005 * (message % 3))
            return message

    for moment in range(40):
        async with ActorSystem("t") as system:
            ref = system.spawn(Busy, mailbox_size=4)
            end = (system.stop, system.drain, system.kill)[moment % 3]
            asks = [asyncio.create_task(ref.ask(n)) for n in range(20)]
            tells = [asyncio.create_task(ref.tell_wait(n)) for n in range(10)]
            for _ in range(moment):
                await asyncio.sleep(0)
            await end(ref)
            async with asyncio.timeout(5):
                results = await asyncio.gather(*asks, *tells, return_exceptions=True)
            odd = [r for r in results if isinstance(r, BaseException)
                   and not isinstance(r, ActorDied | ValueError | MailboxFull)]  # fmt: skip
            assert not odd
