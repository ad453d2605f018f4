"""The way in: every order of the hub waits here until it is certain that it may run.

Owns: orders that are not judged yet, and for how long they may wait for what. Must never: pick a
worker, or tell the hub (``orders`` does both).

An order waits for the warrant of its session, which it can overtake on the other lane; for its
principal's quota, because the end that makes room can be overtaken likewise; for its image; and
for its environment, which is built after all else was found right.
Before an image is fetched the order is judged as if everybody whose signature could matter had
signed it: nothing is fetched for who may not run it in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
from msgspec import Struct

from guactors.messages import EnvWord, Placing
from guactors.provider_state.effects import Effect
from guactors.provider_state.envs import Envs, Failure, wanted
from guactors.provider_state.permits import Permits, work_of
from guactors.provider_state.shelf import Learned, Shelf
from guactors.provider_state.workers import (
    Binding,
    Job,
    Order,
    order_key,
    order_session,
    order_shape,
)
from guactors.runtime_env.description import env_id
from guactors.security.rights import Reason, Usage, Verdict, Work

WARRANT_PATIENCE = 5.0
"""Seconds that an order waits for its session's warrant."""
QUOTA_PATIENCE = 1.0
"""Seconds that an order waits for the quota."""
BASIC = ("python", "native")
"""Runtimes of every machine."""


class Waiting(Struct, frozen=True):
    """``since``: monotonic seconds."""

    order: Order
    since: float


class Refused(Struct, frozen=True):
    """``cause`` as in a death report, ``reason`` a word for the audit log."""

    cause: str
    reason: str
    detail: str


class Undecided(Struct, frozen=True):
    """It goes on waiting; ``effects`` bring what it waits for. ``preparing``: its environment is
    being built, and it needs no room meanwhile."""

    effects: list[Effect]
    preparing: bool = False


Outcome = Job | Refused | Undecided


class Gate:
    """``holdings``: what the principal of a session holds here. ``wall`` turns monotonic seconds
    into epoch seconds. ``runtimes``: of this machine, besides the basic ones."""

    def __init__(
        self,
        permits: Permits,
        shelf: Shelf,
        envs: Envs,
        holdings: Callable[[str], Usage],
        wall: Callable[[float], float],
        runtimes: Collection[str] = (),
    ) -> None:
        self._runtimes = (*BASIC, *runtimes)
        self.waiting: dict[str, Waiting] = {}
        self.parts: dict[str, tuple[str, ...]] = {}
        """By order that waits: the parts of its environment."""
        self._permits = permits
        self._shelf = shelf
        self._envs = envs
        self._fetch = False
        self._holdings = holdings
        self._wall = wall

    def arrive(self, order: Order, now: float) -> None:
        """An order to be judged; one of the same lease or actor is replaced."""
        self.waiting[order_key(order)] = Waiting(order, now)

    def withdraw(self, key: str) -> Order | None:
        """It is not wanted any more, or decided."""
        waiting = self.waiting.pop(key, None)
        self.parts.pop(key, None)
        return waiting.order if waiting is not None else None

    def consider(self, waiting: Waiting, now: float, *, fetch: bool) -> Outcome:
        """What becomes of it now. ``fetch``: whether images and files can be had from the hub."""
        order = waiting.order
        self._fetch = fetch
        session = order_session(order)
        if not self._permits.knows(session) and now < waiting.since + WARRANT_PATIENCE:
            return Undecided([])
        ways = (word.mode for word in order.displaces)
        work = work_of(order_shape(order), displacing=ways)
        refused = self._offered(work)
        if refused is not None:
            return refused
        if work.image:
            return self._consider_image(waiting, session, work, now, fetch=fetch)
        verdict = self._judge(session, work, now)
        return self._outcome(verdict, waiting, work, now)

    def _consider_image(
        self, waiting: Waiting, session: str, work: Work, now: float, *, fetch: bool
    ) -> Outcome:
        learned = self._shelf.find(work.image)
        if learned is not None:
            signers = learned.facts.signers_at(self._wall(now))
            signed = msgspec.structs.replace(work, signers=signers)
            verdict = self._judge(session, signed, now)
            # It may have been signed since; ask once, after the order.
            if verdict.allowed or verdict.reason is Reason.QUOTA or learned.at >= waiting.since:
                wrong = _wrong_runtime(signed, learned) if verdict.allowed else None
                return wrong or self._outcome(verdict, waiting, signed, now)
        hoped = msgspec.structs.replace(work, signers=self._permits.possible_signers(session))
        verdict = self._judge(session, hoped, now)
        if verdict.reason in {Reason.IMAGE, Reason.IMAGE_SIGNER}:
            # The same, but it names no signer that was only hoped for.
            verdict = self._judge(session, work, now)
        if not verdict.allowed:
            return self._outcome(verdict, waiting, hoped, now)
        failure = self._shelf.failure(work.image, waiting.since)
        if failure is not None:
            cause = "start_failed" if failure.reason == "failed" else "refused"
            return Refused(cause, failure.reason, failure.detail)
        return Undecided(self._shelf.want(work.image) if fetch else [])

    def _offered(self, work: Work) -> Refused | None:
        if work.runtime not in self._runtimes:
            has = " and ".join(self._runtimes)
            detail = f"this provider has the runtimes {has}, not {work.runtime!r}"
            return Refused("refused", Reason.RUNTIME.value, detail)
        if work.runtime != "python" and not work.image:
            detail = (
                f"the runtime {work.runtime} needs an image: programs of this machine are not for "
                "others"
            )
            return Refused("refused", Reason.IMAGE.value, detail)
        return None

    def work(self, job: Job) -> Work:
        """What was admitted, with everybody who ever signed its image."""
        learned = self._shelf.find(job.binding.image)
        return work_of(order_shape(job.order), learned.facts.signers if learned else ())

    def _judge(self, session: str, work: Work, now: float) -> Verdict:
        return self._permits.judge(session, work, self._holdings(session), self._wall(now))

    def _outcome(self, verdict: Verdict, waiting: Waiting, work: Work, now: float) -> Outcome:
        if verdict.reason is Reason.QUOTA and now < waiting.since + QUOTA_PATIENCE:
            return Undecided([])
        if not verdict.allowed:
            return Refused("refused", verdict.reason.value, verdict.detail)
        session, epoch = order_session(waiting.order), self._wall(now)
        signers = self._permits.function_signers(session, work, epoch)
        shape = order_shape(waiting.order)
        place = shape.place or Placing()
        binding = Binding(
            session, work.runtime, work.image, signers, limits=shape.limits, group=place.group,
            capture=place.capture,
        )  # fmt: skip
        word = shape.env
        if word is None:
            return Job(waiting.order, binding, epoch)
        return self._prepare(waiting, word, Job(waiting.order, binding, epoch), now)

    def _prepare(self, waiting: Waiting, word: EnvWord, job: Job, now: float) -> Outcome:
        """The job in its environment, once that is there."""
        session = job.binding.session
        found = self._permits.check_env(word, job.binding.signers, job.binding.runtime)
        if isinstance(found, Verdict):
            return Refused("refused", found.reason.value, found.detail)
        want = wanted(word, found, self._permits.principal(session))
        parts = tuple(part.key for part in want.parts)
        self.parts[order_key(waiting.order)] = parts
        state = self._envs.consider(want, waiting.since, now, fetch=self._fetch)
        if isinstance(state, Failure):
            return Refused("env_failed", "failed", state.detail)
        if state is not None:
            return Undecided(state, preparing=True)
        env, python = self._envs.place(want)
        binding = msgspec.structs.replace(job.binding, env=env_id(word.description), python=python)
        return Job(job.order, binding, job.admitted, env, parts)

    def next_wake(self, now: float) -> float | None:
        """When the patience with one ends."""
        times = [
            waiting.since + patience
            for waiting in self.waiting.values()
            for patience in (QUOTA_PATIENCE, WARRANT_PATIENCE)
        ]
        return min((time for time in times if time > now), default=None)


def _wrong_runtime(work: Work, learned: Learned) -> Refused | None:
    runtimes = learned.facts.runtimes
    if not runtimes or work.runtime in runtimes:
        return None
    detail = f"the image {work.image} is made for {', '.join(runtimes)}, not for {work.runtime}"
    return Refused("refused", Reason.RUNTIME.value, detail)
