"""Chunks of a stream in several threads (``images/hashing.py``)."""

from __future__ import annotations

import io
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guactors.images import hashing
from guactors.images.hashing import each_chunk, filler
from tests.unit.images.making import pieces


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "CHUNK", 10)


def copy(_number: int, view: memoryview) -> bytes:
    return bytes(view)


@given(st.binary(max_size=200), st.lists(st.integers(0, 25), min_size=1).filter(any))
@settings(deadline=None)
def test_chunks_come_in_order_whatever_the_pieces(data: bytes, lengths: list[int]) -> None:
    chunks = [data[start : start + 10] for start in range(0, len(data), 10)]
    assert each_chunk(filler(pieces(data, lengths)), copy) == (len(data), chunks)
    assert each_chunk(filler(io.BytesIO(data)), copy) == (len(data), chunks)


class Fault(Exception):
    pass


@pytest.mark.parametrize("bad", [0, 7, 49])
def test_an_error_of_the_work_ends_it(bad: int) -> None:
    read = []

    def fill(number: int, view: memoryview) -> int:
        read.append(number)
        return len(view) if number < 50 else 0

    def work(number: int, _view: memoryview) -> None:
        if number == bad:
            raise Fault

    before = threading.active_count()
    with pytest.raises(Fault):
        each_chunk(fill, work)
    assert threading.active_count() == before
    assert len(read) <= bad + 1 + hashing.THREADS + 2


def test_an_error_of_the_stream_ends_it() -> None:
    def fill(number: int, view: memoryview) -> int:
        if number == 5:
            raise Fault
        return len(view)

    before = threading.active_count()
    with pytest.raises(Fault):
        each_chunk(fill, copy)
    assert threading.active_count() == before


def test_memory_stays_bounded() -> None:
    """However slow the work, the stream is not read ahead of it."""
    going, ahead = threading.Semaphore(0), []
    done = 0

    def fill(number: int, view: memoryview) -> int:
        ahead.append(number - done)
        going.release()
        return len(view) if number < 40 else 0

    def work(_number: int, _view: memoryview) -> None:
        nonlocal done
        going.acquire()
        done += 1

    each_chunk(fill, work)
    assert max(ahead) <= hashing.THREADS + 2
