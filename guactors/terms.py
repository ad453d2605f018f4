"""What a session says of itself when it begins: its namespace, its share and
its quota.

Owns: the checks of these options. Must never: know what the hub makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from guactors.errors import UnknownOption

LEAST_SHARE, MOST_SHARE = 0.01, 100.0
MOST_AMOUNT = 1e15
COUNTED = ("tasks", "actors")
"""Names in a quota that are counted, where all others are resources."""


class Terms(NamedTuple):
    """As in ``messages.Hello``."""

    namespace: str | None = None
    share: float = 1.0
    quota: dict[str, float] | None = None


def terms_of(namespace: str | None = None, share: Any = 1.0, quota: Any = None) -> Terms:
    """What ``init`` was given. Raises UnknownOption, which names the option."""
    if not _number(share) or not LEAST_SHARE <= share <= MOST_SHARE:
        raise UnknownOption(
            f"share={share!r} is impossible: it is a number from {LEAST_SHARE:g} to "
            f"{MOST_SHARE:g}, and 1 is everybody's"
        )
    if quota is None:
        return Terms(namespace, float(share))
    if not isinstance(quota, Mapping):
        raise UnknownOption(
            f"quota={quota!r} is impossible: it is a dict of amounts by resource, 'tasks' and "
            "'actors', as in {'CPU': 8, 'tasks': 20}"
        )
    bounds = {_name(name): _bound(name, amount) for name, amount in quota.items()}
    return Terms(namespace, float(share), bounds)


def _name(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= 256:
        raise UnknownOption(f"quota has the name {name!r}: it is that of a resource, a short text")
    return name


def _bound(name: str, amount: Any) -> float:
    if not _number(amount) or not 0 <= amount <= MOST_AMOUNT:
        raise UnknownOption(f"quota[{name!r}]={amount!r} is impossible: it is a number from 0")
    if name in COUNTED and amount != int(amount):
        raise UnknownOption(f"quota[{name!r}]={amount!r} is impossible: {name} are whole")
    return float(amount)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
