"""A provider core on the bench: events go in, effects are sorted into trays, invariants are checked
after each event. While time passes, hub and workers answer pings, but those in ``mute``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, TypeVar

from msgspec.structs import replace

from guactors.config import Identity, ProviderConfig, Timing
from guactors.errors import Death
from guactors.messages import (
    ActorLoaded,
    ActorSpec,
    Displaced,
    Endpoint,
    Hello,
    MachineInfo,
    Message,
    Ping,
    Pong,
    Shape,
    StartActor,
    StartLease,
    Versions,
    Warrant,
    WarrantWord,
    Welcome,
    WorkerReady,
)
from guactors.provider_state import (
    DropWorker,
    Effect,
    ImageFacts,
    KillWorker,
    NeedImage,
    PrepareRoot,
    ProviderCore,
    RemoveRoot,
    SendHub,
    SendWorker,
    StartWorker,
)

M = TypeVar("M", bound=Message)

VERSIONS = Versions("0", "3.11.7")
HELLO = Hello("p-1", "provider", VERSIONS, 1, "here", name="tester")
HUB = Endpoint("ipc:///run/hub", "ipc:///run/hub")
OTHER_HUB = Endpoint("tcp://10.0.0.1:1", "tcp://10.0.0.1:1", "key")

EPOCH = 1_800_000_000.0
"""What the wall clock shows at monotonic second 0."""


def endpoint(worker: str) -> Endpoint:
    return Endpoint(f"ipc:///run/{worker}", f"ipc:///run/{worker}", host="here")


class Bench:
    """``now`` is moved by ``pass_time``; ``other`` collects the effects without a tray."""

    def __init__(self, *, up: bool = True, **options: Any) -> None:
        given = {"resources": {"CPU": 2.0}, "hub": [HUB], "timing": Timing(), **options}
        config = ProviderConfig(provider="p-1", name="tester", run_dir="/run", **given)
        seal = config.seal.key
        hello = replace(HELLO, key=seal, transport=config.identity.client_public)
        numbers, pairs = count(1), count(1)

        def new_keypair() -> tuple[str, str]:
            number = next(pairs)
            return f"public-{number}", f"secret-{number}"

        self.core = ProviderCore(
            config,
            hello,
            fresh=lambda kind: f"{kind[0]}-{next(numbers)}",
            random=lambda: 0.5,
            wall=lambda now: now + EPOCH,
            new_keypair=new_keypair if config.listen_host else None,
        )
        self.now = 1000.0
        self.warranted: set[str] = set()
        self.to_hub: list[Message] = []
        self.to_worker: dict[str, list[Message]] = {}
        self.starting: list[str] = []
        self.identities: dict[str, Identity] = {}
        self.killed: dict[str, str] = {}
        self.other: list[Effect] = []
        self.fetching: set[str] = set()
        self.preparing: set[str] = set()
        self.roots: set[str] = set()
        """Workers with a directory, or that are to have one."""
        self.mute: set[str] = set()
        self.pinged: list[str] = []
        self.do(self.core.start(self.now))
        if up:
            self.hub_up()
            self.to_hub.clear()

    # --- events ---------------------------------------------------------------------------------

    def do(self, effects: Iterable[Effect]) -> list[Effect]:
        done = list(effects)
        for effect in done:
            match effect:
                case SendHub(Ping()):
                    self.pinged.append("hub")
                case SendWorker(worker, Ping()):
                    self.pinged.append(worker)
                case SendHub(message):
                    self.to_hub.append(message)
                case SendWorker(worker, message):
                    self.to_worker.setdefault(worker, []).append(message)
                case StartWorker(worker, identity):
                    self.starting.append(worker)
                    self.identities[worker] = identity
                case KillWorker(worker, cause):
                    assert worker not in self.killed, "killed twice"
                    self.killed[worker] = cause
                case DropWorker(worker):
                    self.to_worker.pop(worker, None)
                case _:
                    self._note(effect)
        self.core.check()
        return done

    def _note(self, effect: Effect) -> None:
        self.other.append(effect)
        match effect:
            case NeedImage(image):
                assert image not in self.fetching, "fetched twice at a time"
                self.fetching.add(image)
            case PrepareRoot(worker):
                assert worker not in self.roots, "unpacked twice"
                self.roots.add(worker)
                self.preparing.add(worker)
            case RemoveRoot(worker):
                self.roots.remove(worker)

    def image_here(self, facts: ImageFacts) -> None:
        self.fetching.discard(facts.image)
        self.do(self.core.on_image(facts, self.now))

    def image_failed(self, image: str, reason: str, detail: str = "") -> None:
        self.fetching.discard(image)
        self.do(self.core.on_image_failed(image, reason, detail, self.now))

    def root_ready(self, worker: str) -> None:
        self.preparing.discard(worker)
        self.do(self.core.on_root_ready(worker, f"/roots/{worker}", self.now))

    def root_failed(self, worker: str, reason: str, detail: str = "") -> None:
        self.preparing.discard(worker)
        self.do(self.core.on_root_failed(worker, reason, detail, self.now))

    def link_up(self) -> None:
        self.do(self.core.on_hub_up(MachineInfo(), self.now, "link-1"))

    def hub_up(self) -> None:
        self.link_up()
        self.hub(Welcome("h-1", VERSIONS))

    def hub_down(self) -> None:
        self.do(self.core.on_hub_down("lost", "", self.now))

    def hub(self, message: Message) -> list[Effect]:
        return self.do(self.core.on_hub_message(message, self.now))

    def says(self, worker: str, message: Message) -> list[Effect]:
        return self.do(self.core.on_worker_message(worker, message, self.now))

    def come_up(self, worker: str) -> None:
        """The process starts, says hello, and is ready."""
        self.starting.remove(worker)
        self.do(self.core.on_worker_started(worker, 77))
        self.says(worker, Hello(worker, "worker", VERSIONS, 77, "here"))
        self.says(worker, WorkerReady([endpoint(worker)]))

    def all_up(self) -> list[str]:
        """Every process that was asked for comes up; their ids."""
        came: list[str] = []
        while self.starting:
            came.append(self.starting[0])
            self.come_up(self.starting[0])
        return came

    def ends(self, worker: str, death: Death | None = None) -> list[Effect]:
        if worker in self.starting:
            self.starting.remove(worker)
        death = death or Death("killed" if worker in self.killed else "exited")
        return self.do(self.core.on_worker_ended(worker, death, self.now))

    def pass_time(self, seconds: float) -> list[Effect]:
        """Tick at every moment the core asks for, as the shell would."""
        end = self.now + seconds
        effects: list[Effect] = []
        for _ in range(10_000):
            wake = self.core.next_wake(self.now)
            if wake is None or wake > end:
                break
            self.now = max(self.now, wake)
            effects += self.do(self.core.on_tick(self.now))
            self._answer_pings()
        else:
            raise AssertionError("the core asks to be woken without end")
        self.now = end
        return effects

    def _answer_pings(self) -> None:
        pinged, self.pinged = self.pinged, []
        for peer in pinged:
            if peer in self.mute:
                continue
            if peer == "hub":
                self.hub(Pong(0))
            else:
                self.says(peer, Pong(0))

    # --- questions ------------------------------------------------------------------------------

    def said(self, kind: type[M]) -> list[M]:
        """What the hub was told of this kind; taken out of the tray."""
        found = [message for message in self.to_hub if isinstance(message, kind)]
        self.to_hub = [message for message in self.to_hub if not isinstance(message, kind)]
        return found

    def told(self, worker: str, kind: type[M]) -> list[M]:
        """What the worker was told of this kind; taken out of the tray."""
        tray = self.to_worker.get(worker, [])
        found = [message for message in tray if isinstance(message, kind)]
        self.to_worker[worker] = [message for message in tray if not isinstance(message, kind)]
        return found

    # --- orders ---------------------------------------------------------------------------------

    def warrant(self, session: str = "s-1") -> None:
        """The hub shows once that the session is that of a local user."""
        if session not in self.warranted:
            self.warranted.add(session)
            self.hub(Warrant(WarrantWord(session, "")))

    def lease(self, name: str = "l-1", session: str = "s-1", **options: Any) -> list[Effect]:
        self.warrant(session)
        return self.hub(start_lease(name, session, **options))

    def actor(self, name: str = "a-1", session: str = "s-1", **options: Any) -> list[Effect]:
        self.warrant(session)
        return self.hub(start_actor(name, session, **options))

    def alive(self, worker: str, actor: str = "a-1") -> None:
        self.says(worker, ActorLoaded(actor))


def start_lease(
    name: str = "l-1",
    session: str = "s-1",
    *,
    key: str = "",
    displaces: Sequence[Displaced] = (),
    **shape: Any,
) -> StartLease:
    return StartLease(
        name,
        session,
        "c-1",
        Shape(**{"resources": {"CPU": 1.0}, **shape}),
        "space",
        key,
        displaces=list(displaces),
    )


def start_actor(
    name: str = "a-1",
    session: str = "s-1",
    *,
    incarnation: int = 1,
    detached: bool = False,
    keys: Sequence[str] = (),
    displaces: Sequence[Displaced] = (),
    **shape: Any,
) -> StartActor:
    spec = ActorSpec(
        name,
        session,
        "c-1",
        "Counter",
        Shape(**{"resources": {}, **shape}),
        namespace="space",
        detached=detached,
    )
    return StartActor(spec, incarnation, b"class", keys=list(keys), displaces=list(displaces))
