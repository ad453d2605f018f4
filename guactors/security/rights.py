"""Rights: what a principal may do now, judged by its grants.

Owns: the rules that compare work with a grant, and the sentence that explains a refusal. Must
never: read a clock, verify a signature (``grants`` does), or let one right come from two grants.

Work fits one grant as a whole or does not run: what a grant says about a machine lends nothing to
the priority in another. Checks run in this order: validity, action, runtime, image, priority,
preemption, provider, quota. Where no grant fits, the verdict tells of the one that came furthest.

The image rule: an image is allowed if its hash is listed *or* one of its signers is; in the mode
"all", if both are. ``"*"`` among the signers still asks for somebody's signature. Work without an
image is a Python function, which needs none, or a program that is on the machine already. Nobody
knows the hash of that, so only ``"*"`` among the hashes in the mode "any" allows it, and only in
the runtime "native": the others run nothing but images.

A quota counts what a principal holds under all its grants together. Those of two grants do not add
up: what counts is the quota of the grant that the work fits.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cached_property, reduce
from math import inf
from typing import Final

from msgspec import Struct

from guactors.security.canonical import shown
from guactors.security.grants import (
    ANY,
    LABEL,
    SHOWN,
    Amount,
    Grant,
    Reason,
    Signers,
    Terms,
    list_entries,
    short_name,
    signers_of,
    valid_at,
)

__all__ = [
    "ALL", "Reason", "Rights", "Screen", "Site", "Usage", "Verdict", "Work",
    "common_signers", "describe", "rights_of",
]  # fmt: skip

PYTHON: Final = "python"
NATIVE: Final = "native"
SUBMIT: Final = "submit"
UPLOAD: Final = "upload_images"


class Work(Struct, frozen=True):
    """What wants to run. ``signers``: public keys whose signature of the image is verified.
    ``preemption``: how others are pushed aside for it. ``cpu``, ``gpu``: thousandths of a device;
    ``memory``: bytes."""

    runtime: str = PYTHON
    image: str = ""
    signers: frozenset[str] = frozenset()
    priority: int = 0
    preemption: tuple[str, ...] = ()
    cpu: int = 0
    memory: int = 0
    gpu: int = 0


class Site(Struct, frozen=True):
    """A provider: its public key as text, empty if it has none, and its labels."""

    key: str = ""
    labels: dict[str, str] = {}


class Usage(Struct, frozen=True):
    """What a principal holds, in the units of Quotas."""

    cpu: int = 0
    memory: int = 0
    gpu: int = 0
    storage: int = 0
    instances: int = 0


class Verdict(Struct, frozen=True):
    """``serial``: the grant that allows it or came furthest, 0 without one. ``detail``: of a
    refusal, for people."""

    allowed: bool
    reason: Reason
    detail: str = ""
    serial: int = 0


_STAGES: Final = {
    Reason.NOT_YET_VALID: 0, Reason.EXPIRED: 0, Reason.ACTION: 1, Reason.RUNTIME: 2,
    Reason.IMAGE: 3, Reason.IMAGE_SIGNER: 3, Reason.PRIORITY: 4, Reason.PREEMPTION: 5,
    Reason.PROVIDER: 6, Reason.QUOTA: 7,
}  # fmt: skip
"""How far work came that failed the check."""
_GRANTED: Final = Verdict(allowed=True, reason=Reason.ALLOWED)
_NOTHING_HELD: Final = Usage()


class Rights(Struct, frozen=True, dict=True):
    """``everything``: of owners, and of the user of a grid on one machine. ``principal``: whom
    refusals name. The grants are verified and this principal's: ``rights_of`` sorts them out."""

    everything: bool = False
    grants: tuple[Grant, ...] = ()
    principal: str = ""

    def may(self, action: str, now: float) -> Verdict:
        """Whether it may do ``action``, one of ACTIONS."""
        if self.everything:
            return _GRANTED
        for ready in self._ready:
            if action in ready.actions and ready.start <= now < ready.end:
                return ready.verdict
        return self._refuse_action(action, now)

    def judge_work(self, work: Work, now: float) -> Verdict:
        """Whether ``work`` could run on some provider, and fits an unused quota."""
        return self._judge(work, None, _NOTHING_HELD, now)

    def judge_site(self, work: Work, site: Site, now: float) -> Verdict:
        """Whether ``work`` may run on that provider, and fits an unused quota."""
        return self._judge(work, site, _NOTHING_HELD, now)

    def fits_site(self, work: Work, site: Site, now: float) -> bool:
        """As judge_site, for whoever sifts many providers and needs no sentence for each."""
        if self.everything:
            return True
        return any(r.miss(work, site, _NOTHING_HELD, now) is None for r in self._ready)

    def judge_quota(
        self, work: Work, usage: Usage, now: float, site: Site | None = None
    ) -> Verdict:
        """Whether ``work`` may run beside what is held already. Give the ``site`` where it is
        known: a quota of a grant for other providers does not count there."""
        return self._judge(work, site, usage, now)

    def function_signers(self, now: float) -> Signers:
        """Whose functions may run wherever Python work may: those that *every* valid grant for it
        admits. That is the answer while work and place are not known: a grant for one machine must
        not open another. Where they are, ask ``function_signers_for``."""
        if self.everything:
            return None
        sets = [
            ready.function_signers
            for ready in self._ready
            if ready.start <= now < ready.end
            and SUBMIT in ready.actions
            and (ready.screen.any_runtime or PYTHON in ready.screen.runtimes)
        ]
        return reduce(common_signers, sets) if sets else frozenset()

    def function_signers_for(self, work: Work, site: Site, now: float) -> Signers:
        """Whose functions may run as ``work`` there: those that *one* grant which it fits admits.
        Nobody's, if it fits none."""
        if self.everything:
            return None
        found: frozenset[str] = frozenset()
        for ready in self._ready:
            if ready.miss(work, site, _NOTHING_HELD, now) is None:
                if ready.function_signers is None:
                    return None
                found |= ready.function_signers
        return found

    def storage_left(self, used: int, now: float) -> int | None:
        """Bytes of images it may still upload, None for no limit, if it holds ``used``."""
        if self.everything:
            return None
        most: float = 0
        for ready in self._ready:
            if UPLOAD in ready.actions and ready.start <= now < ready.end:
                most = max(most, ready.storage)
        return None if most == inf else max(0, int(most) - used)

    @cached_property
    def _ready(self) -> tuple[_Ready, ...]:
        return tuple(_Ready(grant) for grant in self.grants)

    def _judge(self, work: Work, site: Site | None, usage: Usage, now: float) -> Verdict:
        if self.everything:
            return _GRANTED
        furthest, stage, reason = None, -1, Reason.NO_GRANT
        for ready in self._ready:
            missed = ready.miss(work, site, usage, now)
            if missed is None:
                return ready.verdict
            if _STAGES[missed] > stage:
                furthest, stage, reason = ready.grant, _STAGES[missed], missed
        if furthest is None:
            return self._no_grant("run work")
        asked, allowed = _describe_all(reason, furthest, work, site, usage)
        return _refuse(reason, self.principal, furthest, asked, allowed)

    def _refuse_action(self, action: str, now: float) -> Verdict:
        if not self.grants:
            return self._no_grant(action)
        # One that is valid came further than one that has the action at another time.
        valid = (grant for grant in self.grants if valid_at(grant, now) is None)
        grant = next(valid, self.grants[0])
        reason = valid_at(grant, now) or Reason.ACTION
        return _refuse(reason, self.principal, grant, action, ", ".join(grant.actions))

    def _no_grant(self, asked: str) -> Verdict:
        who = short_name(self.principal)
        detail = f"{who} may not {asked}: it has no grant; ask the owner of the grid for one"
        return Verdict(allowed=False, reason=Reason.NO_GRANT, detail=detail)


ALL: Final = Rights(everything=True)


def rights_of(principal: str, grants: Iterable[Grant]) -> Rights:
    """The rights of the app key ``principal`` (text): of ``grants``, all of them verified, those
    for another app are left out."""
    mine = tuple(grant for grant in grants if grant.app == principal)
    return Rights(grants=mine, principal=principal)


def common_signers(one: Signers, other: Signers) -> Signers:
    """Whom both admit."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


class Screen:
    """Terms, prepared to be asked often."""

    __slots__ = ("any_hash", "any_runtime", "any_signer", "both", "hashes", "most", "runtimes",
                 "signers")  # fmt: skip

    def __init__(self, terms: Terms) -> None:
        self.runtimes = frozenset(terms.runtimes)
        self.any_runtime = ANY in self.runtimes
        self.hashes = frozenset(terms.image_hashes)
        self.any_hash = ANY in self.hashes
        self.signers = frozenset(terms.image_signers)
        self.any_signer = ANY in self.signers
        self.both = terms.image_mode != "any"
        self.most = terms.max_priority

    def miss(self, work: Work) -> Reason | None:
        """Which of the terms the work does not fit, None if it fits all."""
        if not (self.any_runtime or work.runtime in self.runtimes):
            return Reason.RUNTIME
        if work.image or work.runtime != PYTHON:
            missed = self._miss_image(work)
            if missed is not None:
                return missed
        return None if work.priority <= self.most else Reason.PRIORITY

    def _miss_image(self, work: Work) -> Reason | None:
        if not work.image:
            bare = work.runtime == NATIVE and self.any_hash and not self.both
            return None if bare else Reason.IMAGE
        listed = self.any_hash or work.image in self.hashes
        signed = bool(work.signers) if self.any_signer else bool(self.signers & work.signers)
        if (listed and signed) if self.both else (listed or signed):
            return None
        # Told apart by whether a signature is all it lacks.
        signable = self.signers and (listed or not self.both)
        return Reason.IMAGE_SIGNER if signable else Reason.IMAGE


class _Ready:
    """A grant, prepared to be asked often; a quota of ``"*"`` is infinite."""

    __slots__ = ("actions", "any_mode", "any_site", "cpu", "end", "function_signers", "gpu",
                 "grant", "instances", "keys", "labels", "memory", "modes", "screen", "start",
                 "storage", "verdict")  # fmt: skip

    def __init__(self, grant: Grant) -> None:
        self.grant = grant
        self.verdict = Verdict(allowed=True, reason=Reason.ALLOWED, serial=grant.serial)
        self.start = grant.not_before
        self.end: float = inf if grant.expires is None else grant.expires
        self.actions = frozenset(grant.actions)
        self.screen = Screen(grant)
        self.modes = frozenset(grant.preemption)
        self.any_mode = ANY in self.modes
        self.any_site = ANY in grant.providers
        self.keys = frozenset(p for p in grant.providers if p != ANY and not p.startswith(LABEL))
        labels = (p.removeprefix(LABEL) for p in grant.providers if p.startswith(LABEL))
        self.labels = [(name, value) for name, _, value in (x.partition("=") for x in labels)]
        quotas = grant.quotas
        self.cpu, self.memory, self.gpu = _most(quotas.cpu), _most(quotas.memory), _most(quotas.gpu)
        self.storage, self.instances = _most(quotas.storage), _most(quotas.instances)
        self.function_signers = signers_of(grant)

    def miss(self, work: Work, site: Site | None, usage: Usage, now: float) -> Reason | None:
        """The first check that fails, in the order of _STAGES."""
        if not self.start <= now < self.end:
            return valid_at(self.grant, now) or Reason.EXPIRED
        if SUBMIT not in self.actions:
            return Reason.ACTION
        missed = self.screen.miss(work)
        if missed is not None:
            return missed
        if work.preemption and not (self.any_mode or self.modes.issuperset(work.preemption)):
            return Reason.PREEMPTION
        if not (self.any_site or self._admits(site)):
            return Reason.PROVIDER
        if (
            0 <= work.cpu <= self.cpu - usage.cpu
            and 0 <= work.memory <= self.memory - usage.memory
            and 0 <= work.gpu <= self.gpu - usage.gpu
            and usage.instances < self.instances
        ):
            return None
        return Reason.QUOTA

    def _admits(self, site: Site | None) -> bool:
        if site is None:
            return bool(self.keys or self.labels)
        if site.key in self.keys:
            return True
        return any(site.labels.get(name) == value for name, value in self.labels)


def _most(amount: Amount) -> float:
    return inf if amount == ANY else amount


def describe(reason: Reason, terms: Terms, work: Work) -> tuple[str, str]:
    """What was asked and what is allowed, for a reason that a Screen gave."""
    if reason is Reason.RUNTIME:
        asked = f"run in the runtime {shown(work.runtime)!r}"
        return asked, f"the runtimes {list_entries(terms.runtimes)}"
    if reason is Reason.PRIORITY:
        return f"run at priority {work.priority}", f"priority {terms.max_priority} at most"
    if not work.image:
        return f"run a {shown(work.runtime)} program without an image", "only programs in images"
    by = ", ".join(short_name(key) for key in sorted(work.signers)[:SHOWN])
    asked = f"run the image {shown(work.image)} (signed by {by or 'nobody'})"
    link = "or" if terms.image_mode == "any" else "and at the same time"
    hashes, signers = terms.image_hashes, list_entries(terms.image_signers, "anybody")
    return asked, f"images with the hashes {list_entries(hashes)}, {link} signed by {signers}"


def _describe_all(
    reason: Reason, grant: Grant, work: Work, site: Site | None, usage: Usage
) -> tuple[str, str]:
    if reason is Reason.ACTION:
        return SUBMIT, ", ".join(grant.actions)
    if reason is Reason.PREEMPTION:
        modes = ", ".join(shown(mode) for mode in work.preemption[:SHOWN])
        return f"push other work aside ({modes})", list_entries(grant.preemption)
    if reason is Reason.PROVIDER:
        where = "any provider" if site is None else f"the provider {_site(site)}"
        return f"run on {where}", f"the providers {list_entries(grant.providers)}"
    if reason is Reason.QUOTA:
        return _describe_quota(grant, work, usage)
    return describe(reason, grant, work)


def _describe_quota(grant: Grant, work: Work, usage: Usage) -> tuple[str, str]:
    quotas = grant.quotas
    for name, more, held, most in (
        ("CPU", work.cpu, usage.cpu, quotas.cpu),
        ("bytes of memory", work.memory, usage.memory, quotas.memory),
        ("GPU", work.gpu, usage.gpu, quotas.gpu),
        ("instances", 1, usage.instances, quotas.instances),
    ):
        if not 0 <= more <= _most(most) - held:
            step = 1000 if name.isupper() else 1
            amounts = [x if isinstance(x, str) else f"{x / step:.15g}" for x in (more, held, most)]
            asked = f"hold {amounts[0]} {name} beside the {amounts[1]} it holds"
            return asked, f"{amounts[2]} {name} in all"
    raise AssertionError("no quota is exceeded")


def _refuse(reason: Reason, principal: str, grant: Grant, asked: str, allowed: str) -> Verdict:
    who = short_name(principal)
    if reason is Reason.NOT_YET_VALID:
        detail = (
            f"grant {grant.serial} of {who} is valid only from {_date(grant.not_before)}: wait, or "
            "set the clocks right, or ask the owner of the grid for one that is valid by now"
        )
    elif reason is Reason.EXPIRED and grant.expires is not None:
        detail = (
            f"grant {grant.serial} of {who} ended at {_date(grant.expires)}: ask the owner of the "
            "grid for a new one"
        )
    else:
        detail = (
            f"{who} may not {asked}: its grant {grant.serial} allows {allowed or 'nothing'}; ask "
            "the owner of the grid for a grant that allows it"
        )
    return Verdict(allowed=False, reason=reason, detail=detail, serial=grant.serial)


def _site(site: Site) -> str:
    labels = ", ".join(f"{name}={value}" for name, value in sorted(site.labels.items())[:SHOWN])
    name = short_name(site.key) if site.key else "without a key"
    return f"{name} ({shown(labels)})" if labels else name


def _date(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
