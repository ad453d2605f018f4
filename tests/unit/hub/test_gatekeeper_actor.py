"""The gatekeeper's shell: nothing is told before it is on the disk, and all of it is there again
after a start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from guactors import gatekeeper_actor
from guactors import messages as m
from guactors.actors import Actor, ActorRef, ActorSystem
from guactors.actors.supervision import Failed
from guactors.config import HubConfig, Seal
from guactors.errors import UsageError
from guactors.gatekeeper_actor import AUDIT_FILE, STORE_FILE, Archive, GatekeeperActor, read_lines
from guactors.ids import LinkKey
from guactors.scheduling import events as e
from guactors.security.audit import Draft, Entry
from guactors.security.audit_file import AuditFile
from guactors.security.audit_reader import read_log, verify_log
from guactors.security.keys import Kind
from guactors.store.sqlite import SqliteStore
from tests.unit.hub.gatekeeper_bench import APP, HUB, LOCAL, OWNER, PROVIDER, Bench, secret

PATIENCE = 10.0
Hub = Callable[[list[e.Effect]], None]


class Listener(Actor):
    """Stands for the HubActor."""

    def __init__(self, hear: Hub) -> None:
        self._hear = hear

    def receive(self, message: list[e.Effect]) -> None:
        self._hear(message)


class Stage:
    """A gatekeeper's actor; what it tells the hub is in ``told``."""

    def __init__(self, config: HubConfig, *, hear: Hub | None = None) -> None:
        self.config = config
        self.told: list[e.Effect] = []
        self._hear = hear
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.system = await ActorSystem("t").__aenter__()
        hub = self.system.spawn(Listener, self._take, mailbox_size=None)
        self.ref: ActorRef = self.system.spawn(GatekeeperActor, hub, self.config, mailbox_size=None)
        return self

    async def __aexit__(self, *what: object) -> None:
        await self.system.__aexit__(*what)  # type: ignore[arg-type]

    def _take(self, effects: list[e.Effect]) -> None:
        if self._hear is not None:
            self._hear(effects)
        self.told += effects
        self._news.set()

    def answers(self) -> list[m.Message]:
        return [effect.message for effect in self.told if isinstance(effect, e.ToPeer)]

    def tell(self, message: m.Message) -> None:
        self.ref.tell(e.AuthorityAsked("c-1", LOCAL, message))

    async def ask(self, *messages: m.Message) -> list[Any]:
        """The answers to these, which are put in the mailbox at once."""
        before = len(self.answers())
        for message in messages:
            self.tell(message)
        async with asyncio.timeout(PATIENCE):
            while len(self.answers()) < before + len(messages):
                self._news.clear()
                await self._news.wait()
        return self.answers()[before:]


def config(data: Path | None, **more: Any) -> HubConfig:
    fields: dict[str, Any] = {
        "key": HUB.public.text, "owners": [OWNER.public.text], "data": str(data or ""),
    }  # fmt: skip
    fields |= more
    return HubConfig("h-1", [], "", seal=Seal(fields.pop("key")), **fields)


def run(play: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(play(), 2 * PATIENCE))


def entries(data: Path) -> list[Entry]:
    return read_log(data / AUDIT_FILE, limit=1000)


def test_what_was_decided_is_there_after_a_start(tmp_path: Path) -> None:
    async def play() -> None:
        async with Stage(config(tmp_path)) as stage:
            (done,) = await stage.ask(m.ApproveKey(1, APP.public.text, "prod"))
            assert isinstance(done, m.Done)
            (done,) = await stage.ask(m.RevokeKey(1, PROVIDER.public.text))
        async with Stage(config(tmp_path)) as stage:
            (listed,) = await stage.ask(m.AskKeys(1))
            states = {row.kind: (row.state, row.name) for row in listed.keys}
            assert states["app"] == ("approved", "prod")
            assert states["provider"] == ("revoked", "")
            (first,) = [x for x in stage.told if isinstance(x, e.ToRoom)]
            assert isinstance(first.event, e.RevocationsAre)
            assert first.event.message.epoch == 1

    run(play)
    lines = [entry for entry in entries(tmp_path) if entry.action != "audit"]
    assert [(x.action, x.object, x.epoch) for x in lines] == [
        ("approve", APP.public.text, 0), ("revoke", PROVIDER.public.text, 1),
    ]  # fmt: skip
    assert verify_log(tmp_path / AUDIT_FILE).number == len(entries(tmp_path))


def test_the_hub_hears_of_nothing_that_is_not_on_the_disk(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def hear(effects: list[e.Effect]) -> None:
        if any(isinstance(x, e.ToPeer) for x in effects):
            seen.append([entry.action for entry in entries(tmp_path)])

    async def play() -> None:
        async with Stage(config(tmp_path), hear=hear) as stage:
            await stage.ask(m.ApproveKey(1, APP.public.text))
            await stage.ask(m.MakeInvitation(2, "app"))

    run(play)
    assert [actions[1:] for actions in seen] == [["approve"], ["approve", "invite"]]


def test_a_crowd_costs_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    append = AuditFile.append

    def counted(self: AuditFile, drafts: list[Draft]) -> None:
        writes.append(len(drafts))
        append(self, drafts)

    async def play() -> None:
        async with Stage(config(tmp_path)) as stage:
            await stage.ask(m.AskKeys(0))
            monkeypatch.setattr(AuditFile, "append", counted)
            orders = [m.ApproveKey(n, secret(Kind.APP, n).public.text) for n in range(1, 101)]
            answers = await stage.ask(*orders, m.AskKeys(101))
            assert [answer.request for answer in answers] == list(range(1, 102))

    run(play)
    assert sum(writes) == 100
    assert len(writes) < 20
    assert len(entries(tmp_path)) == 101


def test_what_cannot_be_written_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise UsageError("the disk is full")

    async def play() -> None:
        async with Stage(config(tmp_path)) as stage:
            (listed,) = await stage.ask(m.AskKeys(1))
            assert len(listed.keys) == 1
            monkeypatch.setattr(AuditFile, "append", full)
            stage.tell(m.ApproveKey(2, APP.public.text))
            cause = await asyncio.wait_for(stage.system.wait_dead(stage.ref), PATIENCE)
            assert isinstance(cause, Failed)
            assert not [x for x in stage.answers() if isinstance(x, m.Done)]

    run(play)
    SqliteStore(tmp_path / STORE_FILE).close()


def test_listed_keys_come_in_and_counts_are_written_at_the_end(tmp_path: Path) -> None:
    async def play() -> None:
        async with Stage(config(tmp_path, approved=[PROVIDER.public.text])) as stage:
            (listed,) = await stage.ask(m.AskKeys(1))
            assert {row.key for row in listed.keys if row.state == "approved"} == {
                OWNER.public.text, PROVIDER.public.text,
            }  # fmt: skip
            hello = Bench().hello(APP, role="provider")
            for _ in range(3):
                stage.ref.tell(e.Knocked(LinkKey("k-1"), hello.transport, hello))
            await stage.ask(m.AskKeys(2))

    run(play)
    assert [x.detail.partition(";")[0] for x in entries(tmp_path) if x.action == "join"] == [
        "not proved: a provider needs a key of kind provider, this one is of kind app",
        "repeated: 2",
    ]


def test_a_hub_without_a_directory_forgets(tmp_path: Path) -> None:
    async def play() -> None:
        async with Stage(config(None)) as stage:
            await stage.ask(m.ApproveKey(1, APP.public.text))
            (lines,) = await stage.ask(m.AskAudit(2))
            assert lines == m.AuditLines(2, [])
        async with Stage(config(None)) as stage:
            (listed,) = await stage.ask(m.AskKeys(1))
            assert [row.kind for row in listed.keys] == ["owner"]

    run(play)
    assert not list(tmp_path.iterdir())


def test_a_hub_without_a_key_serves_the_local_user(tmp_path: Path) -> None:
    async def play() -> None:
        async with Stage(config(None, key="", owners=[])) as stage:
            (listed,) = await stage.ask(m.AskKeys(1))
            assert listed == m.KeyList(1, [])

    run(play)


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": OWNER.public.text},
        {"owners": [APP.public.text]},
        {"owners": ["x"]},
        {"approved": [OWNER.public.text]},
    ],
)
def test_a_wrong_configuration_leaves_no_file_locked(tmp_path: Path, wrong: Any) -> None:
    async def play() -> None:
        async with ActorSystem("t") as system:
            ref = system.spawn(GatekeeperActor, None, config(tmp_path, **wrong))
            cause = await asyncio.wait_for(system.wait_dead(ref), PATIENCE)
            assert "UsageError" in repr(cause)

    run(play)
    Archive(str(tmp_path)).close()


def test_a_log_in_use_leaves_the_store_free(tmp_path: Path) -> None:
    log = AuditFile(tmp_path / AUDIT_FILE)
    with pytest.raises(UsageError):
        Archive(str(tmp_path))
    log.close()
    Archive(str(tmp_path)).close()


# --- reading the log ----------------------------------------------------------------------------


def test_the_log_is_read_while_the_hub_goes_on(tmp_path: Path) -> None:
    async def play() -> None:
        async with Stage(config(tmp_path)) as stage:
            answers = await stage.ask(
                m.ApproveKey(1, APP.public.text),
                m.AskAudit(2, action="approve"),
                m.AskKeys(3),
            )
            (lines,) = [x for x in answers if isinstance(x, m.AuditLines)]
            (entry,) = [msgspec.json.decode(line, type=Entry) for line in lines.lines]
            assert (entry.action, entry.object) == ("approve", APP.public.text)
            assert lines.last == entry.number

    run(play)


def written(data: Path, count: int) -> Path:
    path = data / AUDIT_FILE
    log = AuditFile(path)
    log.append([Draft(float(n), f"who {n}", "run", "refused", "image") for n in range(count)])
    log.close()
    return path


def asked(**fields: Any) -> e.ReadAudit:
    return e.ReadAudit("c-1", m.AskAudit(7, **fields))


def ask_log(path: Path, **fields: Any) -> m.AuditLines:
    answer = read_lines(path, asked(**fields))
    assert isinstance(answer, m.AuditLines), answer
    return answer


def numbers(answer: m.AuditLines) -> list[int]:
    return [msgspec.json.decode(line, type=Entry).number for line in answer.lines]


def test_pages_follow_each_other_in_both_directions(tmp_path: Path) -> None:
    path = written(tmp_path, 9)
    for newest, whole in ((False, list(range(1, 11))), (True, list(range(10, 0, -1)))):
        found: list[int] = []
        after = 0
        while (page := ask_log(path, after=after, limit=4, newest=newest)).lines:
            found += numbers(page)
            after = page.last
        assert found == whole


def test_questions_are_filtered(tmp_path: Path) -> None:
    path = written(tmp_path, 9)
    assert numbers(ask_log(path, who="who 3")) == [5]
    assert numbers(ask_log(path, reason="quota", after=2)) == []
    assert numbers(ask_log(path, action="run", decision="allowed")) == []
    assert numbers(ask_log(path, action="run", since=7.0)) == [10, 9]


def test_an_answer_is_not_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, 9)
    monkeypatch.setattr(gatekeeper_actor, "ANSWER_MOST", 1)
    answer = ask_log(path, newest=False)
    assert (numbers(answer), answer.last) == ([1], 1)


def test_a_damaged_log_is_answered_with_a_fault(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    path.write_bytes(path.read_bytes().replace(b'"who 1"', b'"who 1'))
    answer = read_lines(path, asked())
    assert isinstance(answer, m.Fault)
    assert (answer.kind, answer.request) == ("UsageError", 7)


def test_too_many_questions_wait_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gatekeeper_actor, "QUESTIONS", 2)

    async def play() -> None:
        async with Stage(config(tmp_path)) as stage:
            answers = await stage.ask(*[m.AskAudit(n) for n in range(20)])
            kinds = {type(answer) for answer in answers}
            assert kinds == {m.AuditLines, m.Fault}
            assert {x.kind for x in answers if isinstance(x, m.Fault)} == {"MailboxFull"}

    run(play)
