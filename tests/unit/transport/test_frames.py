"""The codec: everything valid comes back equal, everything else is a ProtocolError."""

from __future__ import annotations

import random
import struct
import typing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guactors import messages
from guactors.errors import PROTOCOL_FAULTS, ProtocolError
from guactors.messages import (
    BULK,
    CallerToHub,
    HeldLeases,
    Message,
    Ping,
    Relay,
    Replies,
    Reply,
    Value,
)
from guactors.transport import frames
from guactors.transport.base import Lane
from guactors.transport.frames import Decoder, encode, lane_of
from tests.unit.transport import strategies

CORPUS = Path(__file__).parents[2] / "corpus" / "frames"
UNIONS = {
    name: union
    for name, union in vars(messages).items()
    if name[0].isupper() and typing.get_args(union) and Ping in typing.get_args(union)
}
DECODERS = [Decoder[Message](union) for union in UNIONS.values()]


def fault_of(decoder: Decoder[Message], *parts: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decoder.decode(parts)
    assert caught.value.kind in PROTOCOL_FAULTS
    assert len(str(caught.value)) < 1000
    return caught.value


def survives(data: bytes) -> None:
    """Every decoder either reads ``data`` or raises ProtocolError; anything else fails here."""
    for decoder in DECODERS:
        try:
            decoder.decode([data])
        except ProtocolError as fault:
            kind = fault.kind
        else:
            continue
        assert kind in PROTOCOL_FAULTS


@pytest.mark.parametrize("kind", strategies.KINDS, ids=lambda kind: kind.__name__)
def test_round_trip_of_every_message(kind: type[Message]) -> None:
    unions = [union for union in UNIONS.values() if kind in typing.get_args(union)]
    assert unions, f"{kind.__name__} is in no direction"

    @settings(max_examples=25, deadline=None, database=None)
    @given(strategies.of(kind))
    def check(message: Message) -> None:
        header = encode(message)
        assert lane_of(message) is (Lane.DATA if kind in BULK else Lane.CONTROL)
        for union in unions:
            decoded, buffers = Decoder[Message](union).decode([header, b"first", b"second"])
            assert decoded == message
            assert type(decoded) is kind
            assert list(buffers) == [b"first", b"second"]

    check()


@pytest.mark.parametrize("kind", strategies.KINDS, ids=lambda kind: kind.__name__)
def test_a_cut_message_is_never_taken_for_whole(kind: type[Message]) -> None:
    @settings(max_examples=5, deadline=None, database=None)
    @given(strategies.of(kind))
    def check(message: Message) -> None:
        header = encode(message)
        decoder = Decoder[Message](kind)
        for size in {0, 1, 2, len(header) // 2, len(header) - 1}:
            fault_of(decoder, header[:size])
        fault_of(decoder, header + b"\x00")

    check()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    survives(data)
    survives(b"\x01" + data)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(strategies.KINDS).flatmap(strategies.of), st.randoms(use_true_random=False))
def test_mutated_messages(message: Message, rng: random.Random) -> None:
    header = bytearray(encode(message))
    for _ in range(rng.randrange(1, 4)):
        header[rng.randrange(len(header))] = rng.randrange(256)
    survives(bytes(header))


@pytest.mark.parametrize(
    "opener",
    [b"\x91", b"\x81\x01", b"\xdd\x00\x00\x00\x01", b"\x92\x1c\x91", b"\x93\x1c\x90\x91"],
    ids=lambda opener: opener.hex(),
)
def test_deep_nesting(opener: bytes) -> None:
    survives(b"\x01" + opener * 50_000)
    # An unknown trailing field is skipped, which recurses: the bomb must not reach the C stack.
    survives(b"\x01\x93\x1c\x90" + b"\x91" * 200_000)


@pytest.mark.parametrize("count", [2**16, 2**24, 2**31, 2**32 - 1])
def test_a_huge_announced_length_costs_nothing(count: int) -> None:
    size = struct.pack(">I", count)
    decoder = Decoder[Message](CallerToHub)
    for header in (b"\x01\x92\x1c\xdd", b"\x01\x94\x14\xa1k\x92\xdf", b"\x01\x92\x1d\xdb"):
        assert fault_of(decoder, header + size).kind == "malformed"


def test_the_version_comes_first() -> None:
    fault = fault_of(DECODERS[0], b"\x02" + encode(Ping(1))[1:])
    assert fault.kind == "version"
    assert "version 2" in fault.detail


def test_no_frames_and_empty_frames() -> None:
    assert fault_of(DECODERS[0]).kind == "malformed"
    assert fault_of(DECODERS[0], b"").kind == "malformed"
    assert fault_of(DECODERS[0], b"\x01").kind == "malformed"


def test_wrong_direction_is_told_apart_from_rubbish() -> None:
    decoder = Decoder[Message](CallerToHub)
    fault = fault_of(decoder, encode(Replies([Reply(1, [Value(b"x")])])))
    assert fault.kind == "unexpected"
    assert "Replies" in fault.detail
    assert fault_of(decoder, b"\x01\x91\x7f").kind == "malformed"


def test_wrong_field_type_names_message_and_place() -> None:
    fault = fault_of(Decoder[Message](Ping), b"\x01" + msgspec.msgpack.encode([3, "seven"]))
    assert fault.kind == "malformed"
    assert "Ping" in fault.detail
    assert "$[1]" in fault.detail


def test_too_many_frames() -> None:
    decoder = Decoder[Message](Ping, max_frames=3)
    header = encode(Ping(1))
    assert decoder.decode([header, b"", b""])[0] == Ping(1)
    assert fault_of(decoder, header, b"", b"", b"").kind == "too_many_frames"


def test_size_limits_differ_by_lane() -> None:
    bulk = encode(Relay("c-1", bytes(frames.CONTROL_HEADER_LIMIT)))
    decoder = Decoder[Message](CallerToHub)
    assert decoder.decode([bulk])[0] == Relay("c-1", bytes(frames.CONTROL_HEADER_LIMIT))
    small = Decoder[Message](CallerToHub, max_header=len(bulk) - 1)
    assert fault_of(small, bulk).kind == "too_large"
    leases = b"\x01" + msgspec.msgpack.encode([28, ["l" * 64] * 20_000])
    assert fault_of(decoder, leases).kind == "too_large"


def test_a_large_control_message_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ProtocolError, match="HeldLeases takes") as caught:
        encode(HeldLeases(["l" * 64] * 20_000))
    assert caught.value.kind == "too_large"


def test_a_view_is_as_good_as_bytes() -> None:
    assert DECODERS[0].decode([memoryview(encode(Ping(9)))])[0] == Ping(9)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: path.stem)
def test_corpus(path: Path) -> None:
    """``KIND-what.bin`` holds a header that once was, or could be, trouble; KIND is the fault
    that a hub reports for it, or ``valid``."""
    data = path.read_bytes()
    survives(data)
    kind = path.stem.partition("-")[0]
    decoder = Decoder[Message](CallerToHub)
    if kind == "valid":
        message, _ = decoder.decode([data])
        assert encode(message) == data
    else:
        assert fault_of(decoder, data).kind == kind


def test_the_corpus_is_there() -> None:
    assert len(list(CORPUS.glob("*.bin"))) >= 20
