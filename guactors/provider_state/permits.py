"""Who may run what on this machine: by whose right each session works, and what was revoked.

Owns: the verified warrants, the revocations, the machine owner's policy, and the verdicts that come
of them. Must never: take the hub's word where the machine has a policy, read a clock, or end
anything (``orders`` does).

With a policy, a session with a key must show a statement that its key signed for this hub and this
session, and grants that owners named in the policy signed; an owner among those may do everything
the policy allows. Without one, this is a provider of the hub's own machine: it takes the hub's word
for who a session belongs to and which grants it has, and does what they say.

What was revoked stays revoked while this provider lives, even where a later list leaves it out.
All times here are epoch seconds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Final

import msgspec
from msgspec import Struct

from guactors.config import ProviderConfig
from guactors.errors import AuthFailed, InternalError, UsageError
from guactors.messages import Document, EnvWord, Revoked, Shape, WarrantWord
from guactors.runtime_env.description import Description, decode, only_variables
from guactors.security.grants import ANY, Grant, Reason, Refusal, read_grant, short_name, valid_at
from guactors.security.keys import Kind, PublicKey, parse_public
from guactors.security.policy import (
    judge,
    open_policy,
    parse_policy,
    required_signers,
    trusted_owners,
)
from guactors.security.rights import ALL, PYTHON, Rights, Site, Usage, Verdict, Work
from guactors.security.signing import parse_envelope
from guactors.security.statements import check_warrant, former_keys
from guactors.security.succession import follow

LOCAL: Final = "local"
"""The principal of a session without a key."""
MOST_SESSIONS: Final = 4096
"""Remembered beyond those that have work here."""

_SIGNER: Final = f"gu_{Kind.SIGNER.value}_"
_UNKNOWN: Final = Verdict(
    allowed=False,
    reason=Reason.SESSION,
    detail="the hub did not show this provider by whose right the session runs",
)


class Permit(Struct, frozen=True):
    """What one session showed. ``grants``: verified, also those that were revoked since;
    ``hint``: why others were left out. ``refusal``: why the warrant as a whole counts for
    nothing."""

    warrant: WarrantWord
    principal: str
    everything: bool = False
    grants: tuple[Grant, ...] = ()
    hint: str = ""
    refusal: Verdict | None = None


class Permits:
    """Raises UsageError for a policy that cannot be used: then the provider must not start."""

    def __init__(self, config: ProviderConfig) -> None:
        self._trusting = not config.policy
        self._policy = open_policy() if self._trusting else parse_policy(config.policy)
        # ``apps`` is about apps: an owner who is trusted here is not kept out by it.
        self._owners_policy = msgspec.structs.replace(self._policy, apps=[ANY], deny_apps=[])
        self._owners = trusted_owners(self._policy)
        self._hub = parse_public(config.hub_key, Kind.HUB) if config.hub_key else None
        if not self._trusting and self._hub is None:
            raise UsageError(
                f"provider {config.name} has a policy but does not know the key of its hub: it "
                "could not tell whom a warrant is for; join again"
            )
        self._site = Site(config.seal.key, config.labels)
        self._permits: dict[str, Permit] = {}
        self._rights: dict[str, Rights] = {}
        self._epoch = -1
        self._keys: frozenset[str] = frozenset()
        self._grants: frozenset[str] = frozenset()
        self._transports: frozenset[str] = frozenset()

    # --- what the hub tells ---------------------------------------------------------------------

    def warrant(self, warrant: WarrantWord, now: float) -> bool:
        """Take in by whose right a session runs. Whether that changes what it may."""
        session = warrant.session
        before = self._permits.pop(session, None)
        if before is None:
            permit = self._open(warrant, None, now)
        elif before.warrant != warrant:
            permit = _with_expired(self._open(warrant, before, now), before, now)
        else:
            permit = before
        self._permits[session] = permit
        rights, old = self._rights_of(permit), self._rights.get(session)
        self._rights[session] = rights
        return before is not None and (rights != old or before.refusal != permit.refusal)

    def revoke(self, message: Revoked) -> set[str] | None:
        """Take in a list of revocations. The sessions whose rights it may change; None where all
        of it is known. An older epoch counts too: a hub restored from a backup is behind."""
        new = frozenset(message.keys) - self._keys - {""}
        transports = frozenset(message.transports) - self._transports - {""}
        if not (new or transports or frozenset(message.grants) - self._grants):
            return None
        self._epoch = max(self._epoch, message.epoch)
        before = {session: self._standing(session) for session in self._permits}
        self._keys |= new
        self._grants |= frozenset(message.grants)
        self._transports |= frozenset(message.transports) - {""}
        for session, permit in self._permits.items():
            self._rights[session] = self._rights_of(permit)
        return {
            session
            for session, standing in before.items()
            if standing != self._standing(session) or self._counts_signer(session, new)
        }

    def _standing(self, session: str) -> tuple[Rights, bool]:
        return self._rights[session], self._is_revoked(self._permits[session])

    def _counts_signer(self, session: str, keys: frozenset[str]) -> bool:
        """Whether a signature by one of these can matter to what the session does."""
        if not any(key.startswith(_SIGNER) for key in keys):
            return False
        terms = (self._policy, *self._rights[session].grants)
        named = frozenset().union(*(t.image_signers + t.function_signers for t in terms))
        return ANY in named or bool(named & keys)

    def forget(self, in_use: Collection[str]) -> None:
        """Let go of the sessions that were not told of lately, but those ``in_use``."""
        surplus = len(self._permits) - MOST_SESSIONS
        if surplus <= 0:
            return
        for session in [one for one in self._permits if one not in in_use][:surplus]:
            del self._permits[session], self._rights[session]

    # --- answers --------------------------------------------------------------------------------

    def knows(self, session: str) -> bool:
        """Whether a warrant of the session came."""
        return session in self._permits

    def principal(self, session: str) -> str:
        """Whose session it is: a key's text, or ``local``; empty for one nobody told of."""
        permit = self._permits.get(session)
        return permit.principal if permit is not None else ""

    def shown(self, session: str) -> WarrantWord | None:
        """The warrant of the session as it came."""
        permit = self._permits.get(session)
        return permit.warrant if permit is not None else None

    def limited(self, session: str) -> bool:
        """Whether what its principal holds can matter."""
        return not self._rights.get(session, ALL).everything

    def revoked(self, key: str) -> bool:
        """Whether this public key was revoked."""
        return key in self._keys

    def admissible(self, transports: Collection[str]) -> list[str]:
        """Those of these CURVE keys that may call a worker."""
        return [key for key in transports if key and key not in self._transports]

    def judge(self, session: str, work: Work, usage: Usage, now: float) -> Verdict:
        """Whether ``work`` may run here beside what its principal holds: grant and policy agree."""
        permit = self._permits.get(session)
        if permit is None:
            return _UNKNOWN
        if self._is_revoked(permit):
            who = short_name(permit.principal)
            return Verdict(allowed=False, reason=Reason.REVOKED, detail=f"{who} was revoked")
        if permit.refusal is not None:
            return permit.refusal
        work = self._signed_by_the_living(work)
        found = self._rights[session].judge_quota(work, usage, now, self._site)
        if not found.allowed:
            hint = permit.hint if found.reason is Reason.NO_GRANT else ""
            return _with_hint(found, hint)
        policy = self._owners_policy if permit.everything else self._policy
        app = "" if permit.principal == LOCAL else permit.principal
        local = judge(policy, app, work)
        return found if local.allowed else local

    def possible_signers(self, session: str) -> frozenset[str]:
        """Everybody whose signature of an image could make a difference for this session, ``"*"``
        among them where anybody's does."""
        rights = self._rights.get(session, ALL)
        named = [terms.image_signers for terms in (self._policy, *rights.grants)]
        return frozenset().union(*named)

    def function_signers(self, session: str, work: Work, now: float) -> tuple[str, ...] | None:
        """Whose code ``work`` of the session may unpickle here, None: anybody's."""
        rights = self._rights.get(session)
        if rights is None:
            return ()
        work = self._signed_by_the_living(work)
        signers = required_signers(rights, self._policy, now, work, self._site)
        return None if signers is None else tuple(sorted(signers - self._keys))

    def check_env(
        self, word: EnvWord, signers: tuple[str, ...] | None, runtime: str
    ) -> Description | Verdict:
        """What an order is to run in, or why it may not: where code must be signed (``signers``) it
        must be, too, for it says what is imported."""
        if signers is not None:
            from guactors.security.code import Purpose, judge_code

            found = judge_code(Purpose.ENVIRONMENT, word.description, word.signatures, signers)
            if not found.signer:
                detail = f"the runtime_env may not be used here: {found.detail}"
                return Verdict(allowed=False, reason=found.reason, detail=detail)
        try:
            description = decode(word.description)
        except UsageError as error:
            return Verdict(allowed=False, reason=Reason.LOCAL_POLICY, detail=str(error))
        if runtime != PYTHON and only_variables(description) != description:
            detail = (
                f"in the runtime {runtime!r} only env_vars of a runtime_env can be had: put the "
                "rest into the image"
            )
            return Verdict(allowed=False, reason=Reason.RUNTIME, detail=detail)
        refused = self._policy.forbidden(description)
        if refused:
            detail = (
                f"the runtime_env has {refused}, which the owner of this machine does not allow: "
                f"add {refused!r} to the environments of its policy, or do without"
            )
            return Verdict(allowed=False, reason=Reason.LOCAL_POLICY, detail=detail)
        return description

    def still(
        self, session: str, work: Work, bound: tuple[str, ...] | None, admitted: float, now: float
    ) -> bool:
        """Whether what was admitted then may go on, under the signers its worker is bound to. The
        end of a grant's time alone ends nothing, nor does a new grant that begins later."""
        for moment in (now, admitted):
            if not self.judge(session, work, Usage(), moment).allowed:
                continue
            signers = self.function_signers(session, work, moment)
            if signers is None or (bound is not None and set(bound) <= set(signers)):
                return True
        return False

    def check(self) -> None:
        """Raise InternalError if somebody has rights that were taken back."""
        if self._permits.keys() != self._rights.keys():
            raise InternalError("sessions have warrants and no rights, or the reverse")
        for session, rights in self._rights.items():
            permit = self._permits[session]
            if rights != self._rights_of(permit):
                raise InternalError(f"the rights of {session} are not those of its warrant")
            if rights.everything and (permit.refusal is not None or self._is_revoked(permit)):
                raise InternalError(f"{session} may everything, but {permit.principal} nothing")

    # --- warrants -------------------------------------------------------------------------------

    def _open(self, warrant: WarrantWord, before: Permit | None, now: float) -> Permit:
        if not warrant.key:
            # Whether such sessions are welcome is for the policy to say.
            return Permit(warrant, LOCAL, everything=True)
        try:
            principal = self._principal(warrant, before, now)
        except (AuthFailed, UsageError) as error:
            detail = f"the warrant of its session was refused: {error}"
            refusal = Verdict(allowed=False, reason=Reason.BAD_SIGNATURE, detail=detail)
            return Permit(warrant, warrant.key, refusal=refusal)
        if principal.kind is Kind.OWNER:
            return Permit(warrant, principal.text, everything=True)
        grants, hints = self._open_grants(warrant, principal)
        return Permit(warrant, principal.text, False, tuple(grants), "; ".join(hints[:3]))

    def _principal(self, warrant: WarrantWord, before: Permit | None, now: float) -> PublicKey:
        """Whose session it is, as far as this machine believes it. Raises AuthFailed."""
        if self._trusting or self._hub is None:
            return parse_public(warrant.key)
        if (
            before is not None
            and before.refusal is None
            and _proof(before.warrant) == _proof(warrant)
        ):
            return parse_public(before.principal)
        owners = self._trusted(warrant)
        principal = check_warrant(warrant, hub=self._hub, owners=owners, now=now)
        if principal.kind is Kind.OWNER and principal not in owners:
            raise AuthFailed(
                f"{principal.short} is no owner that the policy of this machine names: ask the "
                "owner of the machine to add it"
            )
        return principal

    def _open_grants(
        self, warrant: WarrantWord, principal: PublicKey
    ) -> tuple[list[Grant], list[str]]:
        """Those that count here, and why others do not."""
        opened, hints = [], []
        owners: Collection[PublicKey] = self._trusted(warrant)
        names = {principal.text}
        if not self._trusting:
            names |= {key.text for key in former_keys(warrant.successions, principal)}
        for data in warrant.grants:
            if self._trusting:
                owners = _named_issuers(data)
            found = read_grant(data, owners, self._hub)
            if isinstance(found, Refusal):
                hints.append(found.detail)
            elif self._trusting or found.app in names:
                opened.append(found)
        return opened, hints

    def _trusted(self, warrant: WarrantWord) -> frozenset[PublicKey]:
        """The owners of the policy and those who follow them. A revoked one has no followers:
        whoever stole its key could name them."""
        owners = {owner for owner in self._owners if owner.text not in self._keys}
        if warrant.successions:
            try:
                links = [parse_envelope(data, "a succession") for data in warrant.successions]
                owners |= {follow(links, owner) for owner in owners}
            except (AuthFailed, UsageError):
                # Then check_warrant refuses it by name, or none of it was needed.
                return frozenset(owners)
        return frozenset(owner for owner in owners if owner.text not in self._keys)

    def _is_revoked(self, permit: Permit) -> bool:
        return permit.principal in self._keys or permit.warrant.key in self._keys

    def _rights_of(self, permit: Permit) -> Rights:
        """What is left of what it showed."""
        if permit.refusal is not None or self._is_revoked(permit):
            return Rights(principal=permit.principal)
        if permit.everything:
            return ALL
        grants = tuple(
            grant
            for grant in permit.grants
            if grant.issuer not in self._keys
            and f"{grant.issuer} {grant.serial}" not in self._grants
        )
        return Rights(grants=grants, principal=permit.principal)

    def _signed_by_the_living(self, work: Work) -> Work:
        if not work.signers & self._keys:
            return work
        return msgspec.structs.replace(work, signers=work.signers - self._keys)


def work_of(shape: Shape, signers: Collection[str] = (), displacing: Iterable[str] = ()) -> Work:
    """What an order of this shape is, as rights and policies see it; ``signers``: of its image;
    ``displacing``: the ways in which others are made to give way for it."""
    return Work(
        runtime=shape.runtime or "python",
        image=shape.image,
        signers=frozenset(signers),
        priority=shape.priority,
        preemption=tuple(sorted(set(displacing))),
        cpu=_thousandths(shape.resources.get("CPU", 0.0)),
        memory=math.ceil(shape.resources.get("memory", 0.0)),
        gpu=_thousandths(shape.resources.get("GPU", 0.0)),
    )


def _thousandths(amount: float) -> int:
    """Rounded up, but not for what binary fractions add."""
    return math.ceil(round(amount * 1000, 3))


def _proof(warrant: WarrantWord) -> tuple[str, Document, bytes, list[Document]]:
    return warrant.key, warrant.statement, warrant.signature, warrant.successions


def _named_issuers(data: bytes) -> list[PublicKey]:
    """Who says to have signed it: for those who take the hub's word."""
    try:
        envelope = parse_envelope(data, "a grant")
        return [parse_public(one.key, Kind.OWNER) for one in envelope.signatures]
    except UsageError:
        return []


def _with_expired(permit: Permit, before: Permit, now: float) -> Permit:
    """With the grants that the hub hands out no more because their time has ended: they allow
    nothing new, but what they allowed may go on."""
    if permit.refusal is not None or permit.everything or permit.principal != before.principal:
        return permit
    kept = tuple(
        grant
        for grant in before.grants
        if grant not in permit.grants and valid_at(grant, now) is Reason.EXPIRED
    )
    return msgspec.structs.replace(permit, grants=permit.grants + kept) if kept else permit


def _with_hint(verdict: Verdict, hint: str) -> Verdict:
    if not hint:
        return verdict
    return msgspec.structs.replace(verdict, detail=f"{verdict.detail} ({hint})")
