"""What each session uses, what it is entitled to, and so which of them has its turn.

Owns: these sums, in steps as in ``resources``, and the order of sessions. Must never: know who
waits, or touch a pool.

Sessions are compared by what they use of the resource that is asked for, divided by their share: a
device where one is asked for, else processors. So who holds a GPU is not kept from processors, and
the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from guactors.scheduling.heap import Rank
from guactors.scheduling.resources import LIGHT, STEP, Units

USUAL = 1.0
"""The share of a session that says nothing."""
_GIB = 2**30


class Currency(NamedTuple):
    """The resource by which sessions that ask for something are compared. ``unit``: steps of it
    that weigh as much as a processor; ``cost``: how much is asked for, in such units."""

    name: str
    unit: int
    cost: float


@lru_cache(10_000)
def currency(hold: Units) -> Currency:
    """Of who asks for this."""
    amounts = dict(hold)
    devices = [name for name in amounts if name not in ("CPU", "memory", LIGHT)]
    name = next((name for name in (*devices, "CPU", "memory") if name in amounts), LIGHT)
    unit = STEP * _GIB if name == "memory" else STEP  # memory is counted in bytes
    return Currency(name, unit, amounts.get(name, 0) / unit)


def change(sums: dict[str, int], units: Units, sign: int) -> None:
    """So much more, or less; none of the sums is zero."""
    for name, amount in units:
        after = sums.get(name, 0) + sign * amount
        if after:
            sums[name] = after
        else:
            del sums[name]


@dataclass(eq=False, slots=True)
class Member:
    """A session: its share, what it uses in steps by resource, when it was served last and when it
    came."""

    share: float = USUAL
    used: dict[str, int] = field(default_factory=dict)
    turn: int = 0
    order: int = 0
    over: bool = False
    """What is left of it counts until it has ended."""


class ShareBook:
    """Sessions by id; of one that nobody has told of, the share is the usual one."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}

    def _member(self, session: str) -> Member:
        found = self._members.get(session)
        if found is None:
            found = self._members[session] = Member()
        return found

    def share(self, session: str) -> float:
        """Of all shares of those who wait, so much is its own."""
        found = self._members.get(session)
        return found.share if found is not None else USUAL

    def entitle(self, session: str, share: float) -> None:
        """From now on."""
        self._member(session).share = share

    def use(self, session: str, units: Units, sign: int) -> None:
        """It uses so much more, or less."""
        member = self._member(session)
        change(member.used, units, sign)
        if member.over and not member.used:
            del self._members[session]

    def used(self, session: str) -> Mapping[str, int]:
        """What it uses now, in steps by resource."""
        found = self._members.get(session)
        return found.used if found is not None else {}

    def users(self) -> list[str]:
        """Those that use something."""
        return [session for session, member in self._members.items() if member.used]

    def __len__(self) -> int:
        return len(self._members)

    def came(self, session: str, order: int) -> None:
        """It asks for something; it counts when it did so first."""
        member = self._member(session)
        member.order = member.order or order
        member.over = False

    def served(self, session: str, turn: int) -> None:
        """It was its turn."""
        self._member(session).turn = turn

    def level(self, session: str, by: Currency, more: float = 0.0) -> float:
        """How much of what it is entitled to it uses, with so much more."""
        member = self._members.get(session)
        if member is None:
            return more / USUAL
        return (member.used.get(by.name, 0) / by.unit + more) / member.share

    def rank(self, session: str, by: Currency) -> Rank:
        """Among those that ask for this resource."""
        member = self._members.get(session)
        if member is None:
            return 0.0, 0, 0
        level = member.used.get(by.name, 0) / by.unit / member.share
        return level, member.turn, member.order

    def rank_after(self, session: str, by: Currency, more: int, last: int) -> Rank:
        """As ``rank``, had it been given so many more at the turn ``last``."""
        _, turn, order = self.rank(session, by)
        return self.level(session, by, more * by.cost), last if more else turn, order or last

    def forget(self, session: str) -> None:
        """It is over."""
        member = self._members.get(session)
        if member is not None and member.used:
            member.over = True
        elif member is not None:
            del self._members[session]

    def check(self, expected: dict[str, dict[str, int]]) -> None:
        """The sums are those of all that takes room."""
        found = {session: member.used for session, member in self._members.items() if member.used}
        assert found == expected, f"use drifted: {found} != {expected}"
