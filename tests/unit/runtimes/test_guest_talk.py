"""The talk with a guest's agent: its form, its rules, and what is not believed."""

from __future__ import annotations

import random
import struct

import pytest

from guactors.errors import ProtocolError
from guactors.runtimes.qemu.agent import wire
from guactors.runtimes.qemu.agent.wire import Decoder, Window, WireError, frame, pack, unpack
from guactors.runtimes.qemu.talk import Answered, Credited, Ended, Faulted, Said, Started, Talk

VALUES = [None, True, False, 0, -(2**63), 2**63 - 1, b"", b"\0\xff", "", "é\udcff", [], {}]


@pytest.mark.parametrize("value", [*VALUES, VALUES, {"a": [{"b": VALUES}]}], ids=repr)
def test_values_come_back(value: object) -> None:
    assert unpack(pack(value)) == value


@pytest.mark.parametrize("value", [1.5, {1: 2}, object(), {"a": {3}}])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(WireError):
        unpack(pack(value))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"i\0", b"b\xff\xff\xff\xffab", b"s\5\0\0\0abc", b"n" + b"n",
        b"l\xff\xff\xff\xff", b"l\1\0\0\0" * 20 + b"n", b"d\1\0\0\0nn", b"d\1\0\0\0l\0\0\0\0n",
        b"l\0\1\0\0" + b"n" * 255,
    ],
)  # fmt: skip
def test_values_that_lie(data: bytes) -> None:
    with pytest.raises(WireError):
        unpack(data)


def test_frames_may_come_in_any_pieces() -> None:
    sent = [(1, 5, b""), (2**32 - 1, 255, b"x" * 1000), (0, 0, bytes(wire.FRAME_MOST - 5))]
    data = b"".join(frame(*one) for one in sent)
    for step in (1, 3, 1000, len(data)):
        decoder, found = Decoder(), []
        pieces = data[:1100] if step < 1000 else data
        for at in range(0, len(pieces), step):
            found += decoder.feed(pieces[at : at + step])
        assert found == (sent[:2] if step < 1000 else sent)


@pytest.mark.parametrize("size", [0, 4, wire.FRAME_MOST + 1, 2**32 - 1])
def test_a_frame_of_an_impossible_size(size: int) -> None:
    with pytest.raises(WireError, match=str(size)):
        Decoder().feed(struct.pack("<I", size) + bytes(9))
    if size > wire.FRAME_MOST:
        with pytest.raises(WireError):
            frame(1, 1, bytes(wire.FRAME_MOST))


def test_a_window_is_held_on_both_sides() -> None:
    window = Window()
    window.take(wire.WINDOW)
    with pytest.raises(WireError):
        window.take(1)
    window.give(10)
    with pytest.raises(WireError):
        window.give(wire.WINDOW)
    with pytest.raises(WireError):
        window.give(-1)


def started() -> tuple[Talk, int]:
    talk = Talk()
    channel, _ = talk.begin(wire.SPAWN, argv=["x"])
    assert talk.feed(frame(channel, wire.STARTED, pack({}))) == [Started(channel)]
    return talk, channel


def test_a_question_has_one_answer() -> None:
    talk = Talk()
    channel, sent = talk.ask(wire.STATS)
    assert Decoder().feed(sent) == [(channel, wire.STATS, pack({}))]
    answer = frame(channel, wire.ANSWER, pack({"x": 1}))
    assert talk.feed(answer + answer) == [Answered(channel, {"x": 1})]


def test_a_program_from_start_to_end() -> None:
    talk, channel = started()
    given = talk.give(channel, b"in")
    assert Decoder().feed(given) == [(channel, wire.INPUT, b"in")]
    assert talk.room(channel) == wire.WINDOW - 2
    found = talk.feed(
        frame(channel, wire.OUTPUT, b"out")
        + frame(channel, wire.ERRORS, b"err")
        + frame(channel, wire.CREDIT, pack({"stream": 0, "size": 2}))
        + frame(channel, wire.EXIT, pack({"code": 3, "signal": 0}))
    )
    assert found == [
        Said(channel, 1, b"out"), Said(channel, 2, b"err"), Credited(channel),
        Ended(channel, 3, 0, False),
    ]  # fmt: skip
    assert talk.room(channel) == 0
    assert talk.took(channel, 1, 3) == talk.tell(channel, wire.SIGNAL) == b""


def test_one_that_cannot_be_started() -> None:
    talk = Talk()
    channel, _ = talk.begin(wire.SPAWN)
    fault = frame(channel, wire.FAULT, pack({"text": "no such file", "code": 127}))
    assert talk.feed(fault) == [Faulted(channel, "no such file", 127)]


def test_what_was_forgotten_is_not_heard_of() -> None:
    talk, channel = started()
    assert Decoder().feed(talk.forget(channel)) == [(channel, wire.CLOSE, b"")]
    assert talk.feed(frame(channel, wire.OUTPUT, b"late") + frame(77, wire.EXIT, b"junk")) == []


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (wire.OUTPUT, bytes(wire.WINDOW + 1)),
        (wire.CREDIT, pack({"stream": 0, "size": 1})),
        (wire.CREDIT, pack({"stream": 0, "size": "all"})),
        (wire.EXIT, pack({"code": 256, "signal": 0})),
        (wire.EXIT, pack({"code": 0, "signal": -1})),
        (wire.EXIT, pack({"code": None, "signal": 0})),
        (wire.EXIT, pack([1])),
        (wire.STARTED, pack({})),
        (200, pack({})),
    ],
)
def test_a_program_whose_agent_breaks_the_rules(kind: int, content: bytes) -> None:
    talk, channel = started()
    with pytest.raises(ProtocolError, match="its agent sent"):
        talk.feed(frame(channel, kind, content))


@pytest.mark.parametrize("kind", [wire.OUTPUT, wire.EXIT, wire.CREDIT])
def test_nothing_comes_before_the_start(kind: int) -> None:
    talk = Talk()
    channel, _ = talk.begin(wire.SPAWN)
    with pytest.raises(ProtocolError, match="does not run"):
        talk.feed(frame(channel, kind, pack({"code": 0, "signal": 0})))


def test_noise_ends_in_nothing_or_in_a_typed_error() -> None:
    chance = random.Random(7)
    for _ in range(300):
        talk, channel = started()
        noise = b"".join(
            frame(chance.choice([0, channel, 9]), chance.randrange(256), chance.randbytes(20))
            for _ in range(5)
        )
        noise = noise[: chance.randrange(len(noise))] + chance.randbytes(chance.randrange(40))
        try:
            talk.feed(noise)
        except ProtocolError:
            continue
