"""Who may use which provider, for what, and how much of it at a time.

Owns: the rights of principals as the scheduler was told them, what each holds, and which providers'
owners have said no. Must never: choose a provider, or judge by anything but ``security.rights``.

A need without a ``who`` is of an owner or of a local process, which may do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache

from msgspec.structs import replace

from guactors.scheduling.events import LOCAL, Standing
from guactors.scheduling.placement import Need, Slot
from guactors.scheduling.resources import STEP
from guactors.security.rights import ALL, Reason, Rights, Site, Usage, Verdict, Work

NOBODY = "?"
"""The principal of a worker that came back to a new hub before its session's root: it may do
nothing until that is known."""
MOST_REFUSED = 10_000
_MILLI = 1000


def who_of(standing: Standing) -> str:
    """The name under which its needs are judged and counted."""
    if standing.rights.everything:
        return ""
    return standing.principal or NOBODY


def _ceil(steps: int) -> int:
    """Whole units, rounded up as providers do: a thousandth more is still too much."""
    return -(-steps // STEP)


@lru_cache(10_000)
def work_of(need: Need) -> Work:
    """What the rights are asked about."""
    # Inside a placement group the amounts were asked of, and are held by, the group.
    amounts = {} if need.wish.group else dict(need.hold)
    return Work(
        need.runtime or "python",
        need.image,
        frozenset(),
        need.priority,
        cpu=_ceil(amounts.get("CPU", 0) * _MILLI),
        memory=_ceil(amounts.get("memory", 0)),
        gpu=_ceil(amounts.get("GPU", 0) * _MILLI),
    )


def _hopeful(work: Work, rights: Rights) -> Work:
    """As if everybody whose signature would do had signed the image: who did is seen where the
    image is, at the provider, which judges again."""
    if not work.image:
        return work
    signers = {signer for grant in rights.grants for signer in grant.image_signers}
    return replace(work, signers=frozenset(signers))


@dataclass(slots=True)
class _Held:
    """What a principal holds in the whole grid, in the units of Usage."""

    cpu: int = 0
    memory: int = 0
    gpu: int = 0
    instances: int = 0
    things: int = 0
    """Instances, and bundles of placement groups."""

    def add(self, work: Work, sign: int, instances: int = 1) -> None:
        self.cpu += sign * work.cpu
        self.memory += sign * work.memory
        self.gpu += sign * work.gpu
        self.instances += sign * instances
        self.things += sign

    def usage(self) -> Usage:
        return Usage(self.cpu, self.memory, self.gpu, 0, self.instances)


class Permission:
    """``wall`` turns ``now`` into epoch seconds."""

    def __init__(self, wall: Callable[[float], float]) -> None:
        self._wall = wall
        self._rights: dict[str, Rights] = {}
        self._held: dict[str, _Held] = {}
        self._refused: dict[tuple[Need, str], str] = {}

    def learn(self, standing: Standing) -> bool:
        """What a caller's principal may; whether that is other than what was known."""
        if not standing.principal:
            return False
        before = self._rights.get(standing.principal)
        self._rights[standing.principal] = standing.rights
        return before != standing.rights

    def who(self, principal: str) -> str:
        """As ``who_of``, for a principal that may not be here: one that nobody was told of yet may
        do nothing."""
        if principal in ("", LOCAL):
            return ""
        rights = self._rights.get(principal)
        if rights is not None and rights.everything:
            return ""
        return principal

    def change(self, principal: str, rights: Rights) -> None:
        """From now on."""
        self._rights[principal] = rights
        self._refused = {key: why for key, why in self._refused.items() if key[0].who != principal}

    # --- who may go where -------------------------------------------------------------------------

    def permits(self, need: Need, slot: Slot, now: float) -> bool:
        """Whether the need's principal may use the provider for it."""
        if (need, slot.peer) in self._refused:
            return False
        if not need.who:
            return True
        rights = self._rights.get(need.who, _NONE)
        site = Site(slot.key, slot.labels)
        return rights.fits_site(_hopeful(work_of(need), rights), site, self._wall(now))

    def may_displace(self, need: Need, slot: Slot, mode: str, now: float) -> bool:
        """Whether the need's principal may push others aside on the provider in this way."""
        if not need.who:
            return True
        rights = self._rights.get(need.who, _NONE)
        work = replace(_hopeful(work_of(need), rights), preemption=(mode,))
        return rights.fits_site(work, Site(slot.key, slot.labels), self._wall(now))

    def judge(self, need: Need, slot: Slot, now: float) -> Verdict:
        """As ``permits``, with the reason."""
        why = self._refused.get((need, slot.peer))
        if why is not None:
            return Verdict(False, Reason.LOCAL_POLICY, why)
        rights = self._rights.get(need.who, _NONE) if need.who else ALL
        site = Site(slot.key, slot.labels)
        return rights.judge_site(_hopeful(work_of(need), rights), site, self._wall(now))

    def refuse(self, need: Need, slot: Slot, why: str) -> None:
        """The provider itself says no; it is not asked again for the same."""
        self._refused[need, slot.peer] = why
        while len(self._refused) > MOST_REFUSED:
            del self._refused[next(iter(self._refused))]

    def forget_need(self, need: Need) -> bool:
        """Providers may be asked again for the same; whether any had refused it."""
        before = len(self._refused)
        self._refused = {key: why for key, why in self._refused.items() if key[0] != need}
        return len(self._refused) < before

    def forget_slot(self, peer: str) -> None:
        """It left, or came back and may think otherwise."""
        self._refused = {key: why for key, why in self._refused.items() if key[1] != peer}

    def explain(self, need: Need, slots: Iterable[Slot], now: float) -> Verdict | None:
        """Why none of the ``slots``, which could meet the need, may; None if one may, or if nobody
        knows yet whose need it is."""
        if need.who == NOBODY:
            return None
        rights = self._rights.get(need.who, _NONE) if need.who else ALL
        verdict = rights.judge_work(_hopeful(work_of(need), rights), self._wall(now))
        if not verdict.allowed:
            return verdict
        first: Verdict | None = None
        for slot in slots:
            verdict = self.judge(need, slot, now)
            if verdict.allowed:
                return None
            first = first or verdict
        return first

    # --- how much ---------------------------------------------------------------------------------

    def within_quota(self, need: Need, now: float) -> bool:
        """Whether it may have this beside what it has."""
        if not need.who:
            return True
        held = self._held.get(need.who)
        if held is None:
            return True
        rights = self._rights.get(need.who, _NONE)
        work = _hopeful(work_of(need), rights)
        verdict = rights.judge_quota(work, held.usage(), self._wall(now))
        return verdict.reason is not Reason.QUOTA

    def take(self, need: Need) -> None:
        """It holds this now."""
        if need.who:
            self._held.setdefault(need.who, _Held()).add(work_of(need), 1)

    def give(self, need: Need) -> None:
        """It holds this no longer."""
        self._give(need, 1)

    def all_within(self, needs: Sequence[Need], now: float) -> bool:
        """Whether it may have all of them, bundles of one group, beside what it has."""
        if not needs or not needs[0].who:
            return True
        for need in needs[:-1]:
            self.reserve(need)
        try:
            return self.within_quota(needs[-1], now)
        finally:
            for need in needs[:-1]:
                self.release(need)

    def reserve(self, need: Need) -> None:
        """It holds room for this now, but no instance."""
        if need.who:
            self._held.setdefault(need.who, _Held()).add(work_of(need), 1, 0)

    def release(self, need: Need) -> None:
        """It holds that room no longer."""
        self._give(need, 0)

    def _give(self, need: Need, instances: int) -> None:
        if need.who:
            held = self._held[need.who]
            held.add(work_of(need), -1, instances)
            if not held.things:
                del self._held[need.who]

    def sketch(self) -> Permission:
        """A copy in which more may be taken and given without anybody holding it."""
        made = copy(self)
        made._held = {who: copy(held) for who, held in self._held.items()}
        return made

    def held(self) -> dict[str, Usage]:
        """By principal."""
        return {who: held.usage() for who, held in self._held.items()}


_NONE = Rights()
