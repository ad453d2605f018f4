"""A caller's core on the bench: what the user, the hub and the workers do goes in, effects are
sorted into trays, and every invariant is checked after each event. Messages are encoded and decoded
on their way, so these tests prove the codec as well."""

from __future__ import annotations

import pickle
from typing import Any, TypeVar

from guactors import messages as m
from guactors.caller.actors import RemoteActor
from guactors.caller.core import CallerCore
from guactors.caller.effects import Dial, Hangup, SendHub, SendPeer
from guactors.caller.tasks import Buffers, Task
from guactors.transport.frames import Decoder, encode

M = TypeVar("M", bound=m.Message)

FN = b"f" * 16
ONE = m.Shape({"CPU": 1.0})
KEY = "0||CPU=1"

_TO_HUB: Decoder[m.Message] = Decoder(m.CallerToHub)
_FROM_HUB: Decoder[m.Message] = Decoder(m.HubToCaller)
_TO_WORKER: Decoder[m.Message] = Decoder(m.CallerToWorker)
_FROM_WORKER: Decoder[m.Message] = Decoder(m.WorkerToCaller)


def endpoints(worker: str) -> list[m.Endpoint]:
    return [m.Endpoint(f"ipc:///run/{worker}", f"ipc:///run/{worker}")]


def value(data: bytes = b"v", **more: Any) -> m.Value:
    return m.Value(data, **more)


def error(text: str = "no") -> m.Value:
    return m.Value(pickle.dumps(ValueError(text)), 0, True)


class Bench:
    """``now`` is moved by ``pass_time``."""

    def __init__(self, **options: Any) -> None:
        self.core = CallerCore("c-1", **options)
        self.core.blobs[FN] = m.Define(FN, "f", b"code")
        self.now = 1000.0
        self.to_hub: list[m.Message] = []
        self.to_worker: dict[str, list[tuple[m.Message, Buffers]]] = {}
        self.dialled: list[str] = []
        self.hung_up: list[str] = []
        self.core.on_hub_up(self.now)
        self._settle()
        self.to_hub.clear()

    def _settle(self) -> None:
        self.core.flush()
        for effect in self.core.take_effects():
            match effect:
                case SendHub(message):
                    self.to_hub.append(_TO_HUB.decode([encode(message)])[0])
                case SendPeer(peer, message, buffers):
                    sent = _TO_WORKER.decode([encode(message), *buffers])
                    self.to_worker.setdefault(peer, []).append(sent)
                case Dial(peer):
                    self.dialled.append(peer)
                case Hangup(peer):
                    self.hung_up.append(peer)
        self.core.check()

    # --- the user -------------------------------------------------------------------------------

    def call(self, home: Any = None, **options: Any) -> int:
        """Submit a call of ``f``, or of a method where ``home`` is an actor; its id."""
        returns = options.get("returns", 1)
        id = self.core.objects.new(max(1, returns))
        method = {"method": "go"} if isinstance(home, RemoteActor) else {"fn": FN}
        task = Task(id, **{"name": "f", **method, **options})
        self.core.submit(home or self.core.demand(ONE), task, self.now)
        self._settle()
        return id

    def put(self, data: bytes = b"v", *, contains: list[int] | None = None) -> int:
        id = self.core.objects.new()
        for inner in contains or ():
            self.core.objects.hold(inner)
        self.core.objects.settle(id, data, contains=contains)
        self._settle()
        return id

    def cancel(self, id: int, *, force: bool = False) -> None:
        self.core.cancel(id, self.now, force=force)
        self._settle()

    def drop(self, *ids: int) -> None:
        for id in ids:
            self.core.objects.drop(id)
        self._settle()

    def actor(self, name: str = "a-1") -> RemoteActor:
        actor = self.core.actors.add(name, "Counter")
        actor.handles = 1
        spec = m.ActorSpec(name, "s-1", "c-1", "Counter", m.Shape({}))
        self.core.actors.create(actor, m.CreateActor(1, spec, b"payload"))
        self._settle()
        return actor

    # --- the grid -------------------------------------------------------------------------------

    def hub(self, message: m.Message) -> None:
        self.core.on_hub(_FROM_HUB.decode([encode(message)])[0], self.now)
        self._settle()

    def says(self, worker: str, message: m.Message, *buffers: bytes) -> None:
        heard, frames = _FROM_WORKER.decode([encode(message), *buffers])
        self.core.on_peer(worker, heard, frames, self.now)
        self._settle()

    def relink(self) -> list[m.Message]:
        """The hub came back; what it is told."""
        self.to_hub.clear()
        self.core.on_hub_up(self.now)
        self._settle()
        told, self.to_hub = self.to_hub, []
        return told

    def lose(self, worker: str) -> None:
        self.core.on_link_down(worker, self.now)
        self._settle()

    def pass_time(self, seconds: float) -> None:
        """Tick whenever the core wants to be woken."""
        end = self.now + seconds
        while True:
            wake = self.core.next_wake(self.now)
            if wake is None or wake > end:
                break
            self.now = max(self.now + 1e-4, wake)
            self.core.on_tick(self.now)
            self._settle()
        self.now = end
        self.core.on_tick(self.now)
        self._settle()

    def grant(self, lease: str = "l-1", worker: str = "w-1") -> None:
        self.hub(m.LeaseGranted(KEY, lease, worker, "p-1", endpoints(worker)))

    def alive(self, actor: str = "a-1", incarnation: int = 0, worker: str = "w-1") -> None:
        self.hub(m.ActorUpdate(actor, "alive", incarnation, worker, endpoints(worker)))

    def reply(self, worker: str, id: int, *values: m.Value, attempt: int = 0) -> None:
        self.says(worker, m.Replies([m.Reply(id, list(values) or [value()], attempt)]))

    # --- what came of it --------------------------------------------------------------------------

    def told(self, kind: type[M]) -> list[M]:
        """Everything of a kind that the hub was told since the last look."""
        found = [x for x in self.to_hub if isinstance(x, kind)]
        self.to_hub = [x for x in self.to_hub if not isinstance(x, kind)]
        return found

    def sent(self, worker: str, kind: type[M]) -> list[M]:
        """Everything of a kind that a worker was sent since the last look."""
        tray = self.to_worker.get(worker, [])
        self.to_worker[worker] = [x for x in tray if not isinstance(x[0], kind)]
        return [x for x, _ in tray if isinstance(x, kind)]

    def calls(self, worker: str) -> list[int]:
        """Ids of the calls a worker was sent since the last look."""
        return [call.id for batch in self.sent(worker, m.Calls) for call in batch.calls]

    def data(self, id: int) -> bytes | None:
        return self.core.objects.entries[id].data

    def failure(self, id: int) -> BaseException | None:
        """The error of a settled call, None while it is pending."""
        entry = self.core.objects.entries[id]
        assert entry.data is None or entry.error, f"{id} returned {entry.data!r}"
        return None if entry.data is None else pickle.loads(entry.data)

    def kept(self) -> list[int]:
        return list(self.core.objects.entries)
