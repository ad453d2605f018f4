"""Refs to actors of another system: one suite over every transport."""

from __future__ import annotations

import asyncio
import logging
import pickle
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from guactors.actors import (
    Actor,
    ActorRef,
    ActorSystem,
    Lost,
    Priority,
    Restart,
    Stopped,
    Terminated,
)
from guactors.actors.remote import Codec, RemoteSystem, Served, connect, serve
from guactors.actors.remote_words import Ask, encode
from guactors.config import Identity
from guactors.errors import (
    ActorKilled,
    CallTimeout,
    MailboxFull,
    NotSerializable,
    PeerLost,
    ProtocolError,
    TaskError,
    UsageError,
)
from guactors.transport.base import Lane, Transport
from guactors.transport.inproc import InprocTransport
from guactors.transport.zmq_link import ZmqTransport
from tests.contract.on_loop import eventually, on_loop, until


class Desk(Actor):
    """Answers by what it is sent; keeps the rest."""

    supervision = Restart(max_restarts=-1)

    def __init__(self, gate: asyncio.Event | None = None) -> None:
        self.gate = gate
        self.got: list[Any] = []

    async def receive(self, message: Any) -> Any:
        match message:
            case "gate" if self.gate is not None:
                await self.gate.wait()
            case {"sleep": seconds}:
                await asyncio.sleep(seconds)
            case "break":
                raise KeyError("broken")
            case "unspeakable":
                return object()
            case "all":
                return list(self.got)
        self.got.append(message)
        return message


class Watcher(Actor):
    def __init__(self) -> None:
        self.got: list[Any] = []

    def receive(self, message: Any) -> Any:
        if isinstance(message, ActorRef):
            self.context.watch(message)
        elif message == "all":
            return self.got
        else:
            self.got.append(message)
        return None


@pytest.fixture(params=["inproc", "ipc"])
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    opened: Transport = InprocTransport(high_water=50)
    if request.param == "ipc":
        opened = ZmqTransport(Identity(), high_water=50)
    yield opened
    opened.close()


@pytest.fixture
def address(transport: Transport, run_root: Path) -> str:
    if isinstance(transport, InprocTransport):
        return "inproc://*"
    return f"ipc://{tempfile.mkdtemp(prefix='bridge-', dir=run_root)}/s"


def took_one(system: ActorSystem, waiting: int = 0) -> bool:
    """Whether the desk is at its first message, with ``waiting`` more behind it."""
    mailbox = system.statistics().actors[0].mailbox
    return (mailbox.accepted, mailbox.waiting) == (1 + waiting, waiting)


class Both:
    """A served system and a link to it."""

    def __init__(self, system: ActorSystem, served: Served, remote: RemoteSystem) -> None:
        self.system, self.served, self.remote = system, served, remote


@asynccontextmanager
async def both(
    transport: Transport,
    address: str,
    *,
    codec: Codec | None = None,
    actors: list[str] | None = None,
    mailbox_size: int = 10_000,
) -> AsyncIterator[Both]:
    async with ActorSystem("far") as system:
        system.spawn(Desk, name="desk", mailbox_size=mailbox_size)
        listener = transport.listen(address)
        served = serve(system, listener, codec=codec, actors=actors)
        try:
            async with connect(transport.dial(listener.endpoint), codec=codec) as remote:
                yield Both(system, served, remote)
        finally:
            served.close()
            await system.shutdown(timeout=0.5)


@on_loop
async def test_tell_and_ask_in_order(transport: Transport, address: str) -> None:
    async with both(transport, address) as near:
        desk = near.remote.actor("desk")
        for number in range(30):
            desk.tell(number)
        await desk.tell_wait({"text": "ü", "data": b"\x00"}, timeout=5)
        assert await desk.ask([1, None, 2.5], timeout=5) == [1, None, 2.5]
        expected = [*range(30), {"text": "ü", "data": b"\x00"}, [1, None, 2.5]]
        assert await desk.ask("all", timeout=5) == expected


@on_loop
async def test_more_asks_than_the_link_holds_are_all_answered(
    transport: Transport, address: str
) -> None:
    async with both(transport, address) as near:
        desk = near.remote.actor("desk")
        asks = [desk.ask(number, timeout=8) for number in range(1000)]
        assert await asyncio.gather(*asks) == list(range(1000))


@on_loop
async def test_urgent_messages_take_the_other_lane(transport: Transport, address: str) -> None:
    gate = asyncio.Event()
    async with both(transport, address) as near:
        near.system.spawn(Desk, gate, name="gated")
        desk = near.remote.actor("gated")
        await desk.tell_wait("gate", timeout=5)
        for number in range(10):
            desk.tell(number, priority=Priority.LOW)
        asking = asyncio.create_task(desk.ask("all", timeout=5, priority=Priority.HIGH))
        await eventually(lambda: near.system.statistics().actors[1].mailbox.waiting == 11)
        gate.set()
        assert await asking == ["gate"]
        with pytest.raises(UsageError, match="reserved"):
            desk.tell("x", priority=Priority.SYSTEM)


@on_loop
async def test_errors_cross_with_their_kind(
    transport: Transport, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "guactors.actors")
    async with both(transport, address) as near:
        desk = near.remote.actor("desk")
        with pytest.raises(TaskError, match="KeyError: 'broken'") as caught:
            await desk.ask("break", timeout=5)
        assert "receive" in caught.value.remote_traceback
        with pytest.raises(NotSerializable, match="object"):
            await desk.ask("unspeakable", timeout=5)
        with pytest.raises(UsageError, match=r"no living actor 'dusk'.*did you mean 'desk'"):
            await near.remote.actor("dusk").ask("x", timeout=5)
        with pytest.raises(NotSerializable, match="codec"):
            await desk.ask(object(), timeout=5)
        with pytest.raises(UsageError, match="another system"):
            desk.tell("x", sender=desk)
        assert await desk.ask("fine", timeout=5) == "fine"


@on_loop
async def test_only_what_is_served_can_be_reached(transport: Transport, address: str) -> None:
    async with both(transport, address) as near:
        unnamed = near.system.spawn(Desk)
        with pytest.raises(UsageError, match="not served"):
            await near.remote.actor(unnamed.name).ask("x", timeout=5)


@on_loop
async def test_a_list_of_served_actors_is_the_whole_list(
    transport: Transport, address: str
) -> None:
    async with both(transport, address, actors=["public"]) as near:
        near.system.spawn(Desk, name="public")
        assert await near.remote.actor("public").ask("x", timeout=5) == "x"
        with pytest.raises(UsageError, match="not served"):
            await near.remote.actor("desk").ask("x", timeout=5)


@on_loop
async def test_time_outs_withdraw_the_question(transport: Transport, address: str) -> None:
    async with both(transport, address) as near:
        desk = near.remote.actor("desk")
        running = asyncio.create_task(desk.ask({"sleep": 0.1}, timeout=5))
        await asyncio.sleep(0)
        with pytest.raises(CallTimeout, match=r"'desk' behind <RemoteSystem"):
            await desk.ask("never handled", timeout=0.02)
        await running
        assert await desk.ask("all", timeout=5) == [{"sleep": 0.1}]


@on_loop
async def test_back_pressure_reaches_the_asker(transport: Transport, address: str) -> None:
    async with both(transport, address, mailbox_size=1) as near:
        desk = near.remote.actor("desk")
        desk.tell({"sleep": 0.1})
        await eventually(lambda: took_one(near.system))
        await desk.tell_wait("a", timeout=5)
        with pytest.raises(CallTimeout):
            await desk.tell_wait("b", timeout=0.02)
        desk.tell("lost: the mailbox there is full")
        await eventually(lambda: near.served.dropped == 1)
        await desk.tell_wait("c", timeout=5)
        assert await desk.ask("all", timeout=5) == [{"sleep": 0.1}, "a", "c"]


@on_loop
async def test_a_remote_actor_is_watched_like_a_local_one(
    transport: Transport, address: str
) -> None:
    async with both(transport, address) as near, ActorSystem("near") as system:
        watcher = system.spawn(Watcher)
        desk, nobody = near.remote.actor("desk"), near.remote.actor("nobody")
        await watcher.ask(desk)
        await watcher.ask(nobody)
        assert await desk.ask("x", timeout=5) == "x"
        await near.system.stop(near.system.actor("desk"))
        got = await until(lambda: watcher.ask("all"), lambda got: len(got) == 2)
        told = {death.ref: death.cause for death in got}
        assert told[desk] == Stopped("ActorSystem.stop")
        assert isinstance(told[nobody], Lost)
        with pytest.raises(UsageError, match="no living actor"):
            await desk.ask("x", timeout=5)


@on_loop
async def test_the_death_of_the_actor_answers_open_questions(
    transport: Transport, address: str
) -> None:
    async with both(transport, address) as near:
        asking = asyncio.create_task(near.remote.actor("desk").ask({"sleep": 60}))
        ref = near.system.actor("desk")
        await eventually(lambda: took_one(near.system))
        await near.system.kill(ref)
        with pytest.raises(ActorKilled, match=r"killed by ActorSystem.kill") as caught:
            await asking
        assert caught.value.death is not None
        assert caught.value.death.cause == "killed"


@pytest.mark.parametrize("who", ["here", "there"])
@on_loop
async def test_a_lost_link_answers_all_questions_and_watches(
    who: str, transport: Transport, address: str
) -> None:
    async with both(transport, address) as near, ActorSystem("near") as system:
        desk, watcher = near.remote.actor("desk"), system.spawn(Watcher)
        await watcher.ask(desk)
        await desk.ask("up", timeout=5)
        asking = asyncio.create_task(desk.ask({"sleep": 60}))
        await asyncio.sleep(0.01)
        (near.remote if who == "here" else near.served).close()
        with pytest.raises(PeerLost, match=r"link .* is down"):
            await asking
        got = await until(lambda: watcher.ask("all"), len)
        assert isinstance(got[0], Terminated)
        assert isinstance(got[0].cause, Lost)
        for attempt in (desk.ask("x"), desk.tell_wait("x")):
            with pytest.raises(PeerLost):
                await attempt
        with pytest.raises(PeerLost):
            desk.tell("x")


@on_loop
async def test_a_peer_that_left_is_forgotten_with_its_questions(
    transport: Transport, address: str
) -> None:
    async with both(transport, address) as near:
        ref = near.system.actor("desk")
        desk = near.remote.actor("desk")
        running = asyncio.create_task(desk.ask({"sleep": 0.3}))
        queued = asyncio.create_task(desk.ask("queued"))
        await eventually(lambda: took_one(near.system, 1))
        near.remote.close()
        await asyncio.gather(running, queued, return_exceptions=True)
        await eventually(lambda: "0 peers" in repr(near.served))
        assert "0 queued" in repr(ref)


@on_loop
async def test_nobody_listening_is_a_lost_link(transport: Transport, address: str) -> None:
    listener = transport.listen(address)
    listener.close()
    async with connect(transport.dial(listener.endpoint)) as remote:
        with pytest.raises(PeerLost):
            await remote.actor("desk").ask("x", timeout=5)


@on_loop
async def test_noise_is_counted_answered_and_hurts_nobody_else(
    transport: Transport, address: str
) -> None:
    async with both(transport, address) as near:
        noisy = connect(transport.dial(near.remote.link.endpoint))
        for noise in (b"", b"\x01\xff\xff", b"\x07" + b"x" * 100):
            noisy.link.send(Lane.DATA, [noise])
        with pytest.raises(PeerLost, match="did not understand"):
            await noisy.actor("desk").ask("x", timeout=5)
        await eventually(lambda: near.served.faults == 3)
        assert await near.remote.actor("desk").ask("fine", timeout=5) == "fine"


@on_loop
async def test_a_payload_that_is_no_msgpack_is_refused_to_its_sender(
    transport: Transport, address: str
) -> None:
    class Liar:
        def encode(self, value: Any) -> bytes:
            return b"\xc1"

        def decode(self, data: bytes) -> Any:
            raise AssertionError("no answer was expected")

    async with both(transport, address) as near:
        lying = connect(transport.dial(near.remote.link.endpoint), codec=Liar())
        with pytest.raises(ProtocolError, match="payload cannot be decoded"):
            await lying.actor("desk").ask("x", timeout=5)
        lying.close()
        assert await near.remote.actor("desk").ask("fine", timeout=5) == "fine"


@on_loop
async def test_a_codec_of_ones_own(transport: Transport, address: str) -> None:
    class Trusting:
        def encode(self, value: Any) -> bytes:
            return pickle.dumps(value)

        def decode(self, data: bytes) -> Any:
            return pickle.loads(data)

    async with both(transport, address, codec=Trusting()) as near:
        assert await near.remote.actor("desk").ask(1 + 2j, timeout=5) == 1 + 2j


@on_loop
async def test_plain_threads_use_remote_refs_too(transport: Transport, address: str) -> None:
    async with both(transport, address) as near:
        desk = near.remote.actor("desk")

        def work(worker: int) -> list[Any]:
            desk.tell(["told", worker])
            return [desk.ask_sync([worker, n], timeout=5) for n in range(50)]

        answers = await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(3)))
        assert answers == [[[worker, n] for n in range(50)] for worker in range(3)]
        with pytest.raises(UsageError, match=r"await ref.ask"):
            desk.ask_sync("x")


@on_loop
async def test_questions_beyond_the_limit_are_refused(
    transport: Transport, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guactors.actors.remote_server.MOST_OPEN", 2)
    async with both(transport, address) as near:
        desk = near.remote.actor("desk")
        asks = [asyncio.create_task(desk.ask({"sleep": 0.05}, timeout=5)) for _ in range(3)]
        results = await asyncio.gather(*asks, return_exceptions=True)
        assert [type(result) for result in results] == [dict, dict, MailboxFull]


@on_loop
async def test_a_question_number_used_twice_is_refused(transport: Transport, address: str) -> None:
    async with both(transport, address) as near:
        desk = near.remote.actor("desk")
        asking = asyncio.create_task(desk.ask({"sleep": 0.05}, timeout=5))
        await eventually(lambda: took_one(near.system))
        near.remote.link.send(Lane.DATA, encode(Ask(1, "desk", b"\xc0")))
        with pytest.raises(MailboxFull, match="open already"):
            await asking
