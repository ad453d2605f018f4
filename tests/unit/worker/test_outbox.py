"""Replies gathered for their callers, with the times of their calls."""

from __future__ import annotations

from struct import unpack

from guactors.messages import Reply, Value
from guactors.worker.outbox import Outbox


def test_each_caller_gets_its_replies_with_their_buffers_and_times() -> None:
    box = Outbox(clock=1000.0)
    box.add("a", Reply(1, [Value(b"x", 1)]), [b"buffer"], 5.0, 4.5)
    box.add("b", Reply(2, []), (), 6.0)
    box.add("a", Reply(3, [Value(b"y", 1)]), [b"other"], 7.0, 6.5)
    assert (box.count, box.since) == (3, 5.0)
    (first, mine, buffers), (second, other, _) = box.take()
    assert (first, second) == ("a", "b")
    assert [reply.id for reply in mine.replies] == [1, 3]
    assert buffers == [b"buffer", b"other"]
    assert unpack("<5d", mine.times) == (1000.0, 4.5, 5.0, 6.5, 7.0)
    assert unpack("<3d", other.times) == (1000.0, 0.0, 6.0)
    assert box.take() == []
    assert box.count == 0


def test_a_single_reply_has_times_of_the_same_form() -> None:
    assert unpack("<3d", Outbox(clock=1000.0).times(1.0, 2.0)) == (1000.0, 1.0, 2.0)
