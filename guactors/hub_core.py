"""The whole hub in one deterministic piece: its rooms and the routes between them.

Owns: carrying effects from room to room until only sends and drops are left; what would go to the
disk is collected. Must never: think (the rooms do), do I/O, read a clock, draw randomness of its
own. Used by the simulation and by tests; the hub process runs the same rooms inside actors
(``hub_actor``), and there images too, which live on a disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from guactors.config import Timing
from guactors.gatekeeper_state import GatekeeperState
from guactors.hub_state import HubState
from guactors.ids import LinkKey
from guactors.messages import AuditLines, Fault, Message, ReservationSpec, Versions
from guactors.scheduling import events as e
from guactors.scheduling.state import SchedulerState
from guactors.security.marks import Mark, no_mark
from guactors.session_state import SessionState
from guactors.stats_state import StatsState
from guactors.store.base import Op, Snapshot
from guactors.transport.base import Lane

Effect = e.Send | e.Drop | e.ShutOut
NO_VERSIONS = Versions("", "")


class HubCore:
    """``fresh`` draws ids (:func:`guactors.ids.fresh` in the field, a seeded one in a simulation);
    ``now`` is when the hub starts. Without a ``gatekeeper`` only local processes can take part.

    ``ops`` and ``decisions``: what the gatekeeper had stored and written to the audit log;
    ``reservations``: those kept for the next hub, of which it is made with those of the last."""

    def __init__(
        self,
        hub_id: str,
        timing: Timing,
        fresh: Callable[[str], str],
        *,
        versions: Versions = NO_VERSIONS,
        now: float = 0.0,
        gatekeeper: GatekeeperState | None = None,
        key: str = "",
        wall: Callable[[float], float] = float,
        mark: Mark = no_mark,
        reservations: Sequence[ReservationSpec] = (),
    ) -> None:
        self.timing = timing
        self.hub = HubState(hub_id, timing, versions, now, key=key, wall=wall, mark=mark)
        self.scheduler = SchedulerState(
            timing, fresh, now, wall=wall, mark=mark, reservations=reservations
        )
        self.reservations = list(reservations)
        self.gatekeeper = gatekeeper or GatekeeperState(
            None, [], Snapshot(), random=bytes, wall=wall
        )
        self.ops: list[Op] = []
        self.decisions: list[e.Decision] = []
        self.stats = StatsState()
        self.sessions: dict[str, SessionState] = {}

    def __repr__(self) -> str:
        return f"<HubCore {self.hub!r} {self.scheduler!r}>"

    # --- events ---------------------------------------------------------------------------------

    def on_message(
        self,
        link: LinkKey,
        message: Message,
        now: float,
        lane: Lane | None = None,
        user: str = "",
    ) -> list[Effect]:
        """A message arrived. ``lane`` where both lanes are told apart, ``user`` as in Arrived."""
        return self.on_event(e.Arrived(link, message, lane, user), now)

    def on_bad_frame(self, link: LinkKey, kind: str, detail: str, now: float) -> list[Effect]:
        """Something arrived that is no message; ``kind`` as in ProtocolError."""
        return self.on_event(e.BadFrame(link, kind, detail), now)

    def on_link_gone(self, link: LinkKey, now: float) -> list[Effect]:
        """The link is certainly gone."""
        return self.on_event(e.LinkGone(link), now)

    def on_undeliverable(self, link: LinkKey, _message: Message, now: float) -> list[Effect]:
        """A Send found no link. The message itself needs no care: state is told again."""
        return self.on_event(e.LinkGone(link), now)

    def on_disturbed(self, now: float) -> list[Effect]:
        """Some link broke: find out which."""
        return self.on_event(e.Disturbed(), now)

    def on_stopping(self, now: float) -> list[Effect]:
        """Say goodbye to everybody."""
        return self.on_event(e.Stopping(), now)

    def on_event(self, event: e.Event, now: float) -> list[Effect]:
        """Any event for the hub's own room."""
        return self._carry(self.hub.handle(event, now), now)

    def on_tick(self, now: float) -> list[Effect]:
        """Let every room do what is due."""
        effects = self._carry(self.hub.on_tick(now), now)
        effects += self._carry(self.scheduler.on_tick(now), now)
        effects += self._carry(self.gatekeeper.on_tick(now), now)
        for session in list(self.sessions.values()):
            effects += self._carry(session.on_tick(now), now)
        return effects

    def next_wake(self, now: float) -> float | None:
        """The earliest wake of all rooms."""
        rooms: list[e.Room] = [self.hub, self.scheduler, self.gatekeeper, *self.sessions.values()]
        wakes = [wake for room in rooms if (wake := room.next_wake(now)) is not None]
        return min(wakes, default=None)

    # --- routes ---------------------------------------------------------------------------------

    def _carry(self, effects: list[e.Effect], now: float) -> list[Effect]:
        out: list[Effect] = []
        queue = deque(effects)
        while queue:
            effect = queue.popleft()
            match effect:
                case e.Send() | e.Drop() | e.ShutOut():
                    out.append(effect)
                case e.Persist(ops):
                    self.ops += ops
                case e.KeepReservations(reservations):
                    self.reservations = reservations
                case e.Record(decisions):
                    self.decisions += decisions
                case e.ReadAudit(peer, question):
                    queue.append(e.ToPeer(peer, AuditLines(question.request, [])))
                case e.ToPeer(peer, message):
                    queue.extend(self.hub.deliver(peer, message))
                case e.ToRoom(room, event):
                    queue.extend(self._tell(room, event, now))
                case e.ToSession(session, event):
                    queue.extend(self._session(session, now).handle(event, now))
        return out

    def _tell(self, room: e.RoomName, event: e.Event, now: float) -> list[e.Effect]:
        match room:
            case e.RoomName.SCHEDULER:
                return self.scheduler.handle(event, now)
            case e.RoomName.STATS:
                return self.stats.handle(event, now)
            case e.RoomName.GATEKEEPER:
                return self.gatekeeper.handle(event, now)
            case e.RoomName.IMAGES:
                return self._no_images(event)
            case e.RoomName.HUB:
                effects = self.hub.handle(event, now)
                for session in [x for x in self.sessions if x not in self.hub.sessions]:
                    del self.sessions[session]
                return effects

    @staticmethod
    def _no_images(event: e.Event) -> list[e.Effect]:
        if not isinstance(event, e.ImagesAsked):
            return []
        request = getattr(event.message, "request", 0)
        return [e.ToPeer(event.peer, Fault("ImageRefused", "this hub keeps no images", request))]

    def _session(self, session: str, now: float) -> SessionState:
        room = self.sessions.get(session)
        if room is None:
            room = self.sessions[session] = SessionState(session, self.timing, now)
        return room

    def check(self) -> None:
        """Every invariant of every room, and between them."""
        self.hub.check()
        self.scheduler.check()
        desk = self.scheduler.desk
        providers = {peer.id for peer in self.hub.peers if peer.role == "provider"}
        callers = {peer.id for peer in self.hub.peers if peer.role == "caller"}
        assert desk.slots.keys() == providers, f"{desk.slots.keys()} != {providers}"
        assert desk.callers.keys() == callers, f"{desk.callers.keys()} != {callers}"
        assert set(self.hub.sessions) == self.sessions.keys()
