"""The size of chunks follows the time they take."""

from __future__ import annotations

import pytest

from guactors.integrations.chunks import AIM, LONG, MOST, SHORT, ChunkSize


def settle(seconds: float, overhead: float = 0.0, rounds: int = 50) -> int:
    """The size after many chunks of items that take so long each."""
    chunks = ChunkSize()
    for _ in range(rounds):
        chunks.on_chunk(chunks.size, overhead + chunks.size * seconds)
    return chunks.size


@pytest.mark.parametrize("seconds", [1e-6, 1e-5, 1e-4, 1e-3, 3e-3])
def test_a_chunk_takes_some_10_ms(seconds: float) -> None:
    assert SHORT <= settle(seconds) * seconds <= LONG


def test_bounds() -> None:
    assert settle(0.0) == MOST
    assert settle(1e-9) == MOST
    assert settle(5.0) == 1


def test_one_quick_chunk_is_not_believed() -> None:
    chunks = ChunkSize()
    chunks.on_chunk(1, 1e-7)
    assert chunks.size == 8
    chunks.on_chunk(1, 1e-7)  # was under way when the size was 1
    assert chunks.size == 8
    chunks.on_chunk(8, 8.0)
    assert chunks.size == 1


def test_a_fixed_size_stays() -> None:
    chunks = ChunkSize(7)
    chunks.on_chunk(7, 100.0)
    chunks.on_chunk(7, 0.0)
    assert chunks.size == 7


def test_slower_items_make_smaller_chunks() -> None:
    chunks = ChunkSize()
    for seconds in (1e-6, 1e-4, 1e-5):
        for _ in range(20):
            chunks.on_chunk(chunks.size, chunks.size * seconds)
        assert AIM / 2 <= chunks.size * seconds <= 2 * AIM
