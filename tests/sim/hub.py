"""The hub's shell in the simulation: what ``hub_actor`` and ``hub_wire`` do, around the
real HubCore.

Owns: the listener, who is on it, messages that wait for room. Must never: decide anything.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from guactors.errors import ProtocolError
from guactors.hub_core import Effect, HubCore
from guactors.ids import LinkKey
from guactors.messages import Endpoint, Goodbye, Hello, Message, ToHub
from guactors.outbox_state import Outboxes
from guactors.scheduling.events import Drop, Send
from guactors.transport.base import Lane, LinkFull, PeerGone
from guactors.transport.frames import Decoder, encode, lane_of
from tests.sim.clock import Alarm
from tests.sim.network import SimLink, SimListener, SimTransport
from tests.sim.order import Order

if TYPE_CHECKING:
    from tests.sim.world import World

HOST = "hub"
ENDPOINT = Endpoint("inproc://hub", "inproc://hub")
TOOL = LinkKey("tool")
RETRY = 0.01
_DECODER: Decoder[Message] = Decoder(ToHub)


class SimHub:
    """One life of the hub process."""

    def __init__(self, world: World) -> None:
        self._world = world
        clock = world.clock
        self.transport = SimTransport(world.network, "hub", HOST, self._news)
        self._listener = self.transport.listen(ENDPOINT.control)
        self.core = HubCore(
            "h-sim",
            world.timing,
            world.fresh,
            versions=world.versions,
            now=clock.now,
            wall=world.wall,
            reservations=world.reservations,
            **(world.keys.hub() if world.keys is not None else {}),
        )
        self._answers: list[Message] = []
        self._alarm = Alarm(clock, self._tick)
        self._known: set[str] = set()
        self._outboxes = Outboxes()
        self._due = False
        self._retrying = False
        self._order = Order(world.tally, world.timing.aging)
        self._alarm.set(self.core.next_wake(clock.now))

    def kill(self) -> None:
        """kill -9."""
        self.transport.close()

    def stop(self) -> None:
        """SIGTERM."""
        self._perform(self.core.on_stopping(self._world.clock.now))
        self.transport.close()

    def _news(self, _source: SimLink | SimListener) -> None:
        if not self._due:
            self._due = True
            self._world.clock.after(0.0, self._service)

    def _service(self) -> None:
        self._due = False
        if self.transport.dead:
            return
        now = self._world.clock.now
        if self._listener.disturbed():
            self._perform(self.core.on_disturbed(now))
        while (got := self._listener.receive()) is not None:
            link, lane, frames = got
            self._known.add(link)
            try:
                message, _ = _DECODER.decode(frames)
            except ProtocolError as error:
                self._perform(self.core.on_bad_frame(link, error.kind, error.detail, now))
            else:
                user = self._listener.user_of(link)
                self._order.before(self.core.scheduler.desk)
                self._placed(self.core.on_message(link, message, now, lane, user))
        self._settle(now)

    def order(self, message: Message) -> list[Message]:
        """What a tool of the hub's own user says; the answers."""
        now = self._world.clock.now
        hello = Hello(self._world.fresh("caller"), "caller", self._world.versions, 1, HOST)
        self._answers = []
        for word in (hello, message, Goodbye("it is said")):
            self._perform(self.core.on_message(TOOL, word, now, Lane.CONTROL))
        self._settle(now)
        return self._answers

    def _tick(self) -> None:
        if not self.transport.dead:
            now = self._world.clock.now
            self._order.before(self.core.scheduler.desk)
            self._placed(self.core.on_tick(now))
            self._settle(now)

    def _placed(self, effects: list[Effect]) -> None:
        """Perform what may have given room to what waited."""
        self._order.after(self.core.scheduler.desk, effects, self._world.clock.now)
        self._perform(effects)

    def _settle(self, now: float) -> None:
        self.core.check()
        self._world.reservations = self.core.reservations
        self._alarm.set(self.core.next_wake(now))

    # --- out ------------------------------------------------------------------------------------

    def _perform(self, effects: list[Effect]) -> None:
        now = self._world.clock.now
        if self._world.keys is not None:
            self._world.keys.keep(self.core)
        todo = list(effects)
        while todo:
            effect = todo.pop(0)
            match effect:
                case Send(link, message):
                    if not self._send(link, message):
                        todo += self.core.on_undeliverable(link, message, now)
                case Drop(link, reason):
                    self._world.note(f"hub drops {link}: {reason}")
                    self._known.discard(link)
                    self._outboxes.drop(link)

    def _send(self, link: LinkKey, message: Message) -> bool:
        if link == TOOL:
            self._answers.append(message)
            return True
        lane = lane_of(message)
        frame = encode(message)
        if not self._outboxes.waiting(link, lane):
            try:
                if self._try(link, lane, frame):
                    return True
            except PeerGone:
                return False
        if not self._outboxes.put(link, lane, frame):
            return False
        self._retry_later()
        return True

    def _try(self, link: LinkKey, lane: Lane, frame: bytes) -> bool:
        if link not in self._known:
            raise PeerGone(link)
        try:
            self._listener.send(link, lane, [frame])
        except LinkFull:
            return False
        return True

    def _retry_later(self) -> None:
        if not self._retrying:
            self._retrying = True
            self._world.clock.after(RETRY, self._flush)

    def _flush(self) -> None:
        self._retrying = False
        if self.transport.dead:
            return
        for link, lane in self._outboxes:
            try:
                self._outboxes.flush(link, lane, partial(self._try, link, lane))
            except PeerGone:
                self._outboxes.drop(link)
                self._perform(self.core.on_link_gone(link, self._world.clock.now))
        if len(self._outboxes):
            self._retry_later()
