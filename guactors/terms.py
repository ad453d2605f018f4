"""What a session says of itself when it begins: its namespace, and its share of the grid.

Owns: the checks of these options. Must never: know what the hub makes of them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from guactors.errors import UnknownOption

LEAST_SHARE, MOST_SHARE = 0.01, 100.0


class Terms(NamedTuple):
    """As in ``messages.Hello``."""

    namespace: str | None = None
    share: float = 1.0


def terms_of(namespace: str | None = None, share: Any = 1.0) -> Terms:
    """What ``init`` was given. Raises UnknownOption, which names the option."""
    if not _number(share) or not LEAST_SHARE <= share <= MOST_SHARE:
        raise UnknownOption(
            f"share={share!r} is impossible: it is a number from {LEAST_SHARE:g} to "
            f"{MOST_SHARE:g}, and 1 is everybody's"
        )
    return Terms(namespace, float(share))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
