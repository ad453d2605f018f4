"""A whole hub on the bench: what peers say goes in, what they would hear is sorted into trays, and
every invariant is checked after each event. Each message is encoded and decoded on its way, so
these tests prove the codec as well. While time passes, peers answer pings, but those in
``mute``."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import TypeVar

from guactors import messages as m
from guactors.config import Timing
from guactors.hub_core import Effect, HubCore
from guactors.ids import LinkKey
from guactors.scheduling.events import Drop, Send
from guactors.transport.base import Lane
from guactors.transport.frames import Decoder, encode, lane_of

M = TypeVar("M", bound=m.Message)

TIMING = Timing()
VERSIONS = m.Versions("0", "3.11.7")
SETTLED = TIMING.rejoin_grace + 1.0
"""A hub of this age no longer waits for anybody who knew the one before."""
ONE = m.Shape({"CPU": 1.0})

_TO_HUB: Decoder[m.Message] = Decoder(m.ToHub)
_TO_CALLER: Decoder[m.Message] = Decoder(m.HubToCaller)
_TO_PROVIDER: Decoder[m.Message] = Decoder(m.HubToProvider)


def numbered() -> Callable[[str], str]:
    """Ids ``l-1``, ``l-2``, ..."""
    numbers = count(1)
    return lambda kind: f"{kind[0]}-{next(numbers)}"


def endpoint(worker: str) -> m.Endpoint:
    return m.Endpoint(f"ipc:///run/{worker}", f"ipc:///run/{worker}", host="here")


def death(cause: str = "signal", detail: str = "") -> m.DeathReport:
    return m.DeathReport(cause, detail, provider="box")


def spec(
    actor: str = "a-1", owner: str = "c-1", session: str = "s-1", **more: object
) -> m.ActorSpec:
    shape = more.pop("shape", m.Shape({}))
    placement = more.pop("placement", {"CPU": 1.0})
    return m.ActorSpec(actor, session, owner, "Counter", shape, placement, **more)  # type: ignore[arg-type]


class Bench:
    """``now`` is moved by ``pass_time``. A fresh bench is as old as ``SETTLED`` unless
    ``young``."""

    def __init__(self, *, young: bool = False, timing: Timing = TIMING) -> None:
        self.now = 1000.0
        self.core = HubCore("h-1", timing, numbered(), versions=VERSIONS, now=self.now)
        self.link_of: dict[str, str] = {}
        self.trays: dict[str, list[m.Message]] = {}
        self.dropped: list[str] = []
        self.warrants: dict[str, list[m.WarrantWord]] = {}
        """What providers were told of sessions; not on their trays."""
        self.mute: set[str] = set()
        self._links = count(1)
        if not young:
            self.now += SETTLED

    # --- peers ----------------------------------------------------------------------------------

    def hello(self, hello: m.Hello, link: str = "") -> str:
        """Dial and say Hello; the Welcome is taken off the tray."""
        link = link or f"k-{next(self._links)}"
        self.link_of[hello.peer] = link
        self.trays.setdefault(hello.peer, [])
        self.feed(link, hello)
        assert self.trays[hello.peer], f"no answer to {hello}"
        welcome = self.trays[hello.peer].pop(0)
        assert isinstance(welcome, m.Welcome), welcome
        return link

    def caller(
        self, peer: str = "c-1", session: str = "s-1", *, root: bool = True, python: str = "3.11.7"
    ) -> str:
        versions = m.Versions("0", python)
        return self.hello(
            m.Hello(peer, "caller", versions, 1, "here", session, root, namespace="space")
        )

    def provider(
        self,
        peer: str = "p-1",
        cpus: float = 2.0,
        *,
        name: str = "",
        python: str = "3.11.7",
        labels: dict[str, str] | None = None,
        leases: list[m.LeaseReport] | None = None,
        actors: list[m.ActorReport] | None = None,
        availability: m.Availability = m.LENT,
        **resources: float,
    ) -> str:
        versions = m.Versions("0", python)
        link = self.hello(
            m.Hello(peer, "provider", versions, 1, "here", name=name or peer.replace("p-", "box"))
        )
        offer = m.Offer(
            {"CPU": cpus, **resources}, labels or {}, leases or [], actors or [],
            m.MachineInfo(availability=availability),
        )  # fmt: skip
        self.say(peer, offer)
        return link

    def say(self, peer: str, *messages: m.Message) -> None:
        """Messages of a peer over its link."""
        for message in messages:
            self.feed(self.link_of[peer], message)

    def feed(self, link: str, message: m.Message, lane: Lane | None = None) -> None:
        """A message on any link."""
        decoded, _ = _TO_HUB.decode([encode(message)])
        self.carry(self.core.on_message(LinkKey(link), decoded, self.now, lane))

    def bad_frame(self, link: str, kind: str = "malformed") -> None:
        self.carry(self.core.on_bad_frame(LinkKey(link), kind, "made up", self.now))

    def break_link(self, peer: str) -> None:
        """Its connection is gone, and the hub has evidence."""
        self.carry(self.core.on_link_gone(LinkKey(self.link_of.pop(peer)), self.now))

    def carry(self, effects: list[Effect]) -> None:
        """Into the trays, as the peers' own decoders read it."""
        peer_of = {link: peer for peer, link in self.link_of.items()}
        for effect in effects:
            match effect:
                case Send(link, message):
                    peer = peer_of.get(link, link)
                    decoder = _TO_PROVIDER if peer.startswith("p-") else _TO_CALLER
                    decoded, _ = decoder.decode([encode(message)])
                    assert decoded == message
                    if isinstance(decoded, m.Warrant):
                        self.warrants.setdefault(peer, []).append(decoded.warrant)
                        continue
                    self.trays.setdefault(peer, []).append(decoded)
                    assert lane_of(decoded) is lane_of(message)
                case Drop(link):
                    self.dropped.append(link)
        self.core.check()

    # --- trays ----------------------------------------------------------------------------------

    def heard(self, peer: str, kind: type[M]) -> list[M]:
        """Take all messages of a kind off a peer's tray."""
        tray = self.trays.get(peer, [])
        found = [message for message in tray if isinstance(message, kind)]
        self.trays[peer] = [message for message in tray if not isinstance(message, kind)]
        return found

    def one(self, peer: str, kind: type[M]) -> M:
        """Take the only message of a kind."""
        found = self.heard(peer, kind)
        assert len(found) == 1, f"{peer} heard {found}, and {self.trays.get(peer)}"
        return found[0]

    def nothing_more(self) -> None:
        """No tray holds anything but heartbeats."""
        left = {
            peer: [x for x in tray if not isinstance(x, m.Ping | m.Pong)]
            for peer, tray in self.trays.items()
        }
        assert not any(left.values()), left

    # --- time -----------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """Tick whenever the hub asks for it; peers that are not mute answer its pings."""
        end = self.now + seconds
        while True:
            wake = self.core.next_wake(self.now)
            if wake is None or wake > end:
                break
            self.now = max(self.now, wake)
            self.carry(self.core.on_tick(self.now))
            self._pong()
        self.now = end

    def _pong(self) -> None:
        for peer in list(self.link_of):
            for ping in self.heard(peer, m.Ping):
                if peer not in self.mute:
                    self.say(peer, m.Pong(ping.number))

    # --- short cuts -----------------------------------------------------------------------------

    def demand(self, peer: str = "c-1", key: str = "d-1", count: int = 1, **shape: object) -> None:
        resources = shape.pop("resources", {"CPU": 1.0})
        self.say(peer, m.SetDemand(key, m.Shape(resources, **shape), count))  # type: ignore[arg-type]

    def start_leases(self) -> list[m.StartLease]:
        """Every provider starts what it was told to."""
        started = []
        for peer in [peer for peer in self.link_of if peer.startswith("p-")]:
            for order in self.heard(peer, m.StartLease):
                worker = order.lease.replace("l-", "w-")
                self.say(peer, m.LeaseStarted(order.lease, worker, [endpoint(worker)]))
                started.append(order)
        return started

    def granted(self, peer: str = "c-1") -> list[str]:
        """Ids of the leases the caller was given since."""
        return [grant.lease for grant in self.heard(peer, m.LeaseGranted)]

    def leases(
        self, peer: str = "c-1", count: int = 1, key: str = "d-1", **shape: object
    ) -> list[str]:
        """``count`` leases for a caller, granted."""
        self.demand(peer, key, count, **shape)
        self.start_leases()
        found = self.granted(peer)
        assert len(found) == count, f"granted {found}"
        return found

    def create(self, made: m.ActorSpec, peer: str = "") -> None:
        self.say(peer or made.owner, m.CreateActor(1, made, b"class"))

    def start_actors(self) -> list[m.StartActor]:
        """Every provider starts the actors it was told to."""
        started = []
        for peer in [peer for peer in self.link_of if peer.startswith("p-")]:
            for order in self.heard(peer, m.StartActor):
                worker = f"w-{order.spec.actor}-{order.incarnation}"
                self.say(
                    peer,
                    m.ActorStarted(order.spec.actor, order.incarnation, worker, [endpoint(worker)]),
                )
                started.append(order)
        return started

    def actor(self, made: m.ActorSpec | None = None) -> m.ActorUpdate:
        """An actor, alive; what its owner heard last."""
        made = made or spec()
        self.create(made)
        self.start_actors()
        updates = self.heard(made.owner, m.ActorUpdate)
        assert [x.state for x in updates] == ["pending", "alive"], updates
        return updates[-1]

    def grid(self, peer: str = "c-1") -> m.GridInfo:
        self.say(peer, m.AskGrid(9))
        return self.one(peer, m.Grid).info
