"""The hub process: the HubActor, and the beginning and end of the whole.

Owns: the order of start and stop, and the routes between the actors of the hub. Must never: decide
anything; :class:`guactors.hub_state.HubState` and the rooms behind it do.

``run_hub`` serves inside a running event loop, ``run_hub_process`` is a process's whole life.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from guactors.actors import Actor, ActorRef, ActorSystem, Priority
from guactors.actors.supervision import Cause, describe
from guactors.config import HubConfig
from guactors.errors import ActorDied, GuactorsError, InternalError
from guactors.gatekeeper_actor import Archive, GatekeeperActor
from guactors.home import raise_file_limit
from guactors.hub_state import HubState
from guactors.hub_wire import Wire
from guactors.image_actor import ImageActor
from guactors.messages import Endpoint, Output
from guactors.room_actor import RoomActor, Tick, epoch_seconds
from guactors.scheduler_actor import SchedulerActor
from guactors.scheduling import events as e
from guactors.security.marks import marker_of
from guactors.session_actor import SessionActor
from guactors.stats_actor import StatsActor
from guactors.transport import open_transport
from guactors.transport.base import Lane
from guactors.versions import own_versions

log = logging.getLogger("guactors.hub")

OnReady = Callable[[list[Endpoint]], None]
Report = Callable[[dict[str, Any]], None]


class HubActor(RoomActor):
    """Listens, and carries events and effects between the links and the rooms, which are its
    children. ``failed`` is called with the cause when one of them has died."""

    def __init__(
        self,
        config: HubConfig,
        wire: Wire,
        archive: Archive,
        failed: Callable[[Cause], None],
    ) -> None:
        super().__init__()
        self._archive = archive
        self._config = config
        self._wire = wire
        self._failed = failed
        self._pending = 0
        self._sessions: dict[str, ActorRef] = {}
        self.room: HubState = HubState(
            config.hub,
            config.timing,
            own_versions(),
            self.context.now(),
            key=config.key,
            wall=epoch_seconds,
            mark=marker_of(config.seal.secret),
        )

    def on_start(self) -> None:
        """Open the doors last, when everybody behind them is there."""
        context = self.context
        self.hub = context.self_ref
        self._rooms = {
            e.RoomName.SCHEDULER: context.spawn(
                SchedulerActor, self.hub, self._config, name="scheduler", mailbox_size=None
            ),
            e.RoomName.STATS: context.spawn(StatsActor, self.hub, name="stats", mailbox_size=None),
            e.RoomName.GATEKEEPER: context.spawn(
                GatekeeperActor,
                self.hub,
                self._config,
                self._archive,
                name="gatekeeper",
                mailbox_size=None,
            ),
            e.RoomName.IMAGES: context.spawn(
                ImageActor, self.hub, self._config, name="images", mailbox_size=None
            ),
        }
        super().on_start()
        self._wire.serve(self._hear, lambda: self._pending)

    def on_stop(self, _cause: Cause) -> None:
        """Say goodbye, so that the peers need not find out by themselves. The rooms are gone, so
        whatever else follows from it has nobody to hear it."""
        for effect in self.room.handle(e.Stopping(), self.context.now()):
            if isinstance(effect, e.Send):
                self._wire.send(effect.link, effect.message)
        self._wire.close()

    def on_child_death(self, ref: ActorRef, cause: Cause) -> None:
        """A room never ends by itself, but for a session that is over."""
        if ref not in self._sessions.values() and ref not in self._rooms.values():
            return
        self._failed(cause)

    def _hear(self, event: e.Event, lane: Lane | None) -> None:
        self._pending += 1
        priority = Priority.NORMAL if lane is Lane.DATA else Priority.HIGH
        if isinstance(event, e.Arrived) and isinstance(event.message, Output):
            priority = Priority.LOW
        try:
            self.context.self_ref.tell(event, priority=priority)
        except ActorDied:
            self._pending -= 1  # it stops: everybody is told goodbye, and nobody listens any more

    def think(self, message: e.Event | Tick | list[e.Effect], now: float) -> list[e.Effect]:
        """An event from the wire, or effects from a room."""
        if isinstance(message, list):
            return message
        if not isinstance(message, Tick):
            self._pending -= 1
        return super().think(message, now)

    def carry(self, effects: list[e.Effect], now: float) -> None:
        """To the wire and to the rooms."""
        todo = deque(effects)
        while todo:
            effect = todo.popleft()
            match effect:
                case e.Send(link, message):
                    gone = self._wire.send(link, message)
                    if gone is not None:
                        log.info("link %s is gone: %s", link, gone.reason)
                        todo.extend(self.room.handle(gone, now))
                case e.ShutOut(keys):
                    self._wire.shut_out(keys)
                case e.Drop(link, reason):
                    log.info("link %s is dropped: %s", link, reason)
                    self._wire.drop(link)
                case e.ToPeer(peer, message):
                    todo.extend(self.room.deliver(peer, message))
                case e.ToRoom(e.RoomName.HUB, event):
                    todo.extend(self.room.handle(event, now))
                    self._close_sessions()
                case e.ToRoom(room, event):
                    self._rooms[room].tell(event)
                case e.ToSession(session, event):
                    self._session(session).tell(event)

    def _session(self, session: str) -> ActorRef:
        ref = self._sessions.get(session)
        if ref is None:
            ref = self._sessions[session] = self.context.spawn(
                SessionActor, self.hub, session, self._config.timing, mailbox_size=None
            )
        return ref

    def _close_sessions(self) -> None:
        for session in [x for x in self._sessions if x not in self.room.sessions]:
            self.context.stop(self._sessions.pop(session))


async def run_hub(config: HubConfig, *, on_ready: OnReady, stop: asyncio.Event) -> None:
    """Serve until ``stop`` is set. ``on_ready`` gets the endpoints once they are bound.

    Raises what binding raises (OSError, PermissionError, ValueError: each names the address), and
    InternalError when a room has failed."""
    causes: list[Cause] = []
    over = asyncio.Event()

    def failed(cause: Cause) -> None:
        if not stop.is_set():
            causes.append(cause)
            over.set()

    # First: what it must not forget may be damaged, or in use by another hub.
    archive = Archive(config.data)
    wire = Wire(open_transport(config.identity))
    try:
        endpoints = wire.bind(config.listen)
        async with ActorSystem("hub") as system:
            system.spawn(_Watchman, config, wire, archive, failed, name="watchman")
            on_ready(endpoints)
            await _either(stop, over)
            stop.set()
    finally:
        wire.close()
        archive.close()
    for cause in causes:
        raise InternalError(f"the hub failed, please report this: {describe(cause)}")


async def _either(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class _Watchman(Actor):
    """The HubActor's parent, who learns that it has failed."""

    def __init__(
        self, config: HubConfig, wire: Wire, archive: Archive, failed: Callable[[Cause], None]
    ) -> None:
        self._failed = failed
        self.context.spawn(HubActor, config, wire, archive, failed, name="hub", mailbox_size=None)

    def on_child_death(self, _ref: ActorRef, cause: Cause) -> None:
        self._failed(cause)


def run_hub_process(config: HubConfig, report: Report) -> int:
    """A hub's whole life, until SIGTERM or SIGINT; returns the exit status.

    ``report`` gets ``{"event": "ready", "endpoints": [...]}`` once it serves, or ``{"event":
    "error", "kind": ..., "text": ...}`` when it cannot."""
    raise_file_limit()
    # The selector loop on every platform: Windows' other one cannot wait for sockets of libzmq.
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        try:
            runner.run(_until_signalled(config, report))
        except (OSError, ValueError, GuactorsError) as error:
            text = f"hub {config.hub}: {error}"
            report({"event": "error", "kind": type(error).__name__, "text": text})
            return 1
    return 0


async def _until_signalled(config: HubConfig, report: Report) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        else:
            loop.add_signal_handler(number, stop.set)

    def on_ready(endpoints: list[Endpoint]) -> None:
        report({"event": "ready", "hub": config.hub, "endpoints": to_fields(endpoints)})

    await run_hub(config, on_ready=on_ready, stop=stop)


def to_fields(endpoints: list[Endpoint]) -> list[dict[str, Any]]:
    """Endpoints as plain JSON objects."""
    names = Endpoint.__struct_fields__
    return [{name: getattr(endpoint, name) for name in names} for endpoint in endpoints]
