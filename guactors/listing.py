"""Rows for people who look inside: which of them pass, in which order, a page at a time.

Owns: filters, sorting, limits, and the snapshots that the later pages of an answer are read from.
Used by all who know something: hub, callers, providers. Must never: know what a row is about, or
look at more than :data:`SLICE` rows at once, for whoever answers has other work to do.

A listing with a million rows comes in many pages, some of them empty while no row passes. The rows
are those of the moment in which the first page was asked for.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Final, NamedTuple

from guactors.errors import UsageError
from guactors.messages import Cell, Filter, Query, RowPage

Row = Sequence[Cell]
SLICE: Final = 2000
"""Rows looked at for one page."""
MOST_SNAPSHOTS: Final = 32
"""Answers under way; the one that was read longest ago makes room for another."""
MOST_EACH: Final = 4
"""Of one asker, so that nobody pushes others' aside by asking much."""
OPERATORS: Final = ("!=", "=", "~")
"""As in Filter; in the order in which to look for them in a text."""


class Listing(NamedTuple):
    """What there is to see. ``dropped`` as in RowPage."""

    columns: Sequence[str]
    rows: Iterable[Row]
    dropped: int = 0


def text_of(cell: Cell) -> str:
    """A cell as filters and people read it."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return f"{cell:.15g}"
    if isinstance(cell, dict):
        return ",".join(f"{key}={text_of(value)}" for key, value in sorted(cell.items()))
    return str(cell)


def parse_filter(text: str) -> Filter:
    """``key=value``, ``key!=value`` or ``key~value``. Raises UsageError."""
    for position, _ in enumerate(text):
        for operator in OPERATORS:
            if position and text.startswith(operator, position):
                value = text[position + len(operator) :]
                return Filter(text[:position].strip(), operator, value.strip())
    raise UsageError(f"{text!r} is no filter; write it like state=FAILED, name!=f or name~part")


def _column(columns: Sequence[str], name: str) -> int:
    """Raises UsageError with the nearest name."""
    if name in columns:
        return columns.index(name)
    raise UsageError(f"no column {name!r}; {nearest(name, columns)}")


def nearest(name: str, known: Sequence[str]) -> str:
    """What a wrong name may have meant, and what there is."""
    near = get_close_matches(name, known, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}there are {', '.join(known)}"


def _passes(operator: str, wanted: str) -> Callable[[Cell], bool]:
    """States and numbers may be written as one likes; all else is compared as it stands."""
    folded = wanted.casefold()

    def equal(cell: Cell) -> bool:
        text = text_of(cell)
        return text == wanted or (text.isupper() and text.casefold() == folded) or (
            isinstance(cell, int | float) and _number(wanted) == float(cell)
        )  # fmt: skip

    if operator == "=":
        return equal
    if operator == "!=":
        return lambda cell: not equal(cell)
    if operator == "~":
        return lambda cell: folded in text_of(cell).casefold()
    raise UsageError(f"{operator!r} compares nothing; there are {', '.join(OPERATORS)}")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def rank(cell: Cell) -> tuple[int, float, str]:
    """An order over cells of any kind: numbers, then texts, then nothing."""
    if cell is None or cell == "":
        return 2, 0.0, ""
    if isinstance(cell, int | float):
        return 0, float(cell), ""
    return 1, 0.0, text_of(cell)


class Order:
    """``sort`` as in Query. Raises UsageError for a column that is not there."""

    def __init__(self, columns: Sequence[str], sort: str) -> None:
        self._falling = sort.startswith("-")
        self._at = _column(columns, sort.removeprefix("-"))

    def first(self, rows: list[Row], limit: int) -> list[Row]:
        """The first ``limit`` rows in this order, all with 0; equals stay as they are."""
        if not limit or limit >= len(rows):
            return sorted(rows, key=self._key, reverse=self._falling)
        pick = heapq.nlargest if self._falling else heapq.nsmallest
        return pick(limit, rows, key=self._key)

    def _key(self, row: Row) -> tuple[int, float, str]:
        return rank(row[self._at])


class Snapshot:
    """One answer under way. Raises UsageError for a query that makes no sense."""

    def __init__(self, listing: Listing, query: Query) -> None:
        columns = list(listing.columns)
        self._columns = columns
        self._dropped = listing.dropped
        self._rows: Iterator[Row] = iter(listing.rows)
        self._tests = [(_column(columns, f.key), _passes(f.op, f.value)) for f in query.filters]
        self._order = Order(columns, query.sort) if query.sort else None
        self._limit = query.limit
        self._gathered: list[Row] = []
        self._matched = 0
        self._given = 0

    def page(self, cursor: int) -> RowPage:
        """What the next rows bring; ``cursor`` is put into the page unless it is the last."""
        found: list[Row] = []
        seen = 0
        for row in islice(self._rows, SLICE):
            seen += 1
            if all(test(row[at]) for at, test in self._tests):
                found.append(row)
        self._matched += len(found)
        over = seen < SLICE
        if self._order is not None:
            found = self._sort(found, self._order, over)
            over = over and not self._gathered
        elif self._limit:
            found = found[: self._limit - self._given]
        self._given += len(found)
        rows = [list(row) for row in found]
        return RowPage(self._columns, rows, 0 if over else cursor, self._matched, self._dropped)

    def _sort(self, found: list[Row], order: Order, over: bool) -> list[Row]:
        """Rows are given when the last one has been looked at."""
        gathered = self._gathered = self._gathered + found
        if not over:
            if self._limit and len(gathered) > 2 * self._limit + SLICE:
                self._gathered = order.first(gathered, self._limit)
            return []
        if found or not self._given:
            gathered = self._gathered = order.first(gathered, self._limit)
        self._gathered = gathered[SLICE:]
        return gathered[:SLICE]


def select(columns: Sequence[str], rows: Sequence[Row], query: Query) -> list[list[Cell]]:
    """The rows that ``query`` asks for, all at once; for a few. Raises UsageError."""
    snapshot = Snapshot(Listing(columns, rows), query)
    found: list[list[Cell]] = []
    while True:
        page = snapshot.page(1)
        found += page.rows
        if not page.cursor:
            return found


class Snapshots:
    """The answers under way of one who knows something."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, tuple[str, Snapshot]] = OrderedDict()
        self._last = 0

    def __len__(self) -> int:
        return len(self._open)

    def page(self, asker: str, query: Query, make: Callable[[Query], Listing]) -> RowPage:
        """The page that ``query`` asks for; ``make`` is called for the first one. Raises
        UsageError for a query that makes no sense, or a cursor that is not the asker's."""
        number = query.cursor
        if number:
            owner, snapshot = self._open.get(number, ("", None))
            if snapshot is None or owner != asker:
                raise UsageError("this listing is over or was pushed aside by others: ask again")
            self._open.move_to_end(number)
        else:
            snapshot = Snapshot(make(query), query)
            self._last = number = self._last + 1
            self._open[number] = asker, snapshot
            self._make_room(asker)
        page = snapshot.page(number)
        if not page.cursor:
            self._open.pop(number, None)
        return page

    def _make_room(self, asker: str) -> None:
        mine = [number for number, (owner, _) in self._open.items() if owner == asker]
        if len(mine) > MOST_EACH:
            del self._open[mine[0]]
        elif len(self._open) > MOST_SNAPSHOTS:
            self._open.popitem(last=False)

    def forget(self, asker: str) -> None:
        """It is gone."""
        for number in [n for n, (owner, _) in self._open.items() if owner == asker]:
            del self._open[number]
