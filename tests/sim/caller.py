"""A calling process in the simulation: what ``session`` does, around the real CallerCore
and HubLine.

Owns: the rounds of service, and who is told when a value is there. Must never: decide anything.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from guactors.caller.away import Away
from guactors.caller.effects import Dial, Hangup, Hurry, NeedDepot, SendHub
from guactors.caller.tasks import Task
from guactors.errors import GuactorsError
from guactors.hub_line import HubLine, Prove
from guactors.messages import (
    ActorSpec,
    Challenge,
    CreateActor,
    Define,
    Fault,
    Hello,
    Message,
    Shape,
)
from guactors.transport.base import Frame
from tests.sim import hub
from tests.sim.clock import Alarm, ProcessClock
from tests.sim.ledger import Violation
from tests.sim.links import Links
from tests.sim.network import SimLink, SimListener, SimTransport
from tests.sim.program import FUNCTIONS

if TYPE_CHECKING:
    from tests.sim.world import World

RETRY_FULL = 0.001
DEPOT = "Depot"
Neighbour = Callable[[str, Message, Sequence[Frame]], None]


def _no_key(challenge: Challenge, link: str) -> NoReturn:
    raise AssertionError(f"a local caller was challenged on {link}: {challenge}")


def _wants_retry(task: Task, data: bytes) -> bool:
    return b"UserError" in data


class SimCaller:
    """``neighbour`` sends to callers that dialled the worker this one lives in; ``prove`` answers
    a hub that asks for a proof."""

    def __init__(
        self,
        world: World,
        transport: SimTransport,
        hello: Hello,
        neighbour: Neighbour | None = None,
        prove: Prove = _no_key,
        clock: ProcessClock | None = None,
    ) -> None:
        self.peer = hello.peer
        self.session = hello.session
        self.closed = False
        self.faults: list[Fault] = []
        self.submitted = 0
        self.transport = transport
        self._world = world
        self._clock = clock or ProcessClock(world.clock)
        self._neighbour = neighbour
        self._waiters: dict[int, list[Callable[[int], None]]] = {}
        self._sources: dict[int, SimLink | SimListener] = {}
        self._due = False
        self._next_tick = 0.0
        timing = world.timing
        self.core = world.caller_core(self.peer, linger=timing.linger, retry_error=_wants_retry)
        memory, host = world.memory, transport.host
        self.core.objects.attach = lambda word, giver: memory.attach(self.peer, host, word)
        self.core.remote.bringing.draft = lambda sizes: memory.draft(self.peer, host, sizes)
        self.core.objects.places.spread_from = 1
        if neighbour is None:
            self.core.remote.depots.enable()
        for fn in FUNCTIONS:
            self.core.blobs[fn] = Define(fn, "program", b"code")
        self.links = Links(transport, hello, self._on_peer, self._on_lost)
        self.hub = HubLine(
            transport,
            [hub.ENDPOINT],
            hello,
            timing,
            prove=prove,
            on_refused=self._on_refused,
            on_up=lambda: self.core.on_hub_up(self._clock.now),
            on_message=self._on_hub,
            watch=lambda link: None,
            unwatch=lambda link: None,
            rng=world.rng.random,
        )
        self._alarm = Alarm(self._clock, self._service)
        self.kick()

    def __repr__(self) -> str:
        return f"<SimCaller {self.peer}>"

    # --- service ----------------------------------------------------------------------------------

    def news(self, source: SimLink | SimListener) -> None:
        """One of the links may have something."""
        self._sources[source.number] = source
        self.kick()

    def kick(self) -> None:
        if not self._due:
            self._due = True
            self._clock.after(0.0, self._service)

    def _service(self) -> None:
        self._due = False
        if self.closed or self.transport.dead:
            return
        now, core = self._clock.now, self.core
        sources, self._sources = list(self._sources.values()), {}
        self.links.drain(sources)
        if now >= self._next_tick or not all(self.links.owns(x) for x in sources):
            wake = self.hub.service(now)
            core.on_tick(now)
            due = core.next_wake(now)
            self._next_tick = min(wake, due) if due is not None else wake
        core.flush()
        self._carry_out()
        self._alarm.set(self._next_tick)
        if self.links.unsent:
            self._clock.after(RETRY_FULL, self.kick)

    def after_core(self) -> None:
        """Carry out what the core decided after a direct call."""
        if self.core.dirty and not self.core.flush_urgent():
            self.kick()
        self._carry_out()
        due = self.core.next_wake(self._clock.now)
        if due is not None and due < self._next_tick:
            self._next_tick = due
            self._alarm.set(due)

    def _carry_out(self) -> None:
        links = self.links
        for effect in self.core.take_effects():
            if isinstance(effect, SendHub):
                self.hub.send(effect.message)
            elif isinstance(effect, Dial):
                links.dial(effect.peer, effect.endpoints)
            elif isinstance(effect, Hangup):
                links.hang_up(effect.peer)
            elif isinstance(effect, NeedDepot):
                self._make_depot(effect)
            elif isinstance(effect, Hurry):
                self._next_tick = min(self._next_tick, effect.at)
                self._alarm.set(self._next_tick)
            elif (
                not links.send(effect.peer, effect.message, effect.buffers)
                and self._neighbour is not None
            ):
                self._neighbour(effect.peer, effect.message, effect.buffers)
        self.core.check()
        settled, self.core.objects.settled = self.core.objects.settled, []
        for id in settled:
            if self.core.objects.is_away(id):
                continue  # it is on its way
            for told in self._waiters.pop(id, ()):
                told(id)

    def _make_depot(self, need: NeedDepot) -> None:
        actors, shape = self.core.actors, Shape({}, provider=need.provider)
        spec = ActorSpec(
            self._world.fresh("actor"), self.session, self.peer, DEPOT, shape, {}
        )  # fmt: skip
        actor = actors.add(spec.actor, DEPOT)
        actor.handles = 1
        actors.create(actor, CreateActor(1, spec, pickle.dumps((0.001, "value"))))
        self.core.remote.depots.made(need.store, actor)

    def _on_peer(self, peer: str, message: Message, buffers: Sequence[Frame]) -> None:
        self.core.on_peer(peer, message, buffers, self._clock.now)

    def _on_lost(self, peer: str) -> None:
        self._world.note(f"{self.peer} lost its link to {peer}")
        self.core.on_link_down(peer, self._clock.now)

    def _on_hub(self, message: Message) -> None:
        if isinstance(message, Fault):
            self.faults.append(message)
        else:
            self.core.on_hub(message, self._clock.now)

    def _on_refused(self, error: GuactorsError) -> None:
        raise Violation(f"{self.peer}, whose key is good, is shut out: {error}")

    # --- what user code does ----------------------------------------------------------------------

    def submit(self, home: Any, task: Task) -> int:
        """Hand in a call; its first id."""
        self.submitted += 1
        self.core.submit(home, task, self._clock.now)
        self.after_core()
        return task.id

    def cancel(self, id: int, *, force: bool = False, recursive: bool = True) -> None:
        self.core.cancel(id, self._clock.now, force=force, recursive=recursive)
        self.after_core()

    def cancel_children(self, parent: object) -> None:
        self.core.cancel_children(parent, self._clock.now)
        self.after_core()

    def when_there(self, id: int, told: Callable[[int], None]) -> None:
        """Call ``told`` once the object has a value; for a stream, at its next news."""
        entry = self.core.objects.entries[id]
        entry.watched = True
        if entry.data is not None and not isinstance(entry.data, Away):
            self._clock.after(0.0, lambda: told(id))
            return
        self._waiters.setdefault(id, []).append(told)
        if self.core.want([entry], self._clock.now):
            self.after_core()

    def drop(self, ids: Iterable[int]) -> None:
        """References to these are gone."""
        for id in ids:
            self.core.objects.drop(id)
        self.after_core()

    # --- the worker around it ---------------------------------------------------------------------

    def on_neighbour(self, link: str, message: Message, buffers: Sequence[Frame]) -> None:
        self.core.on_peer(link, message, buffers, self._clock.now)
        self.core.flush()
        self._carry_out()

    def on_neighbour_lost(self, link: str) -> None:
        self.core.on_link_down(link, self._clock.now)
        self.after_core()

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """shutdown()."""
        if self.closed:
            return
        self.closed = True
        self._world.memory.gone(self.peer)
        self.core.close()
        self._carry_out()
        self.hub.close()
        self.links.close()
