"""Frames of two streams on one line, whole, in pieces, and hostile."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import ProtocolError
from guactors.runtimes.base import Output
from guactors.runtimes.docker.frames import Frames


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4) + data


def joined(found: list[Output]) -> list[Output]:
    """Neighbours of one stream as one."""
    made: list[Output] = []
    for one in found:
        if made and made[-1].stream == one.stream:
            made[-1] = Output(one.stream, made[-1].data + one.data)
        else:
            made.append(one)
    return made


def test_streams_are_told_apart() -> None:
    assert Frames().feed(frame(1, b"out") + frame(2, b"err") + frame(1, b"more")) == [
        Output(1, b"out"),
        Output(2, b"err"),
        Output(1, b"more"),
    ]


def test_neighbours_are_one_piece() -> None:
    assert Frames().feed(frame(1, b"a") * 3) == [Output(1, b"aaa")]


def test_what_was_input_comes_on_the_first_stream() -> None:
    assert Frames().feed(frame(0, b"x")) == [Output(1, b"x")]


def test_an_empty_frame_says_nothing() -> None:
    assert Frames().feed(frame(1, b"")) == []


@given(
    st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=50)), max_size=20),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_it_does_not_matter_how_it_is_cut(said: list[tuple[int, bytes]], sizes: list[int]) -> None:
    wire = b"".join(frame(stream, data) for stream, data in said)
    frames, found, at = Frames(), list[Output](), 0
    while at < len(wire):
        size = sizes[at % len(sizes)]
        found += frames.feed(wire[at : at + size])
        at += size
    assert joined(found) == joined([Output(*one) for one in said if one[1]])
    assert not frames.broken


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_whatever_comes_it_is_read_or_refused(pieces: list[bytes]) -> None:
    frames = Frames()
    for piece in pieces:
        try:
            assert sum(len(one.data) for one in frames.feed(piece)) <= len(piece)
        except ProtocolError:
            return


def test_a_length_is_not_believed() -> None:
    frames = Frames()
    tracemalloc.start()
    found = frames.feed(b"\1\0\0\0\xff\xff\xff\xff" + b"x" * 10)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    assert found == [Output(1, b"x" * 10)]
    assert frames.broken
    assert frames.feed(b"y") == [Output(1, b"y")]


@pytest.mark.parametrize("header", [b"\3\0\0\0", b"\1\1\0\0", b"\1\0\0\1", b"HTTP"])
def test_what_is_no_frame_is_refused(header: bytes) -> None:
    with pytest.raises(ProtocolError, match=header.hex()):
        Frames().feed(header + bytes(4))


def test_a_terminal_has_none() -> None:
    frames = Frames(plain=True)
    assert frames.feed(b"\1\0\0\0") == [Output(1, b"\1\0\0\0")]
    assert frames.feed(b"") == []
    assert not frames.broken
