"""What a worker prints, cut into named lines (``runtimes/output.py``)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.runtimes.output import PARTIAL_AFTER, TAIL_BYTES, Lines, StreamSplitter


def pairs(told: list[Lines]) -> list[tuple[str, str]]:
    return [(one.name, line) for one in told for line in one.lines]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"one\n", [("", "one")]),
        (b"one\n\ntwo\n", [("", "one"), ("", ""), ("", "two")]),
        (b"no end", [("", "no end")]),
        (b"\x1ef\x1fone\n", [("f", "one")]),
        (b"one\n\x1ef\x1ftwo\n", [("", "one"), ("f", "two")]),
        (b"one\x1ef\x1ftwo\n", [("", "one"), ("f", "two")]),
        (b"\x1ef\x1f\x1eg\x1fone\n", [("g", "one")]),
        (b"\x1ef\x1fone\n\x1e\x1ftwo\n", [("f", "one"), ("", "two")]),
        (b"only \x1f an end\n", [("", "only \x1f an end")]),
        ("grüße\n".encode(), [("", "grüße")]),
        (b"broken \xff byte\n", [("", "broken \ufffd byte")]),
        (b"\x1e" + b"n" * 600 + b"\n", [("", "n" * 600)]),
    ],
)
@pytest.mark.parametrize("piece", [1, 3, 10_000])
def test_lines_and_names(data: bytes, expected: list[tuple[str, str]], piece: int) -> None:
    splitter = StreamSplitter(0.0)
    told: list[Lines] = []
    for at in range(0, len(data), piece):
        told += splitter.feed(data[at : at + piece], 0.0)
    told += splitter.finish()
    assert pairs(told) == expected


@given(st.lists(st.text(st.characters(exclude_characters="\n\x1e\x1f", codec="utf-8"))), st.data())
def test_any_text_in_any_pieces_comes_out_whole(lines: list[str], data: st.DataObject) -> None:
    raw = "".join(f"{line}\n" for line in lines).encode()
    splitter = StreamSplitter(0.0)
    told: list[Lines] = []
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        told += splitter.feed(raw[:size], 0.0)
        raw = raw[size:]
    assert [line for _, line in pairs(told + splitter.finish())] == lines


def test_an_unfinished_line_is_told_after_a_while_and_only_then() -> None:
    splitter = StreamSplitter(0.0)
    assert splitter.wake_after(0.0) is None
    assert splitter.feed(b"whole\npart", 10.0) == [Lines("", ("whole",))]
    assert splitter.wake_after(10.1) == pytest.approx(PARTIAL_AFTER - 0.1)
    assert splitter.flush(10.1) == []
    assert splitter.flush(10.0 + PARTIAL_AFTER) == [Lines("", ("part",))]
    assert splitter.wake_after(10.3) is None


def test_a_trickle_does_not_put_off_the_telling() -> None:
    splitter = StreamSplitter(0.0)
    for tenth in range(3):
        splitter.feed(b".", tenth / 10)
    assert splitter.flush(0.2) == [Lines("", ("...",))]


def test_half_a_marker_is_never_told_as_text() -> None:
    splitter = StreamSplitter(0.0)
    splitter.feed(b"part\x1ena", 0.0)
    assert splitter.flush(1.0) == [Lines("", ("part",))]
    assert splitter.wake_after(1.0) is None
    assert splitter.feed(b"me\x1fline\n", 1.0) == [Lines("name", ("line",))]


def test_a_very_long_line_comes_in_pieces() -> None:
    splitter = StreamSplitter(0.0)
    told = splitter.feed(b"x" * 100_000 + b"\n", 0.0)
    assert "".join(line for _, line in pairs(told)) == "x" * 100_000
    assert max(len(line) for _, line in pairs(told)) <= 16_384


def test_the_limit_drops_counts_and_recovers() -> None:
    splitter = StreamSplitter(0.0)
    line = b"z" * 999 + b"\n"
    (told,) = splitter.feed(line * 10_000, 0.0)
    assert 4000 < len(told.lines) < 5000
    assert told.dropped == 10_000 - len(told.lines)
    assert splitter.feed(line * 10, 0.0) == []
    assert splitter.feed(line, 10.0) == [Lines("", ("z" * 999,), dropped=10)]
    assert splitter.finish() == []


def test_what_was_dropped_last_is_told_at_the_end() -> None:
    splitter = StreamSplitter(0.0)
    splitter.feed(b"z" * 5_000_000 + b"\n", 0.0)
    assert splitter.finish() == [Lines("", (), dropped=1)]


def test_the_tail_is_the_end_without_marks() -> None:
    splitter = StreamSplitter(0.0)
    splitter.feed(b"\x1ef\x1f" + "é".encode() * TAIL_BYTES + b"\nend", 0.0)
    tail = splitter.tail()
    assert tail.endswith("é\nend")
    assert TAIL_BYTES - 4 <= len(tail.encode()) <= TAIL_BYTES
