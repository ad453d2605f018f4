"""When the provider's shell looks at a source again: after its word, after a send, and until it was
seen empty."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from guactors.config import ProviderConfig
from guactors.ids import LinkKey
from guactors.messages import Blocked, Endpoint, Fault, Goodbye
from guactors.provider_crew import BATCH, Crew
from guactors.provider_link import RETRY, HubLink
from guactors.transport.base import Lane, LinkFull
from guactors.transport.doors import KeySet
from guactors.transport.frames import encode

CONFIG = ProviderConfig("p", "box", [], {"CPU": 1.0}, "/nowhere")
SILENT = (LinkKey("k"), Lane.CONTROL, [encode(Blocked(True))])


class Listener:
    def __init__(self) -> None:
        self.arrived: deque[Any] = deque()
        self.sent: list[Any] = []
        self.asked = 0

    def receive(self) -> Any:
        self.asked += 1
        return self.arrived.popleft() if self.arrived else None

    def disturbed(self) -> bool:
        self.asked += 1
        return False

    def send(self, *message: Any) -> None:
        self.sent.append(message)


class Processes:
    def __init__(self) -> None:
        self.told: list[list[Any]] = []
        self.asked = 0

    def events(self) -> list[Any]:
        self.asked += 1
        return self.told.pop(0) if self.told else []


class Nudges:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def nudged() -> Nudges:
    return Nudges()


@pytest.fixture
def crew(nudged: Nudges) -> Any:
    made: Any = Crew(CONFIG, Processes(), Listener(), KeySet(), nudged)  # type: ignore[arg-type]
    look(made)
    made._listener.asked = made._processes.asked = 0
    return made


def look(crew: Any) -> None:
    crew.disturbed()
    crew.read_links()
    crew.read_processes()


def test_who_said_nothing_is_not_asked(crew: Any) -> None:
    assert not crew.fresh
    look(crew)
    assert crew._listener.asked == crew._processes.asked == 0


def test_each_is_asked_for_its_own_news(crew: Any, nudged: Nudges) -> None:
    crew._on_link_news()
    look(crew)
    assert (crew._listener.asked, crew._processes.asked) == (2, 0)
    crew._on_process_news()
    look(crew)
    assert (crew._listener.asked, crew._processes.asked) == (2, 1)
    assert nudged.count == 2
    assert not crew.fresh


def test_both_are_asked_after_a_send_and_in_doubt(crew: Any, nudged: Nudges) -> None:
    crew._look_again()
    assert nudged.count == 1
    look(crew)
    crew.doubt()
    assert nudged.count == 1, "whoever doubts is about to look"
    look(crew)
    assert (crew._listener.asked, crew._processes.asked) == (4, 2)


def test_links_are_read_until_nothing_is_left(crew: Any) -> None:
    crew._listener.arrived.extend([SILENT] * (BATCH + 1))
    crew._on_link_news()
    look(crew)
    assert crew.fresh
    look(crew)
    assert not crew.fresh
    assert all(isinstance(one[0], str) for one in crew._listener.sent)


def test_processes_are_asked_until_nothing_is_left(crew: Any) -> None:
    class Event:
        worker = "nobody"

    crew._processes.told = [[Event()], [Event()]]
    crew._on_process_news()
    for left in (True, True, False):
        assert len(crew.read_processes()) == int(left)
        assert crew.fresh is left


# --- the hub --------------------------------------------------------------------------------------


class Link:
    key = "l"
    full = False

    def __init__(self) -> None:
        self.arrived: deque[Any] = deque()

    def filenos(self) -> tuple[int, ...]:
        return ()

    def receive(self) -> Any:
        return self.arrived.popleft() if self.arrived else None

    def send(self, lane: Lane, frames: Any) -> None:
        if self.full:
            raise LinkFull("no")

    def close(self) -> None:
        pass


class Transport:
    def __init__(self) -> None:
        self.link = Link()

    def dial(self, endpoint: Endpoint) -> Any:
        return self.link


@pytest.fixture
def hub(nudged: Nudges) -> Any:
    made: Any = HubLink(Transport(), nudged)  # type: ignore[arg-type]

    async def dial() -> None:
        assert made.dial(Endpoint("ipc:///nowhere", "ipc:///nowhere")) is None

    asyncio.run(dial())
    assert made.fresh, "its connection may be there before anybody watches"
    assert made.receive() is None
    assert not made.fresh
    return made


def test_a_send_may_swallow_the_word_of_an_arrival(hub: Any) -> None:
    hub.send(Goodbye("released"))
    assert hub.fresh
    hub._link.arrived.append((Lane.CONTROL, [encode(Fault("UsageError", "no"))]))
    assert isinstance(hub.receive(), Fault)
    assert hub.fresh
    assert hub.receive() is None
    assert not hub.fresh


def test_a_full_link_is_tried_again_later_and_not_at_once(hub: Any) -> None:
    hub._link.full = True
    hub.send(Goodbye("released"))
    hub.flush()
    assert hub.receive() is None
    assert not hub.fresh
    assert hub.retry_after() == RETRY
    hub._link.full = False
    hub.flush()
    assert hub.retry_after() is None


def test_no_link_has_no_news(hub: Any) -> None:
    hub.doubt()
    assert hub.fresh
    hub.drop()
    assert not hub.fresh
    hub.doubt()
    hub.send(Goodbye("released"))
    assert not hub.fresh
