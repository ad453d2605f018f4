"""The door's lines to the hub, against a hub that answers what and when the test says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from guactors import messages as m
from guactors.config import Identity, Timing
from guactors.errors import HubUnreachable, InternalError, MailboxFull, PermissionDenied
from guactors.ids import LinkKey
from guactors.messages import Endpoint
from guactors.transport import open_transport
from guactors.transport.base import Lane
from guactors.transport.frames import Decoder, encode, lane_of
from guactors.web import hub_client
from guactors.web.hub_client import Hub

T = TypeVar("T")

TIMING = Timing(heartbeat=0.2, silent_after=0.5, lost_after=1.0, redial_first=0.02, redial_most=0.1)
ASK = m.AskSessions(0, "token")
Asked = tuple[LinkKey, Any]


class Script:
    """A hub on the test's own loop. What is asked is kept in ``asked`` until it is answered."""

    def __init__(self, run_dir: Path) -> None:
        self.transport = open_transport(Identity())
        self.listener = self.transport.listen(f"ipc://{run_dir}/hub")
        self.asked: list[Asked] = []
        self.hellos: dict[LinkKey, m.Hello] = {}
        self.rule: Callable[[Any], m.Message | None] = lambda _: None
        self._decoder: Decoder[m.Message] = Decoder(m.CallerToHub)
        self._loop = asyncio.get_running_loop()
        for fd in self.listener.filenos():
            self._loop.add_reader(fd, self.read)
        self._ticker = self._loop.create_task(self._tick())

    async def _tick(self) -> None:
        # The descriptors are edge-like: an edge may fall into a send.
        while True:
            self.read()
            await asyncio.sleep(0.01)

    def read(self) -> None:
        while (got := self.listener.receive()) is not None:
            link, lane, frames = got
            message, _ = self._decoder.decode(frames)
            match message:
                case m.Hello():
                    if lane is Lane.CONTROL:
                        self.hellos[link] = message
                        self.say(link, m.Welcome("h-1", m.Versions("0", "3.11")))
                case m.Ping(number):
                    self.say(link, m.Pong(number))
                case m.Pong() | m.Goodbye():
                    pass
                case _:
                    answer = self.rule(message)
                    if answer is None:
                        self.asked.append((link, message))
                    else:
                        self.say(link, answer)

    def say(self, link: LinkKey, message: m.Message) -> None:
        self.listener.send(link, lane_of(message), [encode(message)])

    def answer(self, asked: Asked, text: str = "") -> None:
        link, question = asked
        self.say(link, m.Done(question.request, text))

    async def until(self, true: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not true():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)

    def close(self) -> None:
        self._ticker.cancel()
        for fd in self.listener.filenos():
            self._loop.remove_reader(fd)
        self.transport.close()


@pytest.fixture
def run_dir(run_root: Path, tmp_path: Path, permanent_threads: None) -> Path:
    path = run_root / f"line-{tmp_path.name[-12:]}"
    path.mkdir(mode=0o700)
    return path


def endpoints(run_dir: Path) -> list[Endpoint]:
    return [Endpoint(f"ipc://{run_dir}/hub", f"ipc://{run_dir}/hub.d")]


def run(test: Callable[[Script, Hub], Awaitable[T]], run_dir: Path) -> T:
    async def body() -> T:
        async with met(run_dir) as (script, hub):
            return await test(script, hub)

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        return runner.run(body())


@asynccontextmanager
async def met(run_dir: Path) -> AsyncIterator[tuple[Script, Hub]]:
    script = Script(run_dir)
    hub = Hub(endpoints(run_dir), TIMING)
    try:
        await hub._main.joined()
        yield script, hub
    finally:
        hub.close()
        script.close()


def test_answers_find_who_asked_in_any_order(run_dir: Path) -> None:
    async def test(script: Script, hub: Hub) -> None:
        tasks = [asyncio.create_task(hub.ask(ASK, m.Done)) for _ in range(100)]
        await script.until(lambda: len(script.asked) == 100)
        for asked in reversed(script.asked):
            script.answer(asked, str(asked[1].request))
        answers = await asyncio.gather(*tasks)
        assert [int(answer.text) for answer in answers] == list(range(1, 101))
        assert hub._main._waiting == {}

    run(test, run_dir)


def test_nobody_waits_for_somebody_elses_answer(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(script: Script, hub: Hub) -> None:
        slow = asyncio.create_task(hub._main.ask(m.AskKeys(0), m.Done, within=0.5))
        await script.until(lambda: script.asked)
        script.rule = lambda question: m.Done(question.request)
        for _ in range(20):
            await hub.ask(ASK, m.Done)
        assert not slow.done()
        with pytest.raises(HubUnreachable, match="no answer within"):
            await slow
        script.answer(script.asked[0])  # too late: nobody minds
        await hub.ask(ASK, m.Done)

    run(test, run_dir)


def test_faults_are_the_errors_they_name(run_dir: Path) -> None:
    async def test(script: Script, hub: Hub) -> None:
        script.rule = lambda question: m.Fault("PermissionDenied", "no [action]", question.request)
        with pytest.raises(PermissionDenied, match="no"):
            await hub.ask(ASK, m.Done)
        script.rule = lambda question: m.KeyList(question.request, [])
        with pytest.raises(InternalError, match="AskSessions with KeyList"):
            await hub.ask(ASK, m.Done)

    run(test, run_dir)


def test_a_hub_that_leaves_answers_everybody_and_is_found_again(run_dir: Path) -> None:
    async def test(script: Script, hub: Hub) -> None:
        tasks = [asyncio.create_task(hub.ask(ASK, m.Done)) for _ in range(3)]
        tasks.append(asyncio.create_task(hub.ask_for("key", ASK, m.Done)))
        await script.until(lambda: len(script.asked) == 4)
        for link in script.hellos:
            script.say(link, m.Goodbye("the hub stops"))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in results] == [HubUnreachable] * 4
        script.rule = lambda question: m.Done(question.request)
        await hub._main.joined()
        await hub.ask(ASK, m.Done)
        await hub.ask_for("key", ASK, m.Done)

    run(test, run_dir)


def test_a_hub_that_says_nothing_any_more_is_given_up(run_dir: Path) -> None:
    async def test(script: Script, hub: Hub) -> None:
        task = asyncio.create_task(hub.ask(ASK, m.Done))
        await script.until(lambda: script.asked)
        script.read = lambda: None  # type: ignore[method-assign]
        for fd in script.listener.filenos():
            asyncio.get_running_loop().remove_reader(fd)
        with pytest.raises(HubUnreachable):
            await asyncio.wait_for(task, 5)

    run(test, run_dir)


def test_without_a_hub_the_answer_comes_at_once(run_dir: Path) -> None:
    async def body() -> None:
        hub = Hub(endpoints(run_dir), TIMING)
        began = time.monotonic()
        with pytest.raises(HubUnreachable):
            await hub.ask(ASK, m.Done)
        assert time.monotonic() - began < 0.5
        hub.close()

    asyncio.run(body())


def test_each_key_has_a_line_of_its_own(run_dir: Path) -> None:
    async def test(script: Script, hub: Hub) -> None:
        tasks = [asyncio.create_task(hub.ask_for(key, ASK, m.Done)) for key in "aab"]
        tasks.append(asyncio.create_task(hub.ask(ASK, m.Done)))
        await script.until(lambda: len(script.asked) == 4)
        links = sorted(link for link, _ in script.asked)
        assert len(set(links)) == 3
        for asked in script.asked:
            script.answer(asked)
        await asyncio.gather(*tasks)
        assert {hello.role for hello in script.hellos.values()} == {"caller"}
        assert {hello.key for hello in script.hellos.values()} == {""}

    run(test, run_dir)


def test_a_key_asks_four_things_at_a_time(run_dir: Path) -> None:
    async def test(script: Script, hub: Hub) -> None:
        tasks = [asyncio.create_task(hub.ask_for("a", ASK, m.Done)) for _ in range(10)]
        tasks.append(asyncio.create_task(hub.ask_for("b", ASK, m.Done)))
        await script.until(lambda: len(script.asked) == 5)
        await asyncio.sleep(0.05)
        assert len(script.asked) == 5, "four of the one, and the other waits for none of them"
        script.rule = lambda question: m.Done(question.request)
        for asked in script.asked:
            script.answer(asked)
        await asyncio.gather(*tasks)

    run(test, run_dir)


def test_lines_are_limited_and_idle_ones_make_way(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "MOST_LINES", 2)

    async def test(script: Script, hub: Hub) -> None:
        held = [asyncio.create_task(hub.ask_for(key, ASK, m.Done)) for key in "ab"]
        await script.until(lambda: len(script.asked) == 2)
        with pytest.raises(MailboxFull, match="2 others"):
            await hub.ask_for("c", ASK, m.Done)
        script.answer(script.asked[0])
        # Whose question came first is not decided.
        await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
        script.rule = lambda question: m.Done(question.request)
        await hub.ask_for("c", ASK, m.Done)
        assert repr(hub) == "<Hub lines=3>"
        script.answer(script.asked[1])
        await asyncio.gather(*held)

    run(test, run_dir)


def test_a_line_that_nobody_uses_is_closed(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "IDLE", 0.0)

    async def test(script: Script, hub: Hub) -> None:
        script.rule = lambda question: m.Done(question.request)
        for key in "abc":
            await hub.ask_for(key, ASK, m.Done)
            await asyncio.sleep(0.001)
        assert repr(hub) == "<Hub lines=2>"

    run(test, run_dir)


def test_who_stops_waiting_leaves_nothing_behind(run_dir: Path) -> None:
    async def test(script: Script, hub: Hub) -> None:
        task = asyncio.create_task(hub.ask_for("a", ASK, m.Done))
        await script.until(lambda: script.asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert hub._own["a"].line._waiting == {}
        assert hub._own["a"].users == 0
        script.answer(script.asked[0])
        script.rule = lambda question: m.Done(question.request)
        await hub.ask_for("a", ASK, m.Done)

    run(test, run_dir)
