"""The latest figures of every provider, and the answers made of them.

Owns: samples, and how often work has given way on which provider. Must never: ask a provider
(answers come from what was told last, with its age), or do I/O.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from msgspec.structs import replace

from guactors.messages import AskInfo, Fault, Info, MachineInfo, Offer, Sample
from guactors.scheduling import events as e
from guactors.scheduling.thrash import tally


@dataclass(slots=True)
class Figures:
    """What a provider told last."""

    name: str
    info: MachineInfo | None = None
    at: float = 0.0
    workers: int = 0
    preemptions: Counter[str] = field(default_factory=Counter)


class StatsState:
    """A :class:`guactors.scheduling.events.Room`."""

    def __init__(self) -> None:
        self.providers: dict[str, Figures] = {}

    def __repr__(self) -> str:
        return f"<StatsState providers={len(self.providers)}>"

    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        """Take one event."""
        match event:
            case e.ProviderJoined(peer, name):
                self.providers.setdefault(peer, Figures(name)).name = name
            case e.ProviderLeft(peer):
                self.providers.pop(peer, None)
            case e.GaveWay(peer, mode, reason, cycle) if peer in self.providers:
                self.providers[peer].preemptions.update(tally(mode, reason, cycle))
            case e.FromPeer(peer, message):
                return self._from_peer(peer, message, now)
            case e.GridAsked():
                return self._fill(event)
        return []

    def on_tick(self, _now: float) -> list[e.Effect]:
        """Nothing here depends on time."""
        return []

    def next_wake(self, _now: float) -> float | None:
        """Never."""
        return None

    def _from_peer(self, peer: str, message: object, now: float) -> list[e.Effect]:
        match message:
            case Offer() | Sample():
                figures = self.providers.get(peer)
                if figures is not None:
                    figures.info, figures.at = message.info, now
                    if isinstance(message, Sample):
                        figures.workers = message.workers
            case AskInfo(request, wanted):
                return [e.ToPeer(peer, self._answer(request, wanted, now))]
        return []

    def _answer(self, request: int, wanted: str, now: float) -> Info | Fault:
        for peer, figures in self.providers.items():
            if wanted in (peer, figures.name) and figures.info is not None:
                age = max(0.0, now - figures.at)
                return Info(request, peer, figures.info, age, dict(figures.preemptions))
        known = ", ".join(sorted(figures.name for figures in self.providers.values())[:8])
        text = f"no provider is called {wanted!r}; there are: {known or 'none'}"
        return Fault("UsageError", text, request)

    def _fill(self, event: e.GridAsked) -> list[e.Effect]:
        peers = [
            replace(row, workers=figures.workers, preemptions=dict(figures.preemptions))
            if (figures := self.providers.get(row.peer)) is not None
            else row
            for row in event.info.peers
        ]
        filled = replace(event, info=replace(event.info, peers=peers))
        return [e.ToRoom(e.RoomName.SCHEDULER, filled)]
