"""A network in memory: links and listeners as ``transport.base`` promises them, and their faults.

Owns: every message between being sent and being received, the hosts and what lies between them.
Must never: pass an object by reference, reorder a lane, deliver twice, or lose a message of a link
that lives. Between the two lanes of a link nothing is promised, and nothing is kept.

Who sends on a link that broke a moment ago does not know it yet: the message vanishes. The news
travels like a message, and while the way is cut nothing travels at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from random import Random
from typing import TYPE_CHECKING

from guactors.ids import LinkKey
from guactors.messages import Endpoint
from guactors.transport.base import (
    Doors,
    Down,
    Frame,
    Lane,
    Link,
    LinkFull,
    LinkState,
    Listener,
    PeerGone,
    Transport,
)
from tests.sim.clock import Clock
from tests.sim.flow import Flow

LANES = (Lane.CONTROL, Lane.DATA)
DIAL_PATIENCE = 3.0
"""As in zmq_link: a dial that nobody answers is given up."""
SILENCE = 20.0
"""As in zmq_link: the kernels give up a connection across which nothing has passed for so long."""
DOOR_PATIENCE = 1.0
DOOR_LOOK = 0.01
"""As in worker.admission: seconds for which an unknown key may become known; how often to look."""
IN, OUT = 0, 1
"""Directions of a link: to the listener, to the dialling side."""

News = Callable[["SimLink | SimListener"], None]


class Way:
    """One direction of one lane: what is under way, in order."""

    __slots__ = ("last", "stalled", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[list[bytes]] = deque()
        self.last = 0.0
        self.stalled = 0


class SimLink:
    """Implements ``transport.base.Link``; the pipe to its listener as well."""

    def __init__(self, network: Network, party: SimTransport, endpoint: Endpoint, key: str) -> None:
        self.key = LinkKey(key)
        self.endpoint = endpoint
        self.party = party
        self.number = next(network.numbers)
        self.born = network.clock.now
        self.listener: SimListener | None = None
        self.broken = False
        self.ways = ((Way(), Way()), (Way(), Way()))
        self.inbox: tuple[deque[list[Frame]], deque[list[Frame]]] = (deque(), deque())
        self._network = network
        self._state = LinkState.DIALING
        self._down: Down | None = None

    # --- the port -------------------------------------------------------------------------------

    def send(self, lane: Lane, frames: Sequence[Frame]) -> None:
        if self._state is LinkState.DOWN:
            raise PeerGone(f"link {self.key} is down")
        self._network.put(self, IN, lane, frames)

    def receive(self, lane: Lane | None = None) -> tuple[Lane, list[Frame]] | None:
        for one in LANES if lane is None else (lane,):
            if self.inbox[one]:
                return one, self.inbox[one].popleft()
        return None

    def state(self) -> LinkState:
        # As with sockets, the end is seen after all that came before it.
        if self._state is LinkState.DOWN and any(self.inbox):
            return LinkState.UP
        return self._state

    def down(self) -> Down | None:
        return self._down

    def filenos(self, lane: Lane | None = None) -> tuple[int, ...]:
        return (self.number,)

    def close(self) -> None:
        if self._state is not LinkState.DOWN:
            self._state, self._down = LinkState.DOWN, Down("closed")
            self._network.hang_up(self)
        for inbox in self.inbox:
            inbox.clear()

    # --- the network's side -----------------------------------------------------------------------

    def stand(self, listener: SimListener) -> None:
        """The handshake is done."""
        self.listener = listener
        if self._state is LinkState.DIALING:
            self._state = LinkState.UP
            self.party.tell(self)

    def fall(self, cause: str) -> None:
        """The dialling side hears of the end."""
        if self._state is not LinkState.DOWN:
            self._state, self._down = LinkState.DOWN, Down(cause)
            self.party.tell(self)


class SimListener:
    """Implements ``transport.base.Listener``."""

    def __init__(
        self, network: Network, party: SimTransport, address: str, doors: Doors | None
    ) -> None:
        self.endpoint = Endpoint(address, address)
        self.party = party
        self.doors = doors
        self.faults = 0
        self.refused = 0
        self.number = next(network.numbers)
        self.inbox: tuple[deque[tuple[LinkKey, list[Frame]]], ...] = (deque(), deque())
        self.links: dict[tuple[str, Lane], SimLink] = {}
        self._network = network
        self._disturbed = False

    def user_of(self, peer: LinkKey) -> str:
        link = next((self.links[at] for lane in LANES if (at := (peer, lane)) in self.links), None)
        return "" if link is None else link.party.user

    def admits(self, link: SimLink) -> bool:
        """Whether its holder may speak here: by a socket of the own user anybody may."""
        user = link.party.user
        return not user or self.doors is None or self.doors.admits(user)

    def send(self, peer: LinkKey, lane: Lane, frames: Sequence[Frame]) -> None:
        link = self.links.get((peer, lane))
        if link is None:
            raise PeerGone(f"no link {peer} on the {lane.name} lane")
        self._network.put(link, OUT, lane, frames)

    def receive(self, lane: Lane | None = None) -> tuple[LinkKey, Lane, list[Frame]] | None:
        for one in LANES if lane is None else (lane,):
            if self.inbox[one]:
                key, frames = self.inbox[one].popleft()
                return key, one, frames
        return None

    def disturbed(self) -> bool:
        disturbed, self._disturbed = self._disturbed, False
        return disturbed

    def filenos(self, lane: Lane | None = None) -> tuple[int, ...]:
        return (self.number,)

    def close(self) -> None:
        self._network.unbind(self)

    def lose(self, link: SimLink) -> None:
        """A connection broke."""
        for lane in LANES:
            self.links.pop((link.key, lane), None)
        self._disturbed = True
        self.party.tell(self)


class SimTransport:
    """Implements ``transport.base.Transport`` for one process. ``news`` is called when one of its
    links or listeners may have some; not any more once the process is ``dead``. ``user``: the CURVE
    key by which listeners know it, empty for one that uses local sockets."""

    def __init__(
        self, network: Network, process: str, host: str, news: News, user: str = ""
    ) -> None:
        self.process = process
        self.host = host
        self.user = user
        self.dead = False
        self._network = network
        self._news = news

    def listen(
        self, address: str, *, data_address: str | None = None, doors: Doors | None = None
    ) -> SimListener:
        return self._network.bind(self, address, doors)

    def dial(self, endpoint: Endpoint) -> SimLink:
        return self._network.dial(self, endpoint)

    def close(self) -> None:
        self._network.kill(self)

    def tell(self, source: SimLink | SimListener) -> None:
        """``source`` has news."""
        if not self.dead:
            self._news(source)


class Network:
    """Between the hosts. ``room`` is how many messages one lane holds before it is full."""

    def __init__(self, clock: Clock, rng: Random, flow: Flow) -> None:
        self.numbers = count(1)
        self.clock = clock
        self.flow = flow
        self.room = 1000
        self.slow: dict[frozenset[str], float] = {}
        self.links: dict[str, SimLink] = {}
        self._rng = rng
        self._listeners: dict[str, SimListener] = {}
        self._cuts: set[frozenset[str]] = set()
        self._counts: dict[frozenset[str], int] = {}
        self._gone: set[str] = set()
        self._later: list[tuple[str, str, Callable[[], None]]] = []

    # --- what lies between hosts ------------------------------------------------------------------

    def open(self, one: str, other: str) -> bool:
        """Whether anything passes."""
        if self._gone and (one in self._gone or other in self._gone):
            return False
        return not self._cuts or one == other or frozenset((one, other)) not in self._cuts

    def cut(self, one: str, other: str) -> None:
        """Nothing passes from now on, and nobody is told."""
        way = frozenset((one, other))
        self._cuts.add(way)
        self._counts[way] = count = self._counts.get(way, 0) + 1

        def give_up() -> None:
            if way in self._cuts and self._counts[way] == count:
                self._break_across(lambda here, there: {here, there} == way)

        self.clock.after(SILENCE, give_up)

    def _break_across(self, across: Callable[[str, str], bool]) -> None:
        """Both ends of these links find out by themselves."""
        for link in list(self.links.values()):
            listener = link.listener
            if listener is not None and across(link.party.host, listener.party.host):
                link.broken = True
                del self.links[link.key]
                link.fall("lost")
                listener.lose(link)

    def heal(self, one: str, other: str) -> None:
        """What was held up goes on its way."""
        self._cuts.discard(frozenset((one, other)))
        for link in list(self.links.values()):
            for direction in (IN, OUT):
                for lane in LANES:
                    way = link.ways[direction][lane]
                    stalled, way.stalled = way.stalled, 0
                    for _ in range(stalled):
                        self._travel(link, direction, lane)
        later, self._later = self._later, []
        for source, target, action in later:
            self.when_open(source, target, action)

    def power_off(self, host: str) -> None:
        """The host and all on it are gone, and nobody is told."""
        self._gone.add(host)
        self.clock.after(SILENCE, lambda: self._break_across(lambda *ends: host in ends))

    def when_open(self, one: str, other: str, action: Callable[[], None]) -> None:
        """Do it after a journey, when there is a way."""
        if self.open(one, other):
            self.clock.after(self._delay(one, other), action)
        else:
            self._later.append((one, other, action))

    def _delay(self, one: str, other: str) -> float:
        draw = self._rng.random()
        if draw < 0.9:
            delay = 0.00005 + 0.001 * draw
        elif draw < 0.99:
            delay = 0.2 * (draw - 0.9)
        else:
            delay = 30.0 * (draw - 0.99)
        if self.slow:
            delay *= self.slow.get(frozenset((one, other)), 1.0)
        return delay

    # --- links ----------------------------------------------------------------------------------

    def bind(self, party: SimTransport, address: str, doors: Doors | None = None) -> SimListener:
        if address in self._listeners:
            raise OSError(f"{address} is in use")
        listener = self._listeners[address] = SimListener(self, party, address, doors)
        return listener

    def unbind(self, listener: SimListener) -> None:
        if self._listeners.get(listener.endpoint.control) is listener:
            del self._listeners[listener.endpoint.control]
        for link in [x for x in self.links.values() if x.listener is listener]:
            self.snap(link)

    def dial(self, party: SimTransport, endpoint: Endpoint) -> SimLink:
        link = SimLink(self, party, endpoint, f"k{next(self.numbers)}")
        self.links[link.key] = link
        self.clock.after(self._delay(party.host, party.host), lambda: self._connect(link))
        self.clock.after(DIAL_PATIENCE, lambda: self._give_up(link))
        return link

    def _connect(self, link: SimLink) -> None:
        if link.broken:
            return
        listener = self._listeners.get(link.endpoint.control)
        if listener is None:
            self.snap(link, "unreachable")
        elif self.open(link.party.host, listener.party.host):
            if not listener.admits(link):
                self._wait_at_the_door(link, listener)
                return
            link.stand(listener)
            for lane in LANES:
                for _ in link.ways[IN][lane].waiting:
                    self._travel(link, IN, lane)
        else:
            self._later.append((link.party.host, listener.party.host, lambda: self._connect(link)))

    def _wait_at_the_door(self, link: SimLink, listener: SimListener) -> None:
        if self.clock.now < link.born + DOOR_PATIENCE:
            self.clock.after(DOOR_LOOK, lambda: self._connect(link))
        else:
            listener.refused += 1
            self.snap(link, "auth")

    def _give_up(self, link: SimLink) -> None:
        if link.listener is None and not link.broken:
            self.snap(link, "unreachable")

    def put(self, link: SimLink, direction: int, lane: Lane, frames: Sequence[Frame]) -> None:
        """Send it on its way."""
        if link.broken:
            return  # the sender has not heard yet
        way = link.ways[direction][lane]
        if len(way.waiting) >= self.room:
            raise LinkFull(f"{link.key} {lane.name}")
        way.waiting.append([bytes(frame) for frame in frames])
        if link.listener is not None:
            self._travel(link, direction, lane)

    def _travel(self, link: SimLink, direction: int, lane: Lane) -> None:
        assert link.listener is not None
        way = link.ways[direction][lane]
        now = self.clock.now
        way.last = max(way.last, now + self._delay(link.party.host, link.listener.party.host))
        self.clock.at(way.last, lambda: self._arrive(link, direction, lane))

    def _arrive(self, link: SimLink, direction: int, lane: Lane) -> None:
        listener, way = link.listener, link.ways[direction][lane]
        if link.broken or listener is None:
            return
        if not self.open(link.party.host, listener.party.host):
            way.stalled += 1
            return
        frames: list[Frame] = list(way.waiting.popleft())
        now, dialler = self.clock.now, link.party.process
        if direction == IN:
            if not listener.admits(link):
                listener.faults += 1
                return
            self.flow.message(now, dialler, listener.party.process, lane, frames[0])
            listener.links[link.key, lane] = link
            listener.inbox[lane].append((link.key, frames))
            listener.party.tell(listener)
        elif link.state() is not LinkState.DOWN:
            self.flow.message(now, listener.party.process, dialler, lane, frames[0])
            link.inbox[lane].append(frames)
            link.party.tell(link)

    # --- ends -----------------------------------------------------------------------------------

    def snap(self, link: SimLink, cause: str = "lost") -> None:
        """The connection is gone with all that is on it; both ends hear of it by and by."""
        if link.broken:
            return
        link.broken = True
        self.links.pop(link.key, None)
        here = link.party.host
        there = link.listener.party.host if link.listener is not None else here
        self.when_open(there, here, lambda: link.fall(cause))
        listener = link.listener
        if listener is not None:
            self.when_open(here, there, lambda: listener.lose(link))

    def hang_up(self, link: SimLink) -> None:
        """The dialling side closed it: what it has sent still arrives, if it can soon."""
        listener = link.listener
        if listener is None or not self.open(link.party.host, listener.party.host):
            self.snap(link)
            return
        end = max(self.clock.now, *(way.last for way in link.ways[IN]))
        self.clock.at(end, lambda: self.snap(link))

    def kill(self, party: SimTransport) -> None:
        """The process is gone: its side of every link hears nothing more. What it sent last may
        still be on its way, or not."""
        party.dead = True
        for listener in [x for x in self._listeners.values() if x.party is party]:
            del self._listeners[listener.endpoint.control]
        for link in list(self.links.values()):
            if link.party is party or (link.listener and link.listener.party is party):
                if link.listener is not None and self._rng.random() < 0.5:
                    late = self._delay(link.party.host, link.listener.party.host)
                    self.clock.after(late, partial(self.snap, link))
                else:
                    self.snap(link)


if TYPE_CHECKING:
    _LINK: type[Link] = SimLink
    _LISTENER: type[Listener] = SimListener
    _TRANSPORT: type[Transport] = SimTransport
