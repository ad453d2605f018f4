"""The shell of the gatekeeper in the hub process.

Owns: its room, :class:`guactors.gatekeeper_state.GatekeeperState`, and the two files of what the
hub must not forget: the store and the audit log. Must never: decide, or let an effect out before
what comes before it is safe on the disk.

Effects that must be safe first wait until all events are taken in that have come meanwhile: a
crowd at the door costs one write to the disk and not one each. A write that fails ends the hub:
what was decided must not be done if it cannot be kept.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from guactors.actors import Actor, ActorRef, Priority
from guactors.actors.supervision import Cause
from guactors.config import HubConfig
from guactors.errors import GuactorsError, MailboxFull
from guactors.gatekeeper_state import GatekeeperState, approve_listed
from guactors.messages import AuditLines, Fault
from guactors.room_actor import RoomActor, epoch_seconds
from guactors.scheduling import events as e
from guactors.security.keys import Kind, parse_public
from guactors.store.base import Op, Store
from guactors.store.memory import MemoryStore

if TYPE_CHECKING:
    from guactors.security.audit import Draft
    from guactors.security.audit_file import AuditFile

log = logging.getLogger("guactors.hub")

STORE_FILE: Final = "hub.sqlite"
AUDIT_FILE: Final = "audit.log"
"""In the hub's data directory."""
QUESTIONS: Final = 64
"""Of the audit log that may wait; a reader with more is told to come back."""
LINES_MOST: Final = 1000
ANSWER_MOST: Final = 4 * 2**20
"""Bytes of lines in one answer."""


class Flush:
    """All events are taken in that came before this."""


FLUSH = Flush()


class Archive:
    """The store and the audit log of a hub. Without a data directory it forgets at its end, and
    keeps no log.

    Raises UsageError when one of the files cannot be used, AuditBroken when the log is damaged."""

    def __init__(self, data: str) -> None:
        self.audit_path = Path(data) / AUDIT_FILE if data else None
        self.audit: AuditFile | None = None
        self.store: Store = MemoryStore()
        if self.audit_path is not None:
            # Here: a grid of one machine should not pay for loading a database.
            from guactors.security.audit_file import AuditFile
            from guactors.store.sqlite import SqliteStore

            self.store = SqliteStore(Path(data) / STORE_FILE)
            try:
                self.audit = AuditFile(self.audit_path)
            except BaseException:
                self.store.close()
                raise

    def drafts(self, decisions: list[e.Decision], epoch: int) -> list[Draft]:
        """What to write of decisions that were just taken; nothing where there is no log."""
        if self.audit is None:
            return []
        from guactors.security.audit import Draft

        now = time.time()
        return [
            Draft(
                now, d.who, d.action, "allowed" if d.decision == "allowed" else "refused", d.reason,
                d.object, d.where, d.detail, d.grant, epoch,
            )
            for d in decisions
        ]  # fmt: skip

    def keep(self, ops: list[Op], drafts: list[Draft]) -> None:
        """Make these safe, in this order; they are on return."""
        if ops:
            self.store.apply(ops)
        if drafts and self.audit is not None:
            self.audit.append(drafts)

    def close(self) -> None:
        """Let go of both."""
        self.store.close()
        if self.audit is not None:
            self.audit.close()


class GatekeeperActor(RoomActor):
    """Keys, grants, invitations, tokens, and the log of what was decided about them.

    ``archive``: an open one, which is then this actor's to close; None: that of ``config.data``."""

    room: GatekeeperState

    def __init__(self, hub: ActorRef, config: HubConfig, archive: Archive | None = None) -> None:
        super().__init__()
        self.hub = hub
        self._archive = archive or Archive(config.data)
        self._reader: ActorRef | None = None
        self._ops: list[Op] = []
        self._drafts: list[Draft] = []
        self._waiting: list[e.Effect] = []
        self._flushing = False
        try:
            self.room = self._make_room(config)
        except BaseException:
            self._archive.close()
            raise

    def _make_room(self, config: HubConfig) -> GatekeeperState:
        store = self._archive.store
        key = parse_public(config.key, Kind.HUB) if config.key else None
        owners = [parse_public(owner, Kind.OWNER) for owner in config.owners]
        store.apply(approve_listed(config.approved, store.load().keys, time.time()))
        return GatekeeperState(
            key,
            owners,
            store.load(),
            random=os.urandom,
            wall=epoch_seconds,
        )

    def on_stop(self, _cause: Cause) -> None:
        """Write down what was only counted, and close the files."""
        try:
            self._flushing = True  # and nobody listens any more to what waits
            self.carry(self.room.last_words(), self.context.now())
            self._archive.keep(self._ops, self._drafts)
        finally:
            self._archive.close()

    def receive(self, message: Any) -> None:
        """An event, the alarm, or the end of a crowd."""
        if isinstance(message, Flush):
            self._flush()
        else:
            super().receive(message)

    def carry(self, effects: list[e.Effect], now: float) -> None:
        """Let them go, or wait for the disk with them and all that come after."""
        others: list[e.Effect] = []
        for effect in effects:
            match effect:
                case e.Persist(ops):
                    self._ops += ops
                case e.Record(decisions):
                    self._drafts += self._archive.drafts(decisions, self.room.epoch)
                case _:
                    others.append(effect)
        if self._flushing:
            self._waiting += others
        elif self._ops or self._drafts:
            self._flushing, self._waiting = True, others
            self.context.self_ref.tell(FLUSH)
        else:
            self._let_go(others, now)

    def _flush(self) -> None:
        """Make safe what must be, then let the rest go in its order."""
        ops, drafts, waiting = self._ops, self._drafts, self._waiting
        self._ops, self._drafts, self._waiting, self._flushing = [], [], [], False
        self._archive.keep(ops, drafts)
        self._let_go(waiting, self.context.now())

    def _let_go(self, effects: list[e.Effect], now: float) -> None:
        passed: list[e.Effect] = []
        for effect in effects:
            passed += self._read(effect) if isinstance(effect, e.ReadAudit) else [effect]
        super().carry(passed, now)

    def _read(self, asked: e.ReadAudit) -> list[e.Effect]:
        request = asked.question.request
        if self._archive.audit_path is None:
            return [e.ToPeer(asked.peer, AuditLines(request, []))]
        if self._reader is None:
            self._reader = self.context.spawn(
                AuditReader, self.hub, self._archive.audit_path, mailbox_size=QUESTIONS
            )
        try:
            self._reader.tell(asked)
        except MailboxFull:
            text = f"{QUESTIONS} questions to the audit log wait already: ask again later"
            return [e.ToPeer(asked.peer, Fault("MailboxFull", text, request))]
        return []


class AuditReader(Actor):
    """Answers questions out of the log, one after the other, on another thread: a filter that
    matches little reads for seconds, and the hub must go on meanwhile."""

    def __init__(self, hub: ActorRef, path: Path) -> None:
        self._hub = hub
        self._path = path

    async def receive(self, asked: e.ReadAudit) -> None:
        """One question."""
        answer = await asyncio.to_thread(read_lines, self._path, asked)
        self._hub.tell([e.ToPeer(asked.peer, answer)], priority=Priority.HIGH)


def read_lines(path: Path, asked: e.ReadAudit) -> AuditLines | Fault:
    """The answer to a question to the log ``path``: lines as they stand there."""
    from guactors.security import canonical
    from guactors.security.audit import Filter
    from guactors.security.audit_reader import read_log

    question = asked.question
    wanted = Filter(
        question.who, question.action, question.decision, question.reason, question.since
    )
    limit = min(question.limit, LINES_MOST)
    try:
        entries = read_log(path, wanted, after=question.after, limit=limit, newest=question.newest)
    except GuactorsError as error:
        log.warning("the audit log cannot be read: %s", error)
        return Fault("UsageError", str(error), question.request)
    lines: list[str] = []
    last, size = question.after, 0
    for entry in entries:
        line = canonical.encode(entry).decode()
        size += len(line)
        if lines and size > ANSWER_MOST:
            break
        lines.append(line)
        last = entry.number
    return AuditLines(question.request, lines, last)
