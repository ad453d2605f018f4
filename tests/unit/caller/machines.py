"""Several machines on the bench: a caller, a depot on each of the others, and workers that only
keep what they made. Messages travel in any order that links allow, drawn from a seed."""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import Any
from zlib import crc32

from guactors import messages as m
from guactors.caller.core import CallerCore
from guactors.caller.effects import NeedDepot, SendHub, SendPeer
from guactors.caller.tasks import Buffers, Task
from guactors.errors import ObjectLost, StoreFull
from guactors.objects.layout import body_size
from guactors.transport.frames import Decoder, encode

CALLER, HERE = "c-1", "s-0"
FN = b"f" * 16
ONE = m.Shape({"CPU": 1.0})
KEY = "0||CPU=1"
_ANY: Decoder[m.Message] = Decoder(m.CallerToWorker | m.WorkerToCaller)


class Block:
    """A value of one part in the memory of a machine: at first a draft."""

    def __init__(self, store: str, serial: int, size: int) -> None:
        self.word = m.Stored(store, f"m-{serial:032x}", 0, serial, [size])
        self.size = size
        self.bytes = bytearray(body_size([size]))

    def write(self, offset: int, data: Any) -> None:
        self.bytes[offset : offset + len(data)] = data

    def read(self, offset: int, length: int) -> memoryview:
        return memoryview(self.bytes)[offset : offset + length]

    def finish(self) -> Block:
        return self

    def body(self) -> memoryview:
        return memoryview(self.bytes)

    def parts(self) -> list[memoryview]:
        return [memoryview(self.bytes)[: self.size]]


class Machines:
    """``count`` machines beside the caller's, numbered from 1: provider ``p-1``, memory ``s-1``,
    worker ``w-1``, and once it is made, depot ``d-1``, which is the actor ``a-1``."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self.rng = Random(seed)
        self.now = 1000.0
        self.memory: dict[tuple[str, int], Block] = {}
        self.full: set[str] = set()
        self.broken: set[str] = set()
        """Machines whose depots do not come up."""
        self.dead: set[str] = set()
        self.read: Counter[tuple[str, str]] = Counter()
        """Bytes by who sent them to whom."""
        self.to_worker: dict[str, list[m.Message]] = {}
        self.to_hub: list[m.Message] = []
        self.cores: dict[str, CallerCore] = {}
        self._links: dict[tuple[str, str], deque[tuple[m.Message, Buffers]]] = {}
        self._serial = 0
        self.count = count
        core = self._add(CALLER, HERE)
        core.remote.depots.enable()
        core.blobs[FN] = m.Define(FN, "f", b"code")
        for number in range(1, count + 1):
            worker = f"w-{number}"
            places = self._endpoints(worker, number)
            grant = m.LeaseGranted(KEY, f"l-{number}", worker, f"p-{number}", places)
            core.demand(ONE)
            core.on_hub(grant, self.now)
        self.core = core

    def _endpoints(self, peer: str, number: int) -> list[m.Endpoint]:
        return [m.Endpoint(f"tcp://{peer}", f"tcp://{peer}", store=f"s-{number}")]

    def _add(self, name: str, store: str) -> CallerCore:
        core = self.cores[name] = CallerCore(name, store=store, patience=1e4, linger=1e4)
        core.on_hub_up(self.now)

        def attach(word: m.Stored, giver: str) -> Block:
            block = self.memory.get((word.store, word.serial))
            if word.store != store or block is None:
                raise ObjectLost("it is gone")
            return block

        def draft(sizes: list[int]) -> Block:
            if store in self.full:
                raise StoreFull(f"{store} is full")
            return self.block(store, sizes[0])

        core.objects.attach = attach  # type: ignore[assignment]
        core.remote.bringing.draft = draft  # type: ignore[assignment]
        return core

    def block(self, store: str, size: int) -> Block:
        self._serial += 1
        block = self.memory[store, self._serial] = Block(store, self._serial, size)
        return block

    def filled(self, store: str, size: int) -> Block:
        block = self.block(store, size)
        block.bytes[:size] = self.rng.randbytes(size)
        return block

    # --- what happens -----------------------------------------------------------------------------

    def put(self, size: int) -> tuple[int, bytes]:
        """A value of the caller's; its id and bytes."""
        block = self.filled(HERE, size)
        id = self.core.objects.new()
        self.core.objects.settle(id, block)  # type: ignore[arg-type]
        return id, bytes(block.bytes)

    def submit(self, **options: Any) -> int:
        """A call; its id."""
        id = self.core.objects.new()
        self.core.submit(self.core.demand(ONE), Task(id, fn=FN, name="f", **options), self.now)
        return id

    def call(self, **options: Any) -> int:
        """A call, and all that is said because of it."""
        id = self.submit(**options)
        self.run()
        return id

    def made(self, number: int, size: int, **options: Any) -> tuple[int, Block]:
        """A call whose result stays with worker ``number``; others are busy meanwhile."""
        held = []
        while self.where(id := self.call(**options)) != f"w-{number}":
            held.append(id)
        block = self.answer(id, size)
        for other in held:
            self.answer(other)
        return id, block

    def answer(self, id: int, size: int = 0) -> Block:
        """The call ended; with a ``size`` its result stays where it was made."""
        worker = self.where(id)
        block = self.filled(f"s-{worker[2:]}", size or 1)
        value = m.Value(b"", stored=block.word) if size else m.Value(b"small")
        attempt = self.core.leases.by_peer[worker].target.in_flight[id].attempt
        reply = m.Reply(id, [value], attempt)
        self._say(worker, CALLER, m.Replies([reply]), [])
        self.run()
        return block

    def where(self, id: int) -> str:
        """The worker that has the call."""
        for lease in self.core.leases.by_peer.values():
            if id in lease.target.in_flight:
                return lease.target.peer
        raise AssertionError(f"call {id} is nowhere")

    def call_at(self, id: int) -> m.Call:
        """The call as its worker got it the latest time."""
        for message in reversed(self.to_worker[self.where(id)]):
            if isinstance(message, m.Calls):
                for call in message.calls:
                    if call.id == id:
                        return call
        raise AssertionError(id)

    def end(self, peer: str) -> None:
        """A process is gone, and whoever had a link to it hears of that."""
        self.dead.add(peer)
        for link in list(self._links):
            if peer in link:
                del self._links[link]
        self.cores.pop(peer, None)
        for core in self.cores.values():
            core.on_link_down(peer, self.now)
        if peer[0] == "d":
            death = m.DeathReport("exited", "killed")
            for core in self.cores.values():
                for actor in list(core.actors.actors):
                    if actor[2:].split(".")[0] == peer[2:]:
                        core.on_hub(m.ActorUpdate(actor, "dead", 0, death=death), self.now)
        else:
            lease = m.LeaseLost(f"l-{peer[2:]}", m.DeathReport("exited", "killed"))
            self.core.on_hub(lease, self.now)
        self.run()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for core in self.cores.values():
            core.on_tick(self.now)
        self.run()

    # --- the network ------------------------------------------------------------------------------

    def run(self, steps: int = 100_000) -> None:
        """Until all is said, or so many messages were heard."""
        self._settle()
        while steps and (busy := [link for link, queue in self._links.items() if queue]):
            sender, receiver = link = self.rng.choice(busy)
            message, buffers = self._links[link].popleft()
            self._hear(sender, receiver, message, buffers)
            self._settle()
            steps -= 1

    def _settle(self) -> None:
        again = True
        while again:
            again = False
            for name, core in list(self.cores.items()):
                core.flush()
                for effect in core.take_effects():
                    again = True
                    self._do(name, core, effect)
                core.check()
                if core is self.cores[CALLER]:
                    core.remote.depots.check()

    def _do(self, name: str, core: CallerCore, effect: Any) -> None:
        match effect:
            case SendPeer(peer, message, buffers):
                self._say(name, peer, message, buffers)
            case NeedDepot(store):
                self._make_depot(store)
            case SendHub(m.WatchActor(actor)):
                self._tell_alive(core, actor)
            case SendHub(message):
                self.to_hub.append(message)

    def _make_depot(self, store: str) -> None:
        number = store[2:]
        made = sum(actor.split(".")[0] == f"a-{number}" for actor in self.core.actors.actors)
        actor = self.core.actors.add(f"a-{number}.{made}" if made else f"a-{number}", "Depot")
        if store not in self.broken:
            self.dead.discard(f"d-{number}")
            core = self._add(f"d-{number}", store)
            core.objects.places.meet(CALLER, [], "")
        self.core.remote.depots.made(store, actor)
        if store not in self.broken:
            self._tell_alive(self.core, actor.id)

    def _tell_alive(self, core: CallerCore, actor: str) -> None:
        number = actor[2:].split(".", maxsplit=1)[0]
        peer = f"d-{number}"
        latest = [one for one in self.core.actors.actors if one[2:].split(".")[0] == number][-1]
        if peer in self.cores and actor == latest:
            places = self._endpoints(peer, int(number))
            core.on_hub(m.ActorUpdate(actor, "alive", 0, peer, places), self.now)
        elif peer in self.dead or actor != latest:
            core.on_hub(m.ActorUpdate(actor, "dead", 0, death=m.DeathReport("exited")), self.now)

    def _say(self, sender: str, receiver: str, message: m.Message, buffers: Buffers) -> None:
        if not {sender, receiver} & self.dead:
            heard = _ANY.decode([encode(message), *buffers])
            self._links.setdefault((sender, receiver), deque()).append(heard)

    def _hear(self, sender: str, receiver: str, message: m.Message, buffers: Buffers) -> None:
        if isinstance(message, m.BlockChunk) and buffers:
            self.read[sender, receiver] += len(buffers[0])
        if receiver in self.cores:
            self.cores[receiver].on_peer(sender, message, buffers, self.now)
        elif isinstance(message, m.ReadBlock):
            block = self.memory[f"s-{receiver[2:]}", message.block.serial]
            part = block.read(message.offset, message.length)
            chunk = m.BlockChunk(message.request, message.offset, crc32(part))
            self._say(receiver, sender, chunk, [part])
        else:
            self.to_worker.setdefault(receiver, []).append(message)

    def copies(self, id: int) -> set[str]:
        """Memories that have a copy of the value."""
        return set(self.core.objects.places.copies.get(id, ()))
