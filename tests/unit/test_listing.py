"""Rows for people who look inside: filters, orders, pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import UsageError
from guactors.listing import (
    MOST_EACH,
    MOST_SNAPSHOTS,
    SLICE,
    Listing,
    Row,
    Snapshots,
    parse_filter,
    rank,
    text_of,
)
from guactors.messages import Cell, Filter, Query, RowPage

COLUMNS = ("name", "state", "size")
ROWS: list[Row] = [("f", "FINISHED", 3), ("g", "FAILED", 12.5), ("foo", "FINISHED", None)]


def read(rows: list[Row], **query: object) -> tuple[list[list[Cell]], list[RowPage]]:
    """All rows of an answer, and its pages."""
    snapshots, cursor, pages = Snapshots(), 0, []
    while not pages or cursor:
        asked = Query("things", cursor=cursor, **query)  # type: ignore[arg-type]
        pages.append(snapshots.page("c-1", asked, lambda _: Listing(COLUMNS, iter(rows), 7)))
        cursor = pages[-1].cursor
    assert len(snapshots) == 0
    return [row for page in pages for row in page.rows], pages


def names(*filters: str, **query: object) -> list[Cell]:
    rows, _ = read(ROWS, filters=[parse_filter(text) for text in filters], **query)
    return [row[0] for row in rows]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name=f", ["f"]),
        ("name!=f", ["g", "foo"]),
        ("name~F", ["f", "foo"]),
        ("state=failed", ["g"]),
        ("state!=failed", ["f", "foo"]),
        ("size=3", ["f"]),
        ("size=3.0", ["f"]),
        ("size=12.5", ["g"]),
        ("size=", ["foo"]),
        ("size!=", ["f", "g"]),
        ("name=F", []),
    ],
)
def test_filters(text: str, found: list[str]) -> None:
    assert names(text) == found


def test_a_row_passes_all_filters() -> None:
    assert names("state=FINISHED", "name~oo") == ["foo"]


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("a=b", Filter("a", "=", "b")),
        ("a != b", Filter("a", "!=", "b")),
        ("a~b=c", Filter("a", "~", "b=c")),
        ("a=b!=c", Filter("a", "=", "b!=c")),
        ("a=", Filter("a", "=", "")),
    ],
)
def test_a_filter_is_read_from_its_first_operator(text: str, parsed: Filter) -> None:
    assert parse_filter(text) == parsed


@pytest.mark.parametrize("text", ["", "name", "=f", "~"])
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no filter"):
        parse_filter(text)


def test_an_unknown_column_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no column 'nam'; did you mean 'name'\?"):
        names("nam=f")
    with pytest.raises(UsageError, match="no column 'sizes'; did you mean 'size'"):
        names(sort="-sizes")


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(UsageError, match="'<' compares nothing"):
        read(ROWS, filters=[Filter("name", "<", "f")])


@pytest.mark.parametrize(
    ("sort", "order"), [("name", ["f", "foo", "g"]), ("-name", ["g", "foo", "f"]),
                        ("size", ["f", "g", "foo"])]
)  # fmt: skip
def test_order(sort: str, order: list[str]) -> None:
    assert names(sort=sort) == order


def test_what_is_long_comes_in_pages_that_look_at_so_many_rows() -> None:
    rows = [("f", "FINISHED" if n % 1000 else "FAILED", n) for n in range(3 * SLICE + 5)]
    found, pages = read(rows, filters=[Filter("state", "=", "FAILED")])
    assert [row[2] for row in found] == list(range(0, 3 * SLICE + 5, 1000))
    assert len(pages) == 4
    assert pages[-1].matched == len(found)
    assert {page.dropped for page in pages} == {7}


def test_a_limit_leaves_the_count_exact() -> None:
    rows = [("f", "FINISHED", n) for n in range(2 * SLICE)]
    for sort, first in (("", 0), ("-size", 2 * SLICE - 1)):
        found, pages = read(rows, limit=3, sort=sort)
        assert len(found) == 3
        assert found[0][2] == first
        assert pages[-1].matched == 2 * SLICE


CELLS = st.none() | st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=2) | st.booleans()


@given(
    cells=st.lists(CELLS, max_size=30), copies=st.sampled_from([1, 300]),
    limit=st.integers(0, 40), falling=st.booleans(),
)  # fmt: skip
def test_order_and_limit_are_those_of_sorted(
    cells: list[Cell], copies: int, limit: int, falling: bool
) -> None:
    rows: list[Row] = [(str(n), "", cell) for n, cell in enumerate(cells * copies)]
    found, _ = read(rows, sort="-size" if falling else "size", limit=limit)
    expected = sorted(rows, key=lambda row: rank(row[2]), reverse=falling)
    assert found == [list(row) for row in expected][: limit or None]


def test_an_answer_under_way_is_its_askers_alone() -> None:
    snapshots = Snapshots()
    rows: list[Row] = [("f", "", n) for n in range(2 * SLICE)]

    def page(asker: str, cursor: int = 0) -> int:
        query = Query("things", cursor=cursor)
        return snapshots.page(asker, query, lambda _: Listing(COLUMNS, rows)).cursor

    mine = page("c-1")
    with pytest.raises(UsageError, match="ask again"):
        page("c-2", mine)
    for _ in range(MOST_EACH + 3):
        page("c-2")
    assert len(snapshots) == 1 + MOST_EACH
    assert page("c-1", mine), "another one's questions pushed it aside"
    for asker in range(MOST_SNAPSHOTS + 3):
        page(f"d-{asker}")
    assert len(snapshots) == MOST_SNAPSHOTS
    snapshots.forget("d-9")
    assert len(snapshots) == MOST_SNAPSHOTS - 1


def test_cells_as_text() -> None:
    cells: list[Cell] = [None, True, False, 1.0, 0.1, {"b": 1.0, "a": "x"}, "text"]
    assert [text_of(cell) for cell in cells] == [
        "", "true", "false", "1", "0.1", "a=x,b=1", "text",
    ]  # fmt: skip
