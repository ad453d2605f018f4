"""The policy of a machine's owner: what may run here, whatever a hub or a grant says.

Owns: the form of the policy file, its own tests, and the judgement. Must never: read a file, or
allow what a grant refuses: a policy is asked beside the grant, and both must agree.

The file is JSON that a person writes: spaces and the order of fields are free, unknown and repeated
fields are refused, a missing list is an empty one and allows nothing. Its ``tests`` say what the
owner means; they run whenever the file is read, and a file that fails one is not used at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final, Literal, NoReturn

import msgspec
from msgspec import Struct, field

from guactors.errors import UsageError
from guactors.runtime_env.description import Description
from guactors.security import canonical
from guactors.security.grants import (
    ANY,
    MOST_ENTRIES,
    MOST_PRIORITY,
    Reason,
    Signers,
    Terms,
    a_key,
    check_list,
    check_terms,
    image_hash_fault,
    one_of,
    short_name,
    signers_of,
)
from guactors.security.keys import Kind, PublicKey, parse_public
from guactors.security.rights import (
    PYTHON,
    Rights,
    Screen,
    Site,
    Verdict,
    Work,
    common_signers,
    describe,
)
from guactors.security.words import RUNTIMES

ENVIRONMENTS: Final = ("pip", "uv", "py_executable")
"""What of a runtime_env runs, or brings, more than the session's own code would."""

_WHAT: Final = "the policy"
_NO_LIMITS: Final[dict[str, Any]] = {
    "runtimes": [ANY], "image_hashes": [ANY], "image_signers": [ANY], "image_mode": "any",
    "function_signers": [ANY], "max_priority": MOST_PRIORITY, "apps": [ANY],
    "environments": [ANY],
}  # fmt: skip
_ALLOWED: Final = Verdict(allowed=True, reason=Reason.ALLOWED)
_EXPECTED: Final = tuple(
    reason.value
    for reason in (
        Reason.ALLOWED, Reason.LOCAL_POLICY, Reason.SESSION, Reason.APP, Reason.RUNTIME,
        Reason.IMAGE, Reason.IMAGE_SIGNER, Reason.PRIORITY, Reason.FUNCTION_SIGNER,
    )
)  # fmt: skip


class PolicyTest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question and the answer the owner expects.

    ``app``: an app's key, empty for a session without one. ``signers``: whose signatures the image
    has. ``function_signer``: who signed the function, empty for nobody; asked for the runtime
    "python" alone. ``expect``: "allowed", the Reason it is refused for, or "local_policy" for a
    refusal of any kind."""

    name: str = ""
    app: str = ""
    runtime: str = PYTHON
    image: str = ""
    signers: list[str] = []
    priority: int = 0
    function_signer: str = ""
    expect: str


class Policy(Terms, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Beside the Terms: ``owners``: the owner keys whose grants count here. ``apps``: the app keys
    that are admitted, or ``"*"``; ``deny_apps``: those that are not, whatever ``apps`` says.
    ``hub_sessions``: whether sessions without an app key are, which the user of the hub's own
    machine starts. ``environments``: what a runtime_env may have besides variables and files, words
    of ENVIRONMENTS or ``"*"``."""

    format: Literal["guactors.policy/1"]
    owners: list[str] = field(default_factory=list)
    apps: list[str] = field(default_factory=list)
    deny_apps: list[str] = field(default_factory=list)
    hub_sessions: bool = False
    environments: list[str] = field(default_factory=list)
    tests: list[PolicyTest] = field(default_factory=list)

    @cached_property
    def _screen(self) -> Screen:
        return Screen(self)

    def forbidden(self, description: Description) -> str:
        """What the description of a runtime_env has that is not allowed, empty if all is."""
        has = {
            "pip": description.pip is not None,
            "uv": description.uv is not None,
            "py_executable": bool(description.py_executable),
        }
        allowed = ENVIRONMENTS if ANY in self.environments else self.environments
        return next((word for word in ENVIRONMENTS if has[word] and word not in allowed), "")

    @cached_property
    def _admitted(self) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset(self.apps), frozenset(self.deny_apps)


def parse_policy(data: bytes) -> Policy:
    """The policy in a file. Raises UsageError that names what is wrong in it, or the test that it
    does not pass; then the provider must not start."""
    if len(data) > canonical.LIMIT:
        raise UsageError(f"{_WHAT} is too large: {len(data)} bytes, at most {canonical.LIMIT}")
    try:
        document = json.loads(
            data.decode(),
            object_pairs_hook=_unrepeated,
            parse_float=_no_fraction,
            parse_constant=_no_fraction,
        )
        policy = msgspec.convert(document, Policy)
    except UsageError as error:
        raise UsageError(f"{_WHAT} cannot be used: {error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{_WHAT} cannot be used: it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"{_WHAT} is no JSON: {error.msg} in {where}") from None
    except RecursionError:
        raise UsageError(f"{_WHAT} cannot be used: it is nested too deeply") from None
    except (msgspec.ValidationError, ValueError) as error:
        # A ValueError of json: a number of thousands of digits.
        raise UsageError(f"{_WHAT} cannot be used: {canonical.shown(str(error))}") from None
    check_policy(policy)
    run_tests(policy)
    return policy


def default_policy(owners: Iterable[str]) -> Policy:
    """The policy of a machine that joins a grid: whatever grants by these owner keys allow."""
    policy = Policy(format="guactors.policy/1", owners=sorted(owners), **_NO_LIMITS)
    check_policy(policy)
    return policy


def open_policy() -> Policy:
    """The policy of a grid on one machine, whose only user is the machine's."""
    return Policy(format="guactors.policy/1", hub_sessions=True, **_NO_LIMITS)


def policy_text(policy: Policy) -> bytes:
    """The file of a policy, to be read and changed by people."""
    document = msgspec.to_builtins(policy)
    first = {name: document[name] for name in ("format", "owners", "apps", "deny_apps")}
    return msgspec.json.format(msgspec.json.encode({**first, **document})) + b"\n"


def trusted_owners(policy: Policy) -> frozenset[PublicKey]:
    """The keys whose grants count on this machine."""
    return frozenset(parse_public(owner, Kind.OWNER) for owner in policy.owners)


def judge(policy: Policy, app: str, work: Work) -> Verdict:
    """Whether ``work`` of the app key ``app`` (empty: of a session without one) may run here. The
    grant is judged apart from this, and so is who signed the functions (``required_signers``)."""
    found = _refusal(policy, app, work)
    if found is None:
        return _ALLOWED
    return Verdict(allowed=False, reason=Reason.LOCAL_POLICY, detail=found[1])


def required_signers(
    rights: Rights, policy: Policy, now: float, work: Work | None = None, site: Site | None = None
) -> Signers:
    """Whose functions may run here: those whom grant and policy both admit; None is anybody's.
    With ``work`` and ``site``: as that work there. Else as any, see ``Rights.function_signers``."""
    if work is None or site is None:
        granted = rights.function_signers(now)
    else:
        granted = rights.function_signers_for(work, site, now)
    return common_signers(granted, signers_of(policy))


def check_policy(policy: Policy) -> None:
    """Raises UsageError where a policy or one of its tests says something that cannot be meant."""
    check_terms(_WHAT, policy)
    check_list(f"{_WHAT}, owners", policy.owners, a_key(Kind.OWNER), star=False)
    check_list(f"{_WHAT}, apps", policy.apps, a_key(Kind.APP))
    check_list(f"{_WHAT}, deny_apps", policy.deny_apps, a_key(Kind.APP))
    check_list(f"{_WHAT}, environments", policy.environments, one_of(ENVIRONMENTS))
    if len(policy.tests) > MOST_ENTRIES:
        raise UsageError(f"{_WHAT}: {len(policy.tests)} tests, at most {MOST_ENTRIES} are possible")
    for number, test in enumerate(policy.tests, 1):
        # A mistyped key or word is refused by any policy: the test would prove nothing.
        what = _name(number, test)
        check_list(f"{what}, runtime", [test.runtime], one_of(RUNTIMES), star=False)
        check_list(f"{what}, signers", test.signers, a_key(Kind.SIGNER), star=False)
        check_list(f"{what}, expect", [test.expect], one_of(_EXPECTED), star=False)
        for name, value, fault in (
            ("app", test.app, a_key(Kind.APP)),
            ("image", test.image, image_hash_fault),
            ("function_signer", test.function_signer, a_key(Kind.SIGNER)),
        ):
            check_list(f"{what}, {name}", [value] if value else [], fault, star=False)


def run_tests(policy: Policy) -> None:
    """Raises UsageError that names the first of its tests that a policy does not pass."""
    for number, test in enumerate(policy.tests, 1):
        reason, detail = _outcome(policy, test)
        refused = test.expect == Reason.LOCAL_POLICY and reason is not Reason.ALLOWED
        if not refused and reason != test.expect:
            raise UsageError(
                f"{_name(number, test)} expects {test.expect!r}, but came out {reason.value!r}"
                f"{detail and f': {detail}'}; correct the policy, or the test if it is wrong"
            )


def _outcome(policy: Policy, test: PolicyTest) -> tuple[Reason, str]:
    work = Work(
        runtime=test.runtime,
        image=test.image,
        signers=frozenset(test.signers),
        priority=test.priority,
    )
    found = _refusal(policy, test.app, work)
    if found is not None:
        return found
    signers = signers_of(policy)
    if test.runtime == PYTHON and signers is not None and test.function_signer not in signers:
        by = short_name(test.function_signer) if test.function_signer else "nobody"
        return Reason.FUNCTION_SIGNER, f"functions signed by {by} may not run here"
    return Reason.ALLOWED, ""


def _refusal(policy: Policy, app: str, work: Work) -> tuple[Reason, str] | None:
    apps, denied = policy._admitted
    if not app and not policy.hub_sessions:
        return Reason.SESSION, _refused(app, "run anything", "only apps with a key")
    if app and (app in denied or ANY in denied):
        return Reason.APP, _refused(app, "run anything", "no app that it denies")
    if app and app not in apps and ANY not in apps:
        return Reason.APP, _refused(app, "run anything", "only the apps it lists")
    missed = policy._screen.miss(work)
    if missed is None:
        return None
    return missed, _refused(app, *describe(missed, policy, work))


def _refused(app: str, asked: str, allowed: str) -> str:
    who = short_name(app) if app else "a session without an app key"
    return (
        f"{who} may not {asked} on this machine: its owner's policy allows {allowed}; ask the "
        "owner of the machine to change it"
    )


def _name(number: int, test: PolicyTest) -> str:
    name = f" ({canonical.shown(test.name)})" if test.name else ""
    return f"test {number}{name} of the policy"


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"the field {canonical.shown(twice)!r} is there twice")
    return found


def _no_fraction(text: str) -> NoReturn:
    raise UsageError(f"{text[:20]} is there, but only whole numbers are possible")
