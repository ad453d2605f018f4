"""Messages that wait for room."""

from __future__ import annotations

import pytest

from guactors import outbox_state
from guactors.ids import LinkKey
from guactors.outbox_state import MOST_MESSAGES, Outboxes
from guactors.transport.base import Lane

ONE, OTHER = LinkKey("k-1"), LinkKey("k-2")


def drain(boxes: Outboxes, link: LinkKey, lane: Lane, room: int = 10**9) -> list[bytes]:
    """What goes out where there is room for so many."""
    sent: list[bytes] = []

    def send(frame: bytes) -> bool:
        if len(sent) >= room:
            return False
        sent.append(frame)
        return True

    boxes.flush(link, lane, send)
    return sent


def test_lanes_keep_their_order_and_do_not_mix() -> None:
    boxes = Outboxes()
    for number in range(4):
        assert boxes.put(ONE, Lane(number % 2), bytes([number]))
    assert drain(boxes, ONE, Lane.DATA, room=1) == [b"\x01"]
    assert boxes.waiting(ONE, Lane.DATA)
    assert drain(boxes, ONE, Lane.DATA) == [b"\x03"]
    assert not boxes.waiting(ONE, Lane.DATA)
    assert drain(boxes, ONE, Lane.CONTROL) == [b"\x00", b"\x02"]
    assert not len(boxes)
    assert not list(boxes)


def test_a_peer_too_far_behind_is_noticed_by_count() -> None:
    boxes = Outboxes()
    assert all(boxes.put(ONE, Lane.DATA, b"") for _ in range(MOST_MESSAGES))
    assert not boxes.put(ONE, Lane.DATA, b"")
    assert boxes.put(ONE, Lane.CONTROL, b"")
    assert boxes.put(OTHER, Lane.DATA, b"")
    drain(boxes, ONE, Lane.DATA, room=1)
    assert boxes.put(ONE, Lane.DATA, b"")


def test_and_by_size_but_a_single_large_one_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_state, "MOST_BYTES", 100)
    boxes = Outboxes()
    assert boxes.put(ONE, Lane.DATA, bytes(1000))
    assert not boxes.put(ONE, Lane.DATA, b"1")
    drain(boxes, ONE, Lane.DATA)
    assert boxes.put(ONE, Lane.DATA, bytes(60))
    assert boxes.put(ONE, Lane.DATA, bytes(40))
    assert not boxes.put(ONE, Lane.DATA, b"1")


def test_dropped_links_leave_nothing() -> None:
    boxes = Outboxes()
    boxes.put(ONE, Lane.DATA, b"1")
    boxes.put(ONE, Lane.CONTROL, b"2")
    boxes.put(OTHER, Lane.DATA, b"3")
    boxes.drop(ONE)
    assert list(boxes) == [(OTHER, Lane.DATA)]
