"""Any order of events: every invariant holds after each, and once the world is at peace the books
of hub, callers and providers agree and everybody who can be served has been."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from guactors import messages as m
from tests.unit.hub.bench import Bench, spec
from tests.unit.scheduling.model import ModelCaller, ModelProvider

CALLERS = {"c-0": ("s-0", True), "c-1": ("s-1", True), "c-2": ("s-0", False)}
PROVIDERS = {"p-0": 1.0, "p-1": 2.0, "p-2": 3.0}
caller_names = st.sampled_from(sorted(CALLERS))
provider_names = st.sampled_from(sorted(PROVIDERS))
amounts = st.sampled_from([{"CPU": 1.0}, {"CPU": 2.0}, {"CPU": 0.5}, {"CPU": 0.0}, {}])
WAYS = [[], ["requeue"], [], ["suspend", "requeue"], ["stop"], []]
PAUSES = st.sampled_from([0.0, 0.05, 0.5, 0.6, 2.0, 11.0])


class World(RuleBasedStateMachine):
    """Three callers, three providers, one hub."""

    @initialize(young=st.booleans())
    def begin(self, young: bool) -> None:
        self.bench = Bench(young=young)
        self.names = count(1)
        self.callers = {
            name: ModelCaller(self.bench, name, session, root)
            for name, (session, root) in CALLERS.items()
        }
        self.providers = {
            name: ModelProvider(self.bench, name, cpus) for name, cpus in PROVIDERS.items()
        }
        for name in ("c-0", "c-1", "c-2", "p-0", "p-1"):
            self.peer(name).join()

    # --- work -----------------------------------------------------------------------------------

    @rule(
        name=caller_names,
        key=st.sampled_from("xyz"),
        amount=amounts,
        priority=st.sampled_from([0, 1, 2, 10, 12, 30]),
        spared=st.booleans(),
        number=st.integers(0, 5),
    )
    def demand(
        self,
        name: str,
        key: str,
        amount: dict[str, float],
        priority: int,
        spared: bool,
        number: int,
    ) -> None:
        caller = self.callers[name]
        if caller.up:
            preemption = ["never"] if spared else WAYS[number]
            shape = m.Shape(amount, priority, preemption=preemption)
            caller.demands[key] = shape, number
            caller.tell(key)

    @rule(name=caller_names, first=st.booleans())
    def give_back(self, name: str, first: bool) -> None:
        caller = self.callers[name]
        if caller.held:
            caller.give_back(min(caller.held) if first else max(caller.held))

    @rule(
        name=caller_names,
        restarts=st.integers(-1, 2),
        hold=st.booleans(),
        detached=st.booleans(),
        priority=st.sampled_from([0, 11, 25]),
    )
    def create(self, name: str, restarts: int, hold: bool, detached: bool, priority: int) -> None:
        caller = self.callers[name]
        if caller.up:
            actor = f"a-{next(self.names)}"
            made = spec(
                actor, name, caller.session, max_restarts=restarts, detached=detached,
                name=actor if detached else "",
                shape=m.Shape({"CPU": 1.0} if hold else {}, priority),
            )  # fmt: skip
            caller.actors[actor] = None
            self.bench.create(made)

    @rule(name=caller_names, restart=st.booleans(), released=st.booleans())
    def kill(self, name: str, restart: bool, released: bool) -> None:
        caller = self.callers[name]
        if caller.up and caller.actors:
            self.bench.say(name, m.KillActor(min(caller.actors), not restart, released))

    # --- progress -------------------------------------------------------------------------------

    @rule(name=caller_names, most=st.integers(1, 5))
    def caller_listens(self, name: str, most: int) -> None:
        for _ in range(most):
            self.callers[name].listen()

    @rule(name=provider_names, most=st.integers(1, 5))
    def provider_listens(self, name: str, most: int) -> None:
        for _ in range(most):
            self.providers[name].listen()

    @rule(name=provider_names, fails=st.booleans())
    def provider_binds(self, name: str, fails: bool) -> None:
        self.providers[name].bind(fails=fails)

    @rule(seconds=st.sampled_from([0.0, 0.02, 0.2, 0.6]))
    def everybody_works(self, seconds: float) -> None:
        """Trouble is interesting where there is something to lose."""
        self.calm()
        self.time_passes(seconds)

    @rule()
    def the_missing_join(self) -> None:
        for peer in self.everybody():
            if not peer.up:
                peer.join()

    @rule(seconds=PAUSES)
    def time_passes(self, seconds: float) -> None:
        self.bench.mute = {x for x in self.bench.link_of if x not in self.up()}
        self.bench.pass_time(seconds)

    def everybody(self) -> list[ModelCaller | ModelProvider]:
        return [*self.callers.values(), *self.providers.values()]

    def up(self) -> list[str]:
        return [peer.peer for peer in self.everybody() if peer.up]

    # --- trouble --------------------------------------------------------------------------------

    @rule(name=provider_names, cause=st.sampled_from(["signal", "exited", "killed"]))
    def worker_dies(self, name: str, cause: str) -> None:
        provider = self.providers[name]
        if provider.leases:
            provider.end_lease(min(provider.leases), cause)
        elif provider.actors:
            provider.end_actor(min(provider.actors), cause)

    @rule(name=provider_names)
    def worker_blocks(self, name: str) -> None:
        provider = self.providers[name]
        if provider.leases:
            provider.block(min(provider.leases))

    @rule(name=provider_names, stubborn=st.booleans())
    def suspending_fails(self, name: str, stubborn: bool) -> None:
        self.providers[name].stubborn = stubborn

    @rule(name=provider_names, lent=st.booleans())
    def owner_comes_and_goes(self, name: str, lent: bool) -> None:
        self.providers[name].lend(lent=lent)

    @rule(name=st.one_of(caller_names, provider_names))
    def joins(self, name: str) -> None:
        """Also while it is there: a new link replaces one that nobody saw break."""
        self.peer(name).join()

    @rule(name=st.one_of(caller_names, provider_names))
    def link_breaks(self, name: str) -> None:
        if self.peer(name).up:
            self.peer(name).leave()

    @rule(name=st.one_of(caller_names, provider_names))
    def dies(self, name: str) -> None:
        if self.peer(name).up:
            self.peer(name).die()

    @precondition(lambda self: self.bench.now > 1000.0)
    @rule()
    def hub_is_replaced(self) -> None:
        """kill -9 of the hub: everybody's link is gone, and the next one knows nothing."""
        new = Bench(young=True)
        new.now += self.bench.now
        self.bench.core = type(self.bench.core)(
            "h-2", new.core.timing, lambda kind: f"{kind[0]}-h{next(self.names)}",
            versions=m.Versions("0", "3.11.7"), now=self.bench.now,
        )  # fmt: skip
        for peer in self.everybody():
            if peer.up:
                peer.leave()

    def peer(self, name: str) -> ModelCaller | ModelProvider:
        return self.callers.get(name) or self.providers[name]

    # --- peace ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "bench"):
            return
        for peer in self.everybody():
            if not peer.up:
                peer.join()
        self.bench.mute.clear()
        for provider in self.providers.values():
            provider.stubborn = False
            provider.lend(lent=True)
            for lease in list(provider.blocked):
                provider.block(lease)
        for _ in range(60):
            self.calm()
            self.bench.pass_time(0.5)
        self.agree()
        self.everybody_is_served()

    def calm(self) -> None:
        """Nothing is on its way any more."""
        peers = self.everybody()
        for _ in range(1000):
            busy = [peer.listen() for peer in peers]
            busy += [provider.bind() for provider in self.providers.values()]
            if not any(busy):
                return
        pytest.fail("the messages never end")

    def agree(self) -> None:
        desk = self.bench.core.scheduler.desk
        for name, caller in self.callers.items():
            assert set(caller.held) == {x.id for x in desk.leases.of_caller(name)}, name
        for name, provider in self.providers.items():
            assert set(provider.leases) == desk.slots[name].leases, name
            assert set(provider.actors) == desk.slots[name].actors, name
            still = {x.id for x in desk.standing.on(name)}
            assert set(provider.still) == still, name
        for caller in self.callers.values():
            for actor, update in caller.actors.items():
                assert update is not None, f"{actor} was never answered"
                record = desk.actors.find(actor)
                assert update.state == (record.state if record else "dead"), actor

    def everybody_is_served(self) -> None:
        """Who holds leases returns them, until nobody waits who could be served."""
        desk = self.bench.core.scheduler.desk
        for caller in self.callers.values():
            for actor, update in caller.actors.items():
                if update is None or update.state != "dead":
                    self.bench.say(caller.peer, m.KillActor(actor))
        for _ in range(300):
            self.calm()
            for caller in self.callers.values():
                for lease in list(caller.held):
                    caller.give_back(lease)
            self.bench.pass_time(0.1)
            if not desk.demands.waiting() and not len(desk.leases):
                break
        waiting = [x for x in desk.demands if x.waiting and desk.candidates(x.need)]
        assert not waiting, waiting
        detached = [x for x in desk.actors if not x.spec.detached]
        assert not detached, detached


TestAnyOrder = World.TestCase
TestAnyOrder.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
