"""Whatever happens in whatever order: the books agree, and every order is answered in the end."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from guactors.messages import (
    ActorEnded,
    ActorLoaded,
    ActorStarted,
    Blocked,
    EndSession,
    LeaseEnded,
    LeaseStarted,
    StopActor,
    StopLease,
)
from tests.unit.provider.bench import Bench

SESSIONS = st.sampled_from(["s-1", "s-2", "s-3"])
PICK = st.integers(min_value=0, max_value=10**6)


class ProviderMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(warm=2)
        self.up = True
        self.leases: dict[str, bool] = {}
        """Lease -> whether an end must be told."""
        self.actors: dict[str, int] = {}
        self.ready: list[str] = []
        self.count = 0
        self.ended: set[str] = set()
        self.ended_actors: set[str] = set()
        self.started: dict[str, str] = {}

    @rule(session=SESSIONS)
    @precondition(lambda self: self.up)
    def order_lease(self, session: str) -> None:
        self.count += 1
        self.leases[f"l-{self.count}"] = True
        self.bench.lease(f"l-{self.count}", session)

    @rule(session=SESSIONS, detached=st.booleans())
    @precondition(lambda self: self.up)
    def order_actor(self, session: str, detached: bool) -> None:
        self.count += 1
        self.actors[f"a-{self.count}"] = 1
        self.bench.actor(f"a-{self.count}", session, detached=detached)

    @rule(pick=PICK, kill=st.booleans())
    @precondition(lambda self: self.up and self.leases)
    def stop_lease(self, pick: int, kill: bool) -> None:
        name = list(self.leases)[pick % len(self.leases)]
        if not kill:
            self.leases[name] = False
        self.bench.hub(StopLease(name, kill))

    @rule(pick=PICK, graceful=st.booleans())
    @precondition(lambda self: self.up and self.actors)
    def stop_actor(self, pick: int, graceful: bool) -> None:
        name = list(self.actors)[pick % len(self.actors)]
        self.bench.hub(StopActor(name, "killed", graceful))

    @rule(session=SESSIONS)
    @precondition(lambda self: self.up)
    def end_session(self, session: str) -> None:
        self.bench.hub(EndSession(session))

    @rule(pick=PICK)
    @precondition(lambda self: self.bench.starting)
    def come_up(self, pick: int) -> None:
        worker = self.bench.starting[pick % len(self.bench.starting)]
        self.bench.come_up(worker)
        self.ready.append(worker)

    @rule(pick=PICK)
    @precondition(lambda self: self.ready or self.bench.starting)
    def die(self, pick: int) -> None:
        living = self.ready + self.bench.starting
        worker = living[pick % len(living)]
        if worker in self.ready:
            self.ready.remove(worker)
        self.bench.ends(worker)

    @rule(pick=PICK, blocked=st.booleans())
    @precondition(lambda self: self.ready)
    def block(self, pick: int, blocked: bool) -> None:
        self.bench.says(self.ready[pick % len(self.ready)], Blocked(blocked))

    @rule(pick=PICK, who=PICK, well=st.booleans())
    @precondition(lambda self: self.ready and self.actors)
    def load(self, pick: int, who: int, well: bool) -> None:
        actor = list(self.actors)[who % len(self.actors)]
        answer = ActorLoaded(actor, b"" if well else b"error")
        self.bench.says(self.ready[pick % len(self.ready)], answer)

    @rule(pick=PICK)
    @precondition(lambda self: self.ready)
    def lose_line(self, pick: int) -> None:
        worker = self.ready[pick % len(self.ready)]
        self.bench.do(self.bench.core.on_worker_link_lost(worker, self.bench.now))

    @rule()
    def toggle_hub(self) -> None:
        if self.up:
            self.bench.hub_down()
        else:
            self.bench.hub_up()
        self.up = not self.up

    @rule(seconds=st.sampled_from([0.01, 0.5, 3.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    @invariant()
    def told_without_contradiction(self) -> None:
        for started in self.bench.said(LeaseStarted):
            assert started.lease not in self.ended, "started after its end"
            assert self.started.setdefault(started.lease, started.worker) == started.worker
        for begun in self.bench.said(ActorStarted):
            assert begun.actor not in self.ended_actors, "started after its end"
        self.ended |= {message.lease for message in self.bench.said(LeaseEnded)}
        self.ended_actors |= {message.actor for message in self.bench.said(ActorEnded)}

    def teardown(self) -> None:
        """Everything dies, and the hub comes back: nobody may be left without an answer."""
        if not self.up:
            self.toggle_hub()
        for _ in range(1000):
            if not any(self.bench.core.counts()[what] for what in ("leases", "actors", "waiting")):
                break
            for worker in list(self.ready):
                self.ready.remove(worker)
                self.bench.ends(worker)
            for worker in list(self.bench.starting):
                self.bench.ends(worker)
            self.bench.pass_time(1.0)
        self.told_without_contradiction()
        missing = {name for name, must in self.leases.items() if must} - self.ended
        assert not missing, f"leases without an answer: {missing}"
        assert set(self.actors) <= self.ended_actors, "actors without an answer"


ProviderMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestAnyOrder = ProviderMachine.TestCase
