"""Grants, work and places for tests: a few of each, so that drawn ones often meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from guactors.security.grants import ACTIONS, Grant, Quotas, build_grant
from guactors.security.keys import Kind
from guactors.security.rights import Site, Usage, Work
from guactors.security.words import PREEMPTION, RUNTIMES
from tests.unit.security.samples import public, secret

NOW = 1_800_000_000.0
OWNER = secret(Kind.OWNER)
HUB = public(Kind.HUB)
APP = public(Kind.APP).text
OTHER_APP = public(Kind.APP, 2).text
SIGNER, OTHER_SIGNER = public(Kind.SIGNER, 1).text, public(Kind.SIGNER, 2).text
PROVIDER, OTHER_PROVIDER = public(Kind.PROVIDER, 1).text, public(Kind.PROVIDER, 2).text
IMAGE, OTHER_IMAGE = (f"sha3-256:{number:064x}" for number in (1, 2))
HERE = Site(PROVIDER, {"zone": "lab"})
THERE = Site(OTHER_PROVIDER, {"zone": "hall"})


def grant(**fields: Any) -> Grant:
    """A grant that allows what ``fields`` say, and nothing else."""
    fixed = {"hub": HUB.text, "app": APP, "issuer": OWNER.public.text, "serial": 1, "now": NOW}
    return build_grant(**{**fixed, **fields})


WIDE: dict[str, Any] = {
    "actions": ["submit"],
    "runtimes": ["*"],
    "image_hashes": ["*"],
    "image_signers": ["*"],
    "function_signers": ["*"],
    "max_priority": 2**31 - 1,
    "preemption": ["*"],
    "providers": ["*"],
    "quotas": Quotas("*", "*", "*", "*", "*"),
}
"""Allows to submit whatever there is; tests narrow one field."""


def wide(**fields: Any) -> Grant:
    return grant(**{**WIDE, **fields})


def some(*entries: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(entries), unique=True)


amounts = st.one_of(st.integers(0, 3), st.just("*"))
quotas = st.builds(
    Quotas,
    cpu=amounts,
    memory=amounts,
    gpu=amounts,
    storage=amounts,
    instances=st.sampled_from([0, 1, 2, "*"]),
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "serial": st.integers(1, 99),
    "not_before": st.integers(int(NOW) - 2, int(NOW) + 1),
    "expires": st.one_of(st.none(), st.integers(int(NOW) + 2, int(NOW) + 4)),
    "providers": some("*", PROVIDER, OTHER_PROVIDER, "label:zone=lab", "label:zone=hall"),
    "runtimes": some("*", *RUNTIMES),
    "image_hashes": some("*", IMAGE, OTHER_IMAGE),
    "image_signers": some("*", SIGNER, OTHER_SIGNER),
    "image_mode": st.sampled_from(["any", "all"]),
    "function_signers": some("*", SIGNER, OTHER_SIGNER),
    "max_priority": st.integers(-2, 2),
    "preemption": some("*", *PREEMPTION),
    "quotas": quotas,
    "actions": some(*ACTIONS),
}


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    """Any grant, most of them wide in most fields: else nothing would ever be allowed."""
    narrow = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=5))
    return wide(**{name: draw(FIELDS[name]) for name in sorted(narrow)})


works = st.builds(
    Work,
    runtime=st.sampled_from(["python", "python", *RUNTIMES]),
    image=st.sampled_from(["", "", IMAGE, OTHER_IMAGE]),
    signers=st.frozensets(st.sampled_from([SIGNER, OTHER_SIGNER])),
    priority=st.integers(-2, 3),
    preemption=some(*PREEMPTION).map(tuple),
    cpu=st.integers(-1, 3),
    memory=st.integers(0, 3),
    gpu=st.integers(0, 3),
)
usages = st.builds(
    Usage,
    cpu=st.integers(0, 3),
    memory=st.integers(0, 3),
    gpu=st.integers(0, 3),
    instances=st.integers(0, 2),
)
sites = st.sampled_from([HERE, THERE, Site(), Site("", {"zone": "lab"}), Site(PROVIDER)])
times = st.integers(-4, 6).map(lambda seconds: NOW + seconds)
