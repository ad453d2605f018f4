"""One seed: a grid, its work, its faults, and the judgement at the end.

Owns: who exists, and the order of the acts: work with faults; then no more faults, and all must
come to rest; then everybody leaves, and nothing must stay. Must never: take chance from anywhere
but the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from guactors.caller.core import CallerCore
from guactors.config import Timing
from guactors.ids import KINDS
from guactors.messages import Hello, ReservationSpec, Versions
from tests.sim import faults, terms
from tests.sim.caller import SimCaller
from tests.sim.clock import Clock
from tests.sim.flow import Flow
from tests.sim.hub import HOST as HUB_HOST
from tests.sim.hub import SimHub
from tests.sim.keys import Keys
from tests.sim.ledger import Ledger, Violation
from tests.sim.memory import Memory
from tests.sim.network import Network, SimListener, SimTransport
from tests.sim.order import Tally
from tests.sim.owners import Owners
from tests.sim.provider import SimProvider
from tests.sim.rest import leftovers, unrest
from tests.sim.workload import Driver, Planner
from tests.unit.hub.keyed_bench import transport_of

if TYPE_CHECKING:
    from tests.sim.network import SimLink
    from tests.sim.worker import SimWorker

T = TypeVar("T")
STARTED = 1000.0
EPOCH = 1_800_000_000.0
"""Epoch seconds at moment 0."""
PATIENCE = 150.0
"""Seconds in which all must have come to rest once nothing goes wrong any more: the longest
silence that counts as a loss is three times ten seconds, a worker that says nothing has sixty."""


class World:
    """The grid of one seed. ``caller_core`` makes callers' cores, for tests that break one.
    ``keyed``: nobody is the local user, see ``keys``."""

    def __init__(
        self,
        seed: int,
        caller_core: Callable[..., CallerCore] = CallerCore,
        *,
        keyed: bool = False,
    ) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.caller_core = caller_core
        self.clock = Clock(STARTED)
        self.flow = Flow(STARTED)
        self.network = Network(self.clock, self.rng, self.flow)
        self.timing = Timing(aging=terms.aging(seed))
        self.versions = Versions("0", "3.11.7")
        self.ledger = Ledger(self)
        self.tally = Tally(seeds=1)
        self.memory = Memory(self.clock.after)
        self.keys = Keys(self) if keyed else None
        self.owners = Owners(self)
        self.hub: SimHub | None = None
        self.reservations: list[ReservationSpec] = []
        """What the hub keeps for its successor."""
        self.providers: dict[str, SimProvider] = {}
        self.workers: dict[str, SimWorker] = {}
        self.drivers: list[Driver] = []
        self.winding_down = False
        self.peaceful = True
        self._ids = 0
        self._failing_starts = 0.0
        self._last_fault = 0.0
        self._set_up()

    def __repr__(self) -> str:
        return f"<World {self.seed} at {self.clock.now - STARTED:.3f} s>"

    # --- the beginning ----------------------------------------------------------------------------

    def _set_up(self) -> None:
        rng = self.rng
        self.peaceful = rng.random() < 0.2
        size = rng.choices((0, 1, 2), (70, 25, 5))[0]
        if rng.random() < 0.05:
            self.network.room = 30
        if not self.peaceful and rng.random() < 0.1:
            self._failing_starts = 0.3
        self.start_hub()
        machines = rng.randint(1, 1 + size)
        for number in range(machines):
            cpus, warm = rng.choice((1.0, 2.0, 2.0, 4.0)), rng.choice((0, 1, 1, 2))
            name = f"host{number}"
            self.later(rng.random() * 0.2, partial(self.add_provider, name, cpus, warm))
        span = rng.choice((0.5, 0.5, 3.0)) if size < 2 else 6.0
        for number in range(rng.randint(1, 1 + size)):
            steps = rng.randint(*((1, 6), (1, 12), (10, 40))[size])
            planner = Planner(Random(rng.random()), 100_000 * number, span, peaceful=self.peaceful)
            plan = planner.plan(steps)
            self.later(rng.random() * 0.2, partial(self._add_caller, plan, number))
        self._last_fault = span
        if not self.peaceful:
            count = rng.choice((1, 1, 2, 3)) + 3 * size
            for time, fault in faults.plan(rng, count, span):
                self.later(time, partial(fault, self))
        if self.keys is not None:
            self._last_fault = max(span, self.keys.plan(rng, span))
        names = [f"host{number}" for number in range(machines)]
        self._last_fault = max(self._last_fault, self.owners.plan(names, span))

    def _add_caller(self, plan: list[tuple[float, Callable[[Driver], None]]], number: int) -> None:
        peer, session = self.fresh("caller"), self.fresh("session")
        host = f"home-{peer}"
        driver: Driver | None = None

        def news(source: SimLink | SimListener) -> None:
            if driver is not None:
                driver.caller.news(source)

        said = terms.draw(self.seed, number)
        hello = Hello(
            peer, "caller", self.versions, 1, host, session, True, peer, "default",
            share=said.share, quota=said.quota,
        )  # fmt: skip
        if self.keys is None:
            transport = SimTransport(self.network, peer, host, news)
            caller = SimCaller(self, transport, hello)
        else:
            key = self.keys.caller(session, number)
            hello = replace(hello, key=key.public.text, transport=transport_of(key))
            transport = SimTransport(self.network, peer, host, news, hello.transport)
            prove = partial(self.keys.prove, key, hello)
            caller = SimCaller(self, transport, hello, prove=prove)
        driver = Driver(self, caller)
        self.drivers.append(driver)
        for time, step in plan:
            self.later(time, partial(self._take, driver, step))

    def _take(self, driver: Driver, step: Callable[[Driver], None]) -> None:
        if not (driver.caller.closed or driver.caller.transport.dead):
            step(driver)

    # --- who exists -------------------------------------------------------------------------------

    def fresh(self, kind: str) -> str:
        """An id, the next in order."""
        self._ids += 1
        return f"{KINDS[kind]}-{self._ids}"

    @staticmethod
    def wall(moment: float) -> float:
        """What wall clocks show then: the same everywhere."""
        return EPOCH + moment

    def note(self, text: str) -> None:
        """A line for the record."""
        self.flow.event(self.clock.now, text)

    def later(self, delay: float, action: Callable[[], Any]) -> None:
        """Do something in ``delay`` seconds, whoever is alive then."""
        self.clock.after(delay, action)

    @staticmethod
    def pick(items: Sequence[T], share: float) -> T | None:
        """One of them, by a number drawn long ago."""
        return items[int(share * len(items))] if items else None

    def hosts(self) -> list[str]:
        """All machines."""
        callers = [driver.caller.transport.host for driver in self.drivers]
        return [HUB_HOST, *self.providers, *callers]

    def living_providers(self) -> list[SimProvider]:
        """Those that run."""
        return [p for p in self.providers.values() if not p.transport.dead]

    def living_drivers(self) -> list[Driver]:
        """Of root callers that run and have not left."""
        return [d for d in self.drivers if not (d.caller.closed or d.caller.transport.dead)]

    def start_fails(self) -> bool:
        """Whether a worker process does not come up."""
        return bool(self._failing_starts) and self.rng.random() < self._failing_starts

    # --- comings and goings -----------------------------------------------------------------------

    def start_hub(self) -> None:
        """A new hub, that knows nothing."""
        if self.hub is None:
            self.note("the hub starts")
            self.hub = SimHub(self)

    def end_hub(self, *, polite: bool) -> None:
        """The hub process ends."""
        assert self.hub is not None
        self.note("FAULT: the hub ends")
        hub, self.hub = self.hub, None
        if polite:
            hub.stop()
        else:
            hub.kill()

    def add_provider(self, name: str, cpus: float, warm: int, peer: str = "") -> None:
        """A provider on a machine of its own."""
        self.providers[name] = SimProvider(self, peer or self.fresh("provider"), name, cpus, warm)

    def restart_provider(self, old: SimProvider, *, same: bool) -> None:
        """The machine's provider starts again."""
        if self.providers[old.name] is old:
            self.note(f"provider {old.name} starts again")
            self.add_provider(old.name, old.cpus, old.warm, old.peer if same else "")

    def end_caller(self, driver: Driver, *, polite: bool) -> None:
        """A root caller ends."""
        driver.over = True
        if polite:
            driver.caller.close()
        driver.caller.transport.close()

    def heal(self, one: str, other: str, *, broken: bool) -> None:
        """The way is open again; connections across it may have been given up meanwhile."""
        self.note(f"the way between {one} and {other} is open")
        ends = {one, other}
        for link in list(self.network.links.values()):
            there = link.listener.party.host if link.listener is not None else ""
            if broken and {link.party.host, there} == ends and self.rng.random() < 0.5:
                self.network.snap(link)
        self.network.heal(one, other)

    # --- the acts ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Live through it. Raises Violation, or whatever a core raises."""
        self.clock.run(STARTED + 0.2 + self._last_fault)
        self._failing_starts = 0.0
        self._until(lambda: not self.ledger.owed(self._living()), self._hanging)
        for driver in self.living_drivers():
            driver.groups.remove_half()
        self._until(lambda: not self.ledger.pending(self._living()), self._hanging)
        self.winding_down = True
        for driver in self.living_drivers():
            driver.release_all()
            driver.forget_all()
            driver.groups.check()
        self._until(self._at_rest, lambda: unrest(self))
        for driver in self.living_drivers():
            self.end_caller(driver, polite=True)
        self._until(lambda: not leftovers(self), lambda: leftovers(self))
        self.tally.runs = self.ledger.runs
        self.tally.settled = sum(record.settled is not None for record in self.ledger.records)

    def _at_rest(self) -> bool:
        for driver in self.living_drivers():
            driver.groups.remove_roomless()
        return not unrest(self)

    def _living(self) -> set[str]:
        return {driver.caller.peer for driver in self.living_drivers()}

    def _hanging(self) -> object:
        return self.ledger.pending(self._living())

    def _until(self, done: Callable[[], bool], what: Callable[[], object]) -> None:
        """Let time pass until all is done. Raises Violation with ``what`` is not."""
        deadline = self.clock.now + PATIENCE
        step = 0.05
        while not done():
            if self.clock.now >= deadline:
                raise Violation(f"after {PATIENCE:.0f} s without faults: {what()}")
            self.clock.run(self.clock.now + step)
            step = min(1.0, step * 1.5)
