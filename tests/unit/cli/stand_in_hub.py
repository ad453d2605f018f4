"""The command line against a hub that is only thought: the true gatekeeper, without a process.

``gu(...)`` runs a command in this process; what it asks goes to the gatekeeper as if over a link.
"""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from guactors import messages as m
from guactors.cli import authority
from guactors.cli.main import main
from guactors.gatekeeper_actor import read_lines
from guactors.grid_client import error_of
from guactors.grid_file import write_grid_file
from guactors.join import JoinAddress, format_join
from guactors.scheduling import events as e
from guactors.security.audit import Chain, Draft
from guactors.security.key_files import KeyFile, key_path, load_key, new_key_file, save_key
from guactors.security.keys import Kind, SecretKey
from guactors.security.signing import envelope_text
from guactors.transport.zmq_link import new_keypair
from tests.unit.hub.gatekeeper_bench import HUB, LOCAL, Bench


class Done(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """All of a command's output on stdout, which must be one line."""
        assert self.out.endswith("\n"), self
        assert self.out.count("\n") == 1, self
        return self.out.strip()


def gu(*args: str, status: int = 0) -> Done:
    """Run a command; a failure is one line on stderr, and nothing on stdout."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["gu", *args])
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code or 0
    done = Done(int(code), out.getvalue(), err.getvalue())
    assert done.status == status, done
    return done


def refused(*args: str, status: int = 1) -> str:
    """The one line of a command that fails."""
    done = gu(*args, status=status)
    assert done.out == "", done
    assert done.err.startswith("gu: "), done
    assert done.err.count("\n") == 1, done
    return done.err.strip()


def make_key(kind: Kind, name: str = "main", passphrase: str | None = None) -> KeyFile:
    """A key in the directory of keys."""
    made = new_key_file(kind, name, new_keypair, os.urandom, int(time.time()))
    save_key(key_path(kind, name), made, passphrase)
    return made


class StandIn:
    """A hub of this machine and user: the owner's key is in GU_HOME, and grid.json names it."""

    def __init__(self, directory: Path) -> None:
        self.owner = make_key(Kind.OWNER)
        self.bench = Bench([self.owner.public])
        self._keep_time()
        join = JoinAddress(
            "hub.example", 7000, new_keypair()[0], HUB.public.text, self.owner.public.text
        )
        self.address = format_join(join)
        write_grid_file(self.address, [], os.getpid(), str(directory), {})
        self.sessions: list[m.SessionRow] = []
        self.asked: list[m.Message] = []
        self.principals: list[str] = []
        self._chain = Chain()
        self.log = directory / "audit.log"
        self.log.touch()

    def _keep_time(self) -> None:
        """Commands go by the real clock, and so must this hub."""
        self.bench.drift += time.time() - self.bench.wall()

    def dial(self, file: KeyFile | None) -> e.Standing:
        """Who comes with that key; without one, the user of this machine."""
        self._keep_time()
        if file is None:
            return LOCAL
        statements = [envelope_text(one) for one in file.succession]
        verdict = self.bench.join(file.secret, successions=statements)
        if isinstance(verdict, e.TurnedAway):
            raise error_of(m.Fault(verdict.kind, verdict.detail))
        return verdict.standing

    def answer(self, question: m.Message, standing: e.Standing) -> m.Message:
        """As GridClient.ask gives it."""
        self._keep_time()
        self.asked.append(question)
        self.bench.feed(e.AuthorityAsked("c-9", standing, question))
        self._write_audit()
        for effect in self.bench.effects:
            if isinstance(effect, e.ReadAudit):
                return read_lines(self.log, effect)
        if self.bench.told(e.SessionAsked):
            return self._answer_of_sessions(question)
        [found] = self.bench.answers(m.Message)
        return found

    def _answer_of_sessions(self, question: m.Message) -> m.Message:
        if isinstance(question, m.AskSessions):
            return m.SessionList(1, self.sessions)
        assert isinstance(question, m.CloseSession)
        self.sessions = [row for row in self.sessions if row.session != question.session]
        return m.Done(1)

    def record(
        self, who: str, action: str = "submit", decision: Any = "allowed", **more: Any
    ) -> None:
        """A line in the audit log."""
        fields = {"time": time.time(), "reason": "allowed"} | more
        with self.log.open("ab") as file:
            file.write(
                self._chain.append(Draft(who=who, action=action, decision=decision, **fields))
            )

    def _write_audit(self) -> None:
        for d in self.bench.lines:
            self.record(
                d.who, d.action, d.decision, reason=d.reason, object=d.object, where=d.where,
                detail=d.detail, grant=d.grant,
            )  # fmt: skip
        self.bench.lines.clear()

    def rows(self) -> dict[str, m.KeyRow]:
        """The keys that the hub knows."""
        return {row.key: row for row in self.bench.ask(m.AskKeys(1)).keys}

    def grants(self) -> list[m.GrantRow]:
        """The grants that it keeps."""
        found: list[m.GrantRow] = self.bench.ask(m.AskGrants(1)).grants
        return found

    def knock(self, key: SecretKey, name: str = "") -> None:
        """A stranger asks to come in, and is not known."""
        verdict = self.bench.join(key, name=name)
        assert isinstance(verdict, e.TurnedAway), verdict

    def approve(self, key: SecretKey, name: str = "") -> None:
        """Let a key in, under a name."""
        self.bench.ask(m.ApproveKey(1, key.public.text, name))

    def client_type(self) -> type:
        """What stands in for GridClient."""
        stand_in = self

        class Client:
            def __init__(self, address: str | None = None, *, key: str | None = None) -> None:
                assert address in {None, "auto", stand_in.address}, address
                self._key = None if key is None else load_key(Path(key))

            def __enter__(self) -> Self:
                self._standing = stand_in.dial(self._key)
                stand_in.principals.append(self._standing.principal)
                return self

            def __exit__(self, *exc_info: object) -> None:
                pass

            def ask(self, question: m.Message, timeout: float | None = None) -> m.Message:
                found = stand_in.answer(question, self._standing)
                if isinstance(found, m.Fault):
                    raise error_of(found)
                return found

        return Client


def stand_in(monkeypatch: pytest.MonkeyPatch, directory: Path) -> StandIn:
    """A hub that commands of this test find as ``auto``, and by its address."""
    made = StandIn(directory)
    monkeypatch.setattr(authority, "GridClient", made.client_type())
    return made
