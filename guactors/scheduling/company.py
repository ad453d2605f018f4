"""Who may be beside whom on a provider.

Owns: the labels that work carries, what it says about the labels of other work, and the judgement
of both. Pure; must never: know providers, leases or actors.

Only work of one principal is looked at: what others run there neither helps nor hinders. Work
without labels is what no condition speaks of. That two are to be apart need only be said by one of
them, whichever came first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from guactors.messages import Company as CompanyWord
from guactors.scheduling.selectors import Labels, in_order, met


class Company(NamedTuple):
    """A :class:`guactors.messages.Company`, hashable."""

    labels: Labels = ()
    near: Labels = ()
    apart: Labels = ()
    rather_near: Labels = ()
    rather_apart: Labels = ()


Present = Mapping[tuple[str, Company], int]
"""What is on a provider: how many things of which principal and company."""


def company_of(word: CompanyWord | None) -> Company | None:
    """None of what says nothing about it."""
    if word is None:
        return None
    found = Company(
        in_order(word.labels), in_order(word.near), in_order(word.apart),
        in_order(word.rather_near), in_order(word.rather_apart),
    )  # fmt: skip
    return found if any(found) else None


def in_the_way(mine: Company, other: Company) -> bool:
    """Whether the two may not be on one provider."""
    return speaks_of(mine.apart, other) or speaks_of(other.apart, mine)


def speaks_of(condition: Labels, other: Company) -> bool:
    """Whether the condition is one, and is met by the other's labels."""
    return bool(condition and other.labels) and met(condition, _labels(other.labels))


def welcome(who: str, mine: Company, there: Present) -> bool:
    """Whether something of this principal may join what is there."""
    near = not mine.near
    for other in _of(who, there):
        if in_the_way(mine, other):
            return False
        near = near or speaks_of(mine.near, other)
    return near


def reluctance(who: str, mine: Company, there: Present) -> int:
    """How much rather it would be elsewhere; 0 is best."""
    found, near = 0, not mine.rather_near
    for other in _of(who, there):
        near = near or speaks_of(mine.rather_near, other)
        if speaks_of(mine.rather_apart, other):
            found += there[who, other]
    return found + (not near)


def _of(who: str, there: Present) -> Iterator[Company]:
    return (company for principal, company in there if principal == who)


@lru_cache(10_000)
def _labels(labels: Labels) -> dict[str, str]:
    return dict(labels)
