"""Who may look at what: the questions of people who look inside, and where they go.

Owns: the table from listings to who knows them, the sight of each asker, the hub's own listing of
sessions. Must never: read a question further than its ``what``, or an answer at all.

Whoever may read statistics sees what belongs to its own principal; who may do everything sees all,
but not from inside a worker, where other people's code may run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from guactors import messages as m
from guactors.caller.lookout import OUTCOMES, STATES, SUMMARY_COLUMNS, TASK_COLUMNS
from guactors.errors import UsageError
from guactors.hub_state.desk import TO_SCHEDULER, HubDesk
from guactors.hub_state.inquiries import Inquirer
from guactors.hub_state.peers import Peer
from guactors.hub_state.sessions import Title, principal_of
from guactors.listing import Listing, Row, Snapshots, nearest
from guactors.scheduling import events as e
from guactors.scheduling.listings import NAMES

OF_CALLERS: Final = frozenset({"tasks", "task-summary", "objects"})
TALLIED: Final = frozenset({"tasks", "task-summary"})
"""Of these the hub itself knows what workers that have left had to tell."""
OF_PROVIDERS: Final = frozenset({"workers", "stack", "native-stack"})
SESSIONS: Final = "sessions"
KNOWN: Final = OF_CALLERS | OF_PROVIDERS | {SESSIONS} | NAMES
"""All listings; those of no set above are the scheduler's."""
SESSION_COLUMNS: Final = ("session_id", "principal", "name", "callers", "age_s")
"""Those that the hub knows; what they use the scheduler does."""


class LookingRules:
    """Works on ``desk``."""

    def __init__(self, desk: HubDesk) -> None:
        self._desk = desk
        self._snapshots = Snapshots()

    def sources(self, asker: Peer, message: m.AskSources) -> list[e.Effect]:
        """Answer AskSources."""
        if message.what not in KNOWN:
            text = f"there is no listing {message.what!r}; {nearest(message.what, sorted(KNOWN))}"
            return self._desk.send(asker, m.Fault("UsageError", text, message.request))
        if message.what in OF_CALLERS:
            found = [
                m.SourceRow(peer.id, peer.hello.name, peer.hello.session)
                for peer in self._desk.peers
                if self._asked_of_callers(asker, peer)
            ]
        elif message.what in OF_PROVIDERS:
            found = [
                m.SourceRow(peer.id, peer.hello.name)
                for peer in self._desk.peers
                if self._asked_of_providers(asker, peer)
            ]
        else:
            found = [m.SourceRow("")]
        if message.what in TALLIED and self._tallied(asker):
            found.insert(0, m.SourceRow(""))
        return self._desk.send(asker, m.Sources(message.request, found))

    def inquire(self, asker: Peer, message: m.Inquire, now: float) -> list[e.Effect]:
        """Pass the question on, or answer it."""
        what = message.query.what
        if what in TALLIED and not message.peer:
            return self._answer(asker, message, lambda: self._tallies(asker, what))
        if what in OF_CALLERS or what in OF_PROVIDERS:
            return self._pass_on(asker, message, now)
        if what == SESSIONS:
            rows = self._sessions(asker, now)
            return [
                e.ToRoom(TO_SCHEDULER, e.SessionsAsked(asker.id, message, SESSION_COLUMNS, rows))
            ]
        return [e.ToRoom(TO_SCHEDULER, e.FromPeer(asker.id, message))]

    def _pass_on(self, asker: Peer, message: m.Inquire, now: float) -> list[e.Effect]:
        desk = self._desk
        target = desk.peers.by_id.get(message.peer)
        may = self._asked_of_callers
        if message.query.what in OF_PROVIDERS:
            may = self._asked_of_providers
        if target is None or target.link is None or not may(asker, target):
            text = f"{message.peer or 'nobody'}: no such process that you may look at is linked"
            return desk.send(asker, m.Fault("PeerLost", text, message.request))
        number = desk.inquiries.ask(asker.id, message.request, target.id, now)
        if not number:
            text = "too many of your questions are under way: wait for their answers"
            return desk.send(asker, m.Fault("UsageError", text, message.request))
        desk.wake_at(desk.inquiries.next_wake())
        sight = None if _sees_all(asker) else desk.sessions.of(asker.standing.principal)
        return desk.send(target, m.Inquiry(number, asker.id, message.query, sight))

    def findings(self, source: Peer, message: m.Findings) -> list[e.Effect]:
        """Pass an answer back; one that nobody waits for, or not any more, goes nowhere."""
        one = self._desk.inquiries.answered(source.id, message.number)
        if one is None:
            return []
        answer: m.Message = m.Page(one.request, message.page)
        if message.kind:
            answer = m.Fault(message.kind, message.detail, one.request)
        return self._desk.deliver(one.asker, answer)

    def expire(self, now: float) -> list[e.Effect]:
        """Answers that did not come."""
        return [x for one in self._desk.inquiries.expire(now) for x in self._in_vain(one)]

    def _in_vain(self, one: Inquirer) -> list[e.Effect]:
        text = f"{one.target} has not answered: it may be stuck, or too busy; ask again"
        return self._desk.deliver(one.asker, m.Fault("PeerLost", text, one.request))

    # --- sight ----------------------------------------------------------------------------------

    def _asked_of_callers(self, asker: Peer, peer: Peer) -> bool:
        if peer.role != "caller" or not peer.hello.session:
            return False
        return _sees_all(asker) or peer.standing.principal == asker.standing.principal

    def _asked_of_providers(self, asker: Peer, peer: Peer) -> bool:
        if peer.role != "provider":
            return False
        sessions = self._desk.sessions
        return _sees_all(asker) or any(
            sessions.works_for(peer.id, session)
            for session in sessions.of(asker.standing.principal)
        )

    # --- what the hub knows itself --------------------------------------------------------------

    def tally(self, worker: Peer, rows: list[m.TallyRow]) -> list[e.Effect]:
        """A worker leaves, and its calls are to be counted on."""
        sessions = self._desk.sessions
        if worker.hello.session in sessions:
            sessions.tallies.add(worker.hello.session, rows)
        return []

    def _answer(
        self, asker: Peer, message: m.Inquire, make: Callable[[], Listing]
    ) -> list[e.Effect]:
        try:
            page = self._snapshots.page(asker.id, message.query, lambda _: make())
        except UsageError as error:
            return self._desk.send(asker, m.Fault("UsageError", str(error), message.request))
        return self._desk.send(asker, m.Page(message.request, page))

    def _titles(self, asker: Peer) -> list[Title]:
        """Of the sessions that the asker may hear of."""
        mine = asker.standing.principal
        return [
            title for title in self._desk.sessions.titles()
            if _sees_all(asker) or principal_of(title) == mine
        ]  # fmt: skip

    def _tallied(self, asker: Peer) -> dict[str, list[int]]:
        seen = [title.session for title in self._titles(asker)]
        return self._desk.sessions.tallies.of(seen)

    def _tallies(self, asker: Peer, what: str) -> Listing:
        """Calls of workers that have left: counts, and as rows nothing."""
        counts = self._tallied(asker)
        if what == "tasks":
            return Listing(TASK_COLUMNS, [], sum(sum(row) for row in counts.values()))
        none = [0] * (len(STATES) - len(OUTCOMES))
        rows: list[Row] = [(name, sum(row), *none, *row) for name, row in sorted(counts.items())]
        return Listing(SUMMARY_COLUMNS, rows)

    def _sessions(self, asker: Peer, now: float) -> list[Row]:
        return [
            (t.session, principal_of(t), t.name, self._callers_of(t.session),
             round(max(0.0, now - t.since), 3))
            for t in self._titles(asker)
        ]  # fmt: skip

    def _callers_of(self, session: str) -> int:
        return sum(p.hello.session == session and p.role == "caller" for p in self._desk.peers)


def _sees_all(asker: Peer) -> bool:
    return asker.standing.rights.everything and asker.standing.kind != e.WORKER
