"""Conditions on the labels of a provider, from their written form to yes or no.

Owns: that form. Must never: know what a provider is, or fail: text that is no condition is a plain
value, to which a label must be equal.

::

    v           the label is there and is v          !v           it is not v, or not there
    in(a,b)     it is one of these                   !in(a,b)     it is none of these, or not there
    *           it is there                          !*           it is not there
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

Labels = tuple[tuple[str, str], ...]
"""Sorted (name, condition) pairs."""


class Rule(NamedTuple):
    """``values`` None: any."""

    name: str
    values: frozenset[str] | None
    wanted: bool


def rule_of(name: str, text: str) -> Rule:
    """The condition ``text`` on the label ``name``."""
    wanted = not text.startswith("!")
    rest = text if wanted else text[1:]
    if rest == "*":
        return Rule(name, None, wanted)
    if rest.startswith("in(") and rest.endswith(")"):
        return Rule(name, frozenset(part.strip() for part in rest[3:-1].split(",")), wanted)
    return Rule(name, frozenset({rest}), wanted)


@lru_cache(10_000)
def rules_of(labels: Labels) -> tuple[Rule, ...]:
    """All of them."""
    return tuple(rule_of(name, text) for name, text in labels)


def met(labels: Labels, there: Mapping[str, str]) -> bool:
    """Whether what is ``there`` meets every condition."""
    for name, values, wanted in rules_of(labels):
        value = there.get(name)
        found = value is not None and (values is None or value in values)
        if found is not wanted:
            return False
    return True


def in_order(labels: Mapping[str, str]) -> Labels:
    """As the rest of this module takes them."""
    return tuple(sorted(labels.items()))
