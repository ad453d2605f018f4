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
    Displaced,
    EndSession,
    LeaseEnded,
    LeaseStarted,
    Resume,
    Stood,
    StopActor,
    StopLease,
    Suspend,
)
from guactors.provider_state import ImageFacts
from tests.unit.provider.authority import Guarded, revoked, wide
from tests.unit.provider.bench import start_actor, start_lease
from tests.unit.security.grant_samples import IMAGE, OTHER_IMAGE

SESSIONS = st.sampled_from(["s-1", "s-2", "s-3"])
SERIALS = {"s-1": 1, "s-2": 2, "s-3": 3}
IMAGES = st.sampled_from(["", "", IMAGE, OTHER_IMAGE])
SHOWN = st.sampled_from([True, True, False])
PICK = st.integers(min_value=0, max_value=10**6)


class ProviderMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Guarded(warm=2)
        self.shown: set[str] = set()
        self.epoch = 0
        self.up = True
        self.leases: dict[str, bool] = {}
        """Lease -> whether an end must be told."""
        self.actors: dict[str, int] = {}
        self.ready: list[str] = []
        self.count = 0
        self.ended: set[str] = set()
        self.ended_actors: set[str] = set()
        self.started: dict[str, str] = {}

    @rule(session=SESSIONS, image=IMAGES, shown=SHOWN)
    @precondition(lambda self: self.up)
    def order_lease(self, session: str, image: str, shown: bool) -> None:
        self.count += 1
        self.leases[f"l-{self.count}"] = True
        if shown:
            self.show(session)
        self.bench.hub(start_lease(f"l-{self.count}", session, image=image))

    @rule(session=SESSIONS, detached=st.booleans(), image=IMAGES, shown=SHOWN)
    @precondition(lambda self: self.up)
    def order_actor(self, session: str, detached: bool, image: str, shown: bool) -> None:
        self.count += 1
        self.actors[f"a-{self.count}"] = 1
        if shown:
            self.show(session)
        self.bench.hub(start_actor(f"a-{self.count}", session, detached=detached, image=image))

    @rule(session=SESSIONS)
    @precondition(lambda self: self.up)
    def show(self, session: str) -> None:
        if session not in self.shown:
            self.shown.add(session)
            self.bench.show(wide(serial=SERIALS[session]), session=session)

    @rule(session=SESSIONS, running=st.sampled_from(["stop", "finish"]))
    @precondition(lambda self: self.up)
    def revoke(self, session: str, running: str) -> None:
        self.epoch += 1
        grant = wide(serial=SERIALS[session])
        self.bench.hub(revoked(grants=[grant], epoch=self.epoch, running=running))

    @rule(session=SESSIONS)
    @precondition(lambda self: self.up and self.shown)
    def show_less(self, session: str) -> None:
        if session in self.shown:
            self.bench.show(wide(serial=9, image_hashes=[], image_signers=[]), session=session)

    @rule(pick=PICK, here=st.booleans())
    @precondition(lambda self: self.bench.fetching)
    def fetch(self, pick: int, here: bool) -> None:
        image = sorted(self.bench.fetching)[pick % len(self.bench.fetching)]
        if here:
            self.bench.image_here(ImageFacts(image))
        else:
            self.bench.image_failed(image, ("image", "failed", "link_lost")[pick % 3])

    @rule(pick=PICK, ready=st.booleans())
    @precondition(lambda self: self.bench.preparing)
    def unpack(self, pick: int, ready: bool) -> None:
        worker = sorted(self.bench.preparing)[pick % len(self.bench.preparing)]
        if ready:
            self.bench.root_ready(worker)
        else:
            self.bench.root_failed(worker, ("image", "failed", "gone")[pick % 3])

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

    @rule(session=SESSIONS, pick=PICK, count=st.integers(1, 3))
    @precondition(lambda self: self.up and (self.leases or self.actors))
    def displace(self, session: str, pick: int, count: int) -> None:
        self.count += 1
        names = [*self.leases, *self.actors]
        chosen = {names[(pick + 7 * step) % len(names)] for step in range(count)}
        self.leases[f"l-{self.count}"] = True
        self.show(session)
        words = [Displaced(name, self.count) for name in sorted(chosen)]
        self.bench.hub(start_lease(f"l-{self.count}", session, displaces=words))

    @rule(pick=PICK, number=st.integers(0, 50), on=st.booleans())
    @precondition(lambda self: self.up and (self.leases or self.actors))
    def suspend_or_resume(self, pick: int, number: int, on: bool) -> None:
        names = [*self.leases, *self.actors]
        name = names[pick % len(names)]
        self.bench.hub(Resume(name, number) if on else Suspend(name, number))

    @rule(pick=PICK, well=st.booleans())
    @precondition(lambda self: self.ready)
    def stood(self, pick: int, well: bool) -> None:
        worker = self.ready[pick % len(self.ready)]
        self.bench.says(worker, Stood(1, "" if well else "its instance does not obey"))

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
            for image in list(self.bench.fetching):
                self.bench.image_failed(image, "failed")
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
        for worker in list(self.bench.roots):
            self.bench.ends(worker)
        assert not self.bench.roots, "directories of workers that are gone"


ProviderMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestAnyOrder = ProviderMachine.TestCase
