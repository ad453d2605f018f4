"""A caller's line to its hub: what a refusal means, and whether to dial again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from guactors import messages as m
from guactors.config import Timing
from guactors.errors import AuthFailed, GuactorsError
from guactors.hub_line import SHUT_DOORS, HubLine
from guactors.ids import LinkKey
from guactors.transport.base import Down, Frame, Lane, LinkState
from guactors.transport.frames import encode

HUB = m.Endpoint("tcp://hub", "tcp://hub")
KEYED = m.Hello("c-1", "caller", m.Versions("0", "3.11"), 1, "here", "s-1", True, key="gu_app_a",
                transport="t" * 40)  # fmt: skip
WORKER = replace(KEYED, root=False, key="")
WELCOME = m.Welcome("h-1", m.Versions("0", "3.11"))
NO = m.Fault("AuthFailed", "no")


class Link:
    """What a test puts into ``inbox`` is heard next."""

    def __init__(self, number: int) -> None:
        self.key = LinkKey(f"k-{number}")
        self.endpoint = HUB
        self.inbox: list[m.Message] = []
        self.broken: Down | None = None

    def send(self, lane: Lane, frames: Sequence[Frame]) -> None:
        """Nobody looks."""

    def receive(self, lane: Lane | None = None) -> tuple[Lane, list[Frame]] | None:
        return (Lane.CONTROL, [encode(self.inbox.pop(0))]) if self.inbox else None

    def state(self) -> LinkState:
        return LinkState.DOWN if self.broken else LinkState.UP

    def down(self) -> Down | None:
        return self.broken

    def filenos(self, lane: Lane | None = None) -> tuple[int, ...]:
        return ()

    def close(self) -> None:
        self.broken = self.broken or Down("closed")


class Bench:
    """A line whose links the test answers for."""

    def __init__(self, hello: m.Hello = KEYED) -> None:
        self.links: list[Link] = []
        self.refused: list[GuactorsError] = []
        self.now = 100.0
        self.line = HubLine(
            self, [HUB], hello, Timing(),  # type: ignore[arg-type]
            prove=lambda challenge, link: m.Proof(b"", b""), on_up=lambda: None,
            on_refused=self.refused.append, on_message=lambda message: None,
            watch=lambda link: None, unwatch=lambda link: None, rng=lambda: 0.5,
        )  # fmt: skip
        self.service()

    def dial(self, endpoint: m.Endpoint) -> Any:
        self.links.append(Link(len(self.links)))
        return self.links[-1]

    def service(self) -> float:
        return self.line.service(self.now)

    def hear(self, *messages: m.Message) -> None:
        """On the present link."""
        self.links[-1].inbox += messages
        self.service()

    def breaks(self, cause: str = "lost") -> None:
        self.links[-1].broken = Down(cause, "it broke")
        self.service()

    def dials(self) -> bool:
        """Whether it dials again within a minute, and not at once."""
        before = len(self.links)
        assert self.service() > self.now
        self.now += 60.0
        self.service()
        return len(self.links) > before


def test_a_refusal_on_a_welcomed_link_is_for_good() -> None:
    bench = Bench()
    bench.hear(WELCOME, NO)
    assert len(bench.refused) == 1
    bench.breaks()
    assert not bench.dials()


def test_one_refusal_of_a_key_that_was_good_can_be_an_accident() -> None:
    bench = Bench()
    bench.hear(WELCOME)
    bench.breaks()
    for _ in range(3):
        assert bench.dials()
        bench.hear(NO)
        assert bench.dials()
        bench.hear(WELCOME)
        assert bench.line.up
        bench.breaks()
    assert bench.refused == []


def test_a_key_that_is_refused_twice_in_a_row_is_good_no_more() -> None:
    bench = Bench()
    bench.hear(WELCOME)
    bench.breaks()
    assert bench.dials()
    bench.hear(NO)
    assert bench.dials()
    bench.hear(NO)
    assert [type(error) for error in bench.refused] == [AuthFailed]
    assert not bench.dials()


def test_a_worker_waits_for_its_provider_to_vouch_for_it_again() -> None:
    bench = Bench(WORKER)
    bench.hear(WELCOME)
    bench.breaks()
    for _ in range(5):
        assert bench.dials()
        bench.hear(NO)
    assert bench.dials()
    assert bench.refused == []


@pytest.mark.parametrize("hello", [KEYED, WORKER])
def test_a_worker_too_is_shut_out_of_a_link_that_was_welcomed(hello: m.Hello) -> None:
    bench = Bench(hello)
    bench.hear(WELCOME, NO)
    assert len(bench.refused) == 1


def test_before_the_first_welcome_whoever_starts_it_looks_at_the_refusal() -> None:
    bench = Bench()
    bench.hear(NO)
    assert isinstance(bench.line.refusal, AuthFailed)
    assert bench.refused == []


def test_doors_that_stay_shut_are_believed() -> None:
    bench = Bench()
    bench.hear(WELCOME)
    bench.breaks()
    for number in range(SHUT_DOORS):
        assert bench.refused == [], number
        assert bench.dials()
        bench.breaks("auth")
    assert len(bench.refused) == 1
