"""The provider's shell in the simulation: what ``provider_actor``, ``provider_link``,
``provider_crew`` and ``runtime_actor`` do, around the real ProviderCore. Worker processes are
SimWorkers.

Owns: the listener for workers, the link to the hub, the processes. Must never: decide anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from guactors.config import Identity, ProviderConfig
from guactors.errors import Death
from guactors.ids import LinkKey
from guactors.messages import (
    Hello,
    HubToProvider,
    MachineInfo,
    Message,
    WorkerToProvider,
)
from guactors.provider_state import (
    Dial,
    DropHub,
    DropWorker,
    Effect,
    GiveUp,
    HaltWorker,
    ImageFacts,
    KillWorker,
    NeedImage,
    Note,
    PrepareRoot,
    ProviderCore,
    ReadIdle,
    RemoveRoot,
    SendHub,
    SendWorker,
    StartWorker,
    TakeSample,
)
from guactors.transport.base import Down, Lane, LinkFull, LinkState, PeerGone
from guactors.transport.frames import Decoder, encode, lane_of
from tests.sim import hub
from tests.sim.clock import Alarm
from tests.sim.groups import ROOM, ROOM_EACH
from tests.sim.network import LANES, SimLink, SimListener, SimTransport
from tests.sim.worker import SimWorker

if TYPE_CHECKING:
    from tests.sim.world import World

LAST_WORDS = 0.02
RETRY = 0.02
_HUB: Decoder[Message] = Decoder(HubToProvider)
_WORKERS: Decoder[Message] = Decoder(WorkerToProvider)


@dataclass
class Line:
    """The line to one worker. A lane is used only after the worker's Hello came on it."""

    key: LinkKey | None = None
    lanes: set[Lane] = field(default_factory=set)
    waiting: deque[Message] = field(default_factory=deque)


class SimProvider:
    """One life of a provider process."""

    def __init__(self, world: World, peer: str, name: str, cpus: float, warm: int) -> None:
        self.peer = peer
        self.name = name
        self.cpus = cpus
        self.warm = warm
        self.host = name
        self.workers: dict[str, SimWorker] = {}
        self.roots: set[str] = set()
        """Of which workers an image is unpacked, or being so."""
        self._world = world
        self._clock = world.clock
        self.began = world.clock.now
        given = {} if world.keys is None else world.keys.provider(name)
        identity: Identity = given.get("identity", Identity())
        user = identity.client_public
        self.transport = SimTransport(world.network, peer, name, self._news, user)
        self._listener = self.transport.listen(f"inproc://{peer}/{world.fresh('link')}")
        config = ProviderConfig(
            peer,
            name,
            [hub.ENDPOINT],
            {"CPU": cpus, "seat": 60, "GPU": 2, ROOM: ROOM_EACH},
            "",
            warm=warm,
            timing=world.timing,
            lending=world.owners.lending(),
            **given,
        )
        hello = Hello(
            peer, "provider", world.versions, 1, name, name=name, key=config.seal.key,
            transport=user,
        )  # fmt: skip
        self.core = ProviderCore(
            config, hello, fresh=world.fresh, random=world.rng.random, wall=world.wall,
            new_keypair=None if world.keys is None else world.keys.new_keypair,
        )  # fmt: skip
        self._lines: dict[str, Line] = {}
        self._greeted: dict[tuple[LinkKey, Lane], str] = {}
        self._hub: SimLink | None = None
        self._hub_up = False
        self._hub_waiting: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
        self._doomed: set[str] = set()
        self._due = False
        self._alarm = Alarm(self._clock, self._tick)
        self._perform(self.core.start(self._clock.now))
        self._settle()

    # --- ends -----------------------------------------------------------------------------------

    def kill(self) -> None:
        """kill -9: its workers notice by themselves, by their lifeline."""
        self.transport.close()
        for worker in list(self.workers.values()):
            self._clock.after(self._world.rng.random() * 0.02, worker.vanish)

    def stop(self) -> None:
        """SIGTERM."""
        self._perform(self.core.stop(self._clock.now))
        self.kill()

    def power_off(self) -> None:
        """The machine is gone with all on it, without a word."""
        self._world.network.power_off(self.host)
        self.transport.dead = True
        for worker in list(self.workers.values()):
            worker.power_off()

    # --- reading --------------------------------------------------------------------------------

    def _news(self, _source: SimLink | SimListener) -> None:
        self._nudge()

    def _nudge(self) -> None:
        if not self._due:
            self._due = True
            self._clock.after(0.0, self._service)

    def _service(self) -> None:
        self._due = False
        if self.transport.dead:
            return
        self._read_hub()
        self._read_workers()
        self._settle()

    def _tick(self) -> None:
        if not self.transport.dead:
            self._perform(self.core.on_tick(self._clock.now))
            self._settle()

    def _settle(self) -> None:
        self.core.check()
        self._alarm.set(self.core.next_wake(self._clock.now))

    def _read_hub(self) -> None:
        link = self._hub
        if link is None:
            return
        now = self._clock.now
        if link.state() is LinkState.UP and not self._hub_up:
            self._hub_up = True
            self._perform(self.core.on_hub_up(MachineInfo(), now, link.key))
        while self._hub is link and (got := link.receive()) is not None:
            message, _ = _HUB.decode(got[1])
            self._perform(self.core.on_hub_message(message, now))
        if self._hub is link and link.state() is LinkState.DOWN:
            down = link.down() or Down("lost")
            self._drop_hub()
            self._perform(self.core.on_hub_down(down.cause, down.detail, now))

    def _drop_hub(self) -> None:
        link, self._hub = self._hub, None
        self._hub_up = False
        for waiting in self._hub_waiting:
            waiting.clear()
        if link is not None:
            link.close()

    def _read_workers(self) -> None:
        if self._listener.disturbed():
            self._perform(self.core.on_disturbed(self._clock.now))
        while (got := self._listener.receive()) is not None:
            key, lane, frames = got
            message, _ = _WORKERS.decode(frames)
            worker = self._greeted.get((key, lane))
            if worker is None:
                if not isinstance(message, Hello) or message.peer not in self._lines:
                    continue
                worker = self._greeted[key, lane] = message.peer
                self._linked(worker, key, lane)
                if lane is not Lane.CONTROL:
                    continue
            self._perform(self.core.on_worker_message(worker, message, self._clock.now))

    def _linked(self, worker: str, key: LinkKey, lane: Lane) -> None:
        line = self._lines[worker]
        if line.key != key:
            line = self._lines[worker] = Line(key, set(), line.waiting)
        line.lanes.add(lane)
        self._flush_line(worker)

    # --- doing ----------------------------------------------------------------------------------

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendWorker(worker, message):
                    if worker in self._lines:
                        self._lines[worker].waiting.append(message)
                        self._flush_line(worker)
                case SendHub(message):
                    self._send_hub(message)
                case StartWorker(worker, identity):
                    self._start_worker(worker, identity.client_public)
                case KillWorker(worker, _):
                    late = self._world.rng.random() * 0.003
                    self._clock.after(late, partial(self._signal, worker))
                case HaltWorker(worker, stop):
                    self._halt(worker, stop=stop)
                case DropWorker(worker):
                    self._lines.pop(worker, None)
                    self._greeted = {k: w for k, w in self._greeted.items() if w != worker}
                case NeedImage() | PrepareRoot() | RemoveRoot():
                    self._on_image(effect)
                case Dial(endpoint):
                    self._drop_hub()
                    self._hub = self.transport.dial(endpoint)
                case DropHub():
                    self._drop_hub()
                case ReadIdle():
                    self._clock.after(0.001, self._read_idle)
                case TakeSample():
                    self._perform(self.core.on_sample(MachineInfo(), self._clock.now))
                case GiveUp(kind, detail):
                    self._world.note(f"FAULT: {self.name} gives up: {kind} {detail}")
                    self._clock.after(0.0, self.kill)
                case Note(_, text):
                    self._world.note(f"{self.name}: {text}")

    def _read_idle(self) -> None:
        if not self.transport.dead:
            readings = self._world.owners.reading(self.name)
            self._perform(self.core.on_readings(readings, self._clock.now))
            self._settle()

    def _send_hub(self, message: Message) -> None:
        frame = encode(message)
        for lane in LANES if isinstance(message, Hello) else (lane_of(message),):
            waiting = self._hub_waiting[lane]
            if waiting or not self._try_hub(lane, frame):
                if not waiting:
                    self._clock.after(RETRY, self._flush_hub)
                waiting.append(frame)

    def _try_hub(self, lane: Lane, frame: bytes) -> bool:
        if self._hub is None:
            return True
        try:
            self._hub.send(lane, [frame])
        except LinkFull:
            return False
        except PeerGone:
            return True
        return True

    def _flush_hub(self) -> None:
        for lane in LANES:
            waiting = self._hub_waiting[lane]
            while waiting and self._try_hub(lane, waiting[0]):
                waiting.popleft()
        if any(self._hub_waiting) and not self.transport.dead:
            self._clock.after(RETRY, self._flush_hub)

    def _flush_line(self, worker: str) -> None:
        line = self._lines[worker]
        held: deque[Message] = deque()
        while line.waiting and line.key is not None:
            message = line.waiting.popleft()
            lane = lane_of(message)
            if lane not in line.lanes or any(lane_of(earlier) is lane for earlier in held):
                held.append(message)
                continue
            try:
                self._listener.send(line.key, lane, [encode(message)])
            except LinkFull:
                held.append(message)
                self._clock.after(RETRY, lambda: self._retry_line(worker))
            except PeerGone:
                self._lines[worker] = Line()
                self._perform(self.core.on_worker_link_lost(worker, self._clock.now))
                return
        held.extend(line.waiting)
        line.waiting = held

    def _retry_line(self, worker: str) -> None:
        if worker in self._lines and not self.transport.dead:
            self._flush_line(worker)

    # --- images ---------------------------------------------------------------------------------

    def _on_image(self, effect: NeedImage | PrepareRoot | RemoveRoot) -> None:
        delay = self._world.rng.choice((0.001, 0.02, 0.3)) * self._world.rng.random()
        match effect:
            case NeedImage(image):
                self._clock.after(delay, partial(self._fetched, image, self._hub))
            case PrepareRoot(worker, image):
                assert worker not in self.roots, "unpacked twice"
                self.roots.add(worker)
                self._clock.after(delay, partial(self._unpacked, worker))
            case RemoveRoot(worker):
                self.roots.remove(worker)

    def _fetched(self, image: str, link: SimLink | None) -> None:
        if self.transport.dead:
            return
        now = self._clock.now
        if link is None or link is not self._hub:
            self._perform(self.core.on_image_failed(image, "link_lost", "the link broke", now))
        else:
            self._perform(self.core.on_image(ImageFacts(image), now))
        self._settle()

    def _unpacked(self, worker: str) -> None:
        if self.transport.dead:
            return
        now = self._clock.now
        if self._world.rng.random() < 0.1:
            self._perform(self.core.on_root_failed(worker, "gone", "it made room", now))
        else:
            self._perform(self.core.on_root_ready(worker, f"/roots/{worker}", now))
        self._settle()

    # --- processes ------------------------------------------------------------------------------

    def _start_worker(self, worker: str, user: str) -> None:
        self._lines[worker] = Line()
        rng = self._world.rng
        delay = 0.003 + rng.random() * (0.01 if rng.random() < 0.95 else 0.5)
        self._clock.after(delay, lambda: self._spawned(worker, user))

    def _spawned(self, worker: str, user: str) -> None:
        if self.transport.dead or worker not in self._lines:
            return
        if self._world.start_fails():
            self._ended(worker, Death("exited", "could not start", exit_code=1))
            return
        self._perform(self.core.on_worker_started(worker, 1))
        if worker in self._doomed:
            self._ended(worker, Death("signal", "killed as soon as it was there", signal=9))
            return
        self.workers[worker] = SimWorker(
            self._world, worker, self.host, self._listener.endpoint, self.reap, user
        )
        self._settle()

    def _signal(self, worker: str) -> None:
        process = self.workers.get(worker)
        if process is not None:
            process.vanish(Death("signal", signal=9))
        elif worker in self._lines:
            self._doomed.add(worker)

    def _halt(self, worker: str, *, stop: bool) -> None:
        """The processes of it are stopped, or go on."""
        process = self.workers.get(worker)
        if process is not None and process.clock.stopped != stop:
            if stop:
                process.clock.stop()
            else:
                process.clock.go_on()

    def reap(self, worker: str, death: Death) -> None:
        """The process is gone."""
        self.workers.pop(worker, None)
        late = LAST_WORDS if death.cause == "exited" else 0.001
        self._clock.after(late, lambda: self._ended(worker, death))

    def _ended(self, worker: str, death: Death) -> None:
        if self.transport.dead:
            return
        self._read_workers()
        self._perform(self.core.on_worker_ended(worker, death, self._clock.now))
        self._settle()
