"""The hub's sockets against a real transport: full links, peers that do not read, bounded
reading."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from guactors import hub_wire, outbox_state
from guactors import messages as m
from guactors.hub_wire import Wire
from guactors.ids import LinkKey
from guactors.scheduling.events import Arrived, Event, LinkGone
from guactors.transport.base import Lane, Link, LinkState
from guactors.transport.frames import Decoder, encode
from guactors.transport.inproc import Exchange, InprocTransport

DECODER: Decoder[m.Message] = Decoder(m.HubToCaller)
ROOM = 4


class Desk:
    """A wire on one side, a link on the other; ``heard`` is what the wire told."""

    def __init__(self) -> None:
        exchange = Exchange()
        self.outside = InprocTransport(high_water=ROOM, exchange=exchange)
        self.wire = Wire(InprocTransport(exchange=exchange))
        (endpoint,) = self.wire.bind(["inproc://hub"])
        self.heard: list[Event] = []
        self.pending = 0
        self.wire.serve(lambda event, _lane: self.heard.append(event), lambda: self.pending)
        self.link = self.outside.dial(endpoint)
        assert self.link.state() is LinkState.UP

    def close(self) -> None:
        self.link.close()
        self.wire.close()
        self.outside.close()

    def arrived(self) -> list[m.Message]:
        return [event.message for event in self.heard if isinstance(event, Arrived)]

    async def introduced(self) -> LinkKey:
        """The wire has heard the link, so it can answer."""
        self.link.send(Lane.CONTROL, [encode(m.Ping(0))])
        self.link.send(Lane.DATA, [encode(m.Relay("c-0", b""))])
        await until(lambda: len(self.heard) >= 2)
        self.heard.clear()
        return self.link.key


def on_desk(test: Callable[[Desk], Awaitable[None]]) -> None:
    async def run() -> None:
        desk = Desk()
        try:
            await test(desk)
        finally:
            desk.close()

    asyncio.run(run())


async def until(true: Callable[[], bool], within: float = 5.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.001)


def read(link: Link) -> list[m.Message]:
    found = []
    while (got := link.receive()) is not None:
        found.append(DECODER.decode(got[1])[0])
    return found


def test_what_has_no_room_is_sent_later_in_order() -> None:
    async def test(desk: Desk) -> None:
        link = await desk.introduced()
        for number in range(10 * ROOM):
            assert desk.wire.send(link, m.Pong(number)) is None
        found: list[m.Message] = []
        deadline = time.monotonic() + 5.0
        while len(found) < 10 * ROOM and time.monotonic() < deadline:
            found += read(desk.link)
            await asyncio.sleep(0.001)
        assert found == [m.Pong(number) for number in range(10 * ROOM)]

    on_desk(test)


def test_output_is_dropped_where_there_is_no_room() -> None:
    async def test(desk: Desk) -> None:
        link = await desk.introduced()
        for number in range(ROOM + 3):
            output = m.Output("s-1", "w-1", number, "box", 1, "f", [])
            assert desk.wire.send(link, output) is None
        assert desk.wire.dropped_output == 3
        assert len(read(desk.link)) == ROOM

    on_desk(test)


def test_a_peer_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_state, "MOST_MESSAGES", 10)

    async def test(desk: Desk) -> None:
        link = await desk.introduced()
        results = [desk.wire.send(link, m.Pong(number)) for number in range(ROOM + 11)]
        assert results[:-1] == [None] * (ROOM + 10)
        gone = results[-1]
        assert gone is not None
        assert gone.link == link
        desk.wire.drop(link)
        assert desk.wire.send(link, m.Pong(1)) == LinkGone(link)

    on_desk(test)


def test_a_closed_link_is_reported_by_whoever_sends_to_it() -> None:
    async def test(desk: Desk) -> None:
        link = await desk.introduced()
        for number in range(ROOM + 1):
            desk.wire.send(link, m.Pong(number))
        desk.link.close()
        await until(lambda: LinkGone(link) in desk.heard)
        assert desk.wire.send(link, m.Pong(9)) == LinkGone(link)

    on_desk(test)


def test_reading_pauses_while_too_much_is_not_yet_thought_about() -> None:
    async def test(desk: Desk) -> None:
        await desk.introduced()
        desk.pending = hub_wire.MOST_PENDING + 1
        desk.link.send(Lane.CONTROL, [encode(m.Ping(1))])
        await asyncio.sleep(10 * hub_wire.PAUSE)
        assert not desk.arrived()
        desk.pending = 0
        await until(lambda: desk.arrived() == [m.Ping(1)])

    on_desk(test)


def test_a_message_too_large_for_its_lane_is_not_sent_and_costs_nothing_else() -> None:
    async def test(desk: Desk) -> None:
        link = await desk.introduced()
        huge = m.Fault("UsageError", "x" * (2 << 20))
        assert desk.wire.send(link, huge) is None
        assert desk.wire.send(link, m.Pong(1)) is None
        assert read(desk.link) == [m.Pong(1)]

    on_desk(test)
