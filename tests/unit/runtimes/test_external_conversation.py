"""What is said to a driver and by it: numbers, credit, and what ends the conversation."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from guactors.errors import (
    GuactorsError,
    ImageRefused,
    InstanceLost,
    PermissionDenied,
    ProgramNotStarted,
    ProtocolError,
    RuntimeMissing,
    UsageError,
)
from guactors.runtimes.external.conversation import Conversation, error_of, readable
from guactors.runtimes.external.words import (
    LINE,
    MOST_ROOM,
    PIECE,
    WINDOW,
    Ended,
    Failure,
    Lines,
    Ok,
    Said,
    read_line,
)

ALL = frozenset({"host", "pause", "save", "tty", "user", "stats", "reap", "probe"})


def line(**message: Any) -> bytes:
    return json.dumps(message).encode()


def text(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


@pytest.fixture
def talk() -> Conversation:
    made = Conversation("d", ALL)
    number, said = made.hello()
    assert json.loads(said) == {
        "verb": "hello", "id": number, "protocol": 1, "line": LINE, "window": WINDOW,
    }  # fmt: skip
    hello = {"protocol": 1, "name": "d", "version": "7", "capabilities": [*ALL, "cpu"]}
    made.receive(line(type="ok", id=number, result=hello))
    return made


def running(talk: Conversation, room: int = PIECE) -> int:
    number, program, _ = talk.exec({"argv": ["x"]})
    talk.receive(line(type="ok", id=number, result={"credit": room}))
    return program


# --- hello ----------------------------------------------------------------------------------------


def test_it_has_no_more_than_its_manifest_names(talk: Conversation) -> None:
    assert talk.capabilities == ALL
    assert talk.version == "7"


@pytest.mark.parametrize(
    ("hello", "kind"),
    [
        ({"protocol": 2, "name": "d"}, "version"),
        ({"protocol": 1, "name": "other"}, "unexpected"),
        ({"protocol": 1}, "malformed"),
        ({"protocol": 1, "name": "d", "capabilities": "all"}, "malformed"),
        ({"protocol": 1, "name": "d", "capabilities": ["x"] * 65}, "malformed"),
    ],
)
def test_a_hello_that_will_not_do(hello: dict[str, Any], kind: str) -> None:
    talk = Conversation("d", ALL)
    number, _ = talk.hello()
    with pytest.raises(ProtocolError) as caught:
        talk.receive(line(type="ok", id=number, result=hello))
    assert caught.value.kind == kind


@pytest.mark.parametrize("verb", ["pause", "resume", "save", "restore", "stats", "reap", "probe"])
def test_what_a_driver_cannot_is_refused_by_name(verb: str) -> None:
    with pytest.raises(UsageError, match=f"'d' cannot {verb}: it has not the capability"):
        Conversation("d", frozenset({"host"})).ask(verb, {})


# --- requests -------------------------------------------------------------------------------------


def test_answers_may_come_in_any_order_and_once(talk: Conversation) -> None:
    first, said = talk.ask("put", {"path": "x"})
    second, _ = talk.ask("stats", {})
    assert json.loads(said)["id"] == first
    assert said.endswith(b"\n")
    assert isinstance(talk.receive(line(type="ok", id=second)), Ok)
    assert isinstance(talk.receive(line(type="error", id=first, kind="usage")), Failure)
    with pytest.raises(ProtocolError, match="nobody asked"):
        talk.receive(line(type="ok", id=first))


def test_an_answer_to_nothing_is_the_end(talk: Conversation) -> None:
    with pytest.raises(ProtocolError, match="answer to 99"):
        talk.receive(line(type="ok", id=99))


def test_what_fits_into_no_line_is_refused_here(talk: Conversation) -> None:
    with pytest.raises(UsageError, match="1048576 are allowed"):
        talk.exec({"argv": ["x" * LINE]})
    with pytest.raises(UsageError, match="cannot be told"):
        talk.exec({"argv": ["\udcff"]})
    with pytest.raises(UsageError, match="cannot be told"):
        talk.ask("create", {"options": object()})
    assert not talk.alive(2)


# --- programs -------------------------------------------------------------------------------------


def test_output_within_the_credit_and_no_more(talk: Conversation) -> None:
    program = running(talk)
    for _ in range(WINDOW // PIECE):
        talk.receive(line(type="output", program=program, stream=1, data=text(PIECE)))
    with pytest.raises(ProtocolError, match="credit of 0"):
        talk.receive(line(type="output", program=program, stream=2, data=text(1)))


def test_credit_is_given_for_what_was_read(talk: Conversation) -> None:
    program = running(talk)
    for _ in range(WINDOW // PIECE):
        talk.receive(line(type="output", program=program, stream=1, data=text(PIECE)))
    assert talk.took(program, PIECE) == b""
    said = json.loads(talk.took(program, PIECE))
    assert said == {"verb": "credit", "program": program, "bytes": 2 * PIECE}
    for _ in range(2):
        talk.receive(line(type="output", program=program, stream=2, data=text(PIECE)))
    with pytest.raises(ProtocolError, match="credit of 0"):
        talk.receive(line(type="output", program=program, stream=2, data=text(1)))


def test_input_takes_the_room_that_the_driver_gives(talk: Conversation) -> None:
    program = running(talk, room=10)
    assert talk.room(program) == 10
    assert json.loads(talk.input(program, b"hello"))["data"] == "aGVsbG8="
    assert talk.room(program) == 5
    talk.receive(line(type="credit", program=program, bytes=5))
    assert talk.room(program) == 10
    with pytest.raises(ProtocolError, match="bytes of credit for input"):
        talk.receive(line(type="credit", program=program, bytes=MOST_ROOM))


def test_nothing_is_said_of_a_program_before_it_was_started(talk: Conversation) -> None:
    _, program, _ = talk.exec({"argv": ["x"]})
    assert talk.room(program) == 0
    with pytest.raises(ProtocolError, match="does not run"):
        talk.receive(line(type="output", program=program, stream=1, data=text(1)))


@pytest.mark.parametrize("what", ["output", "exit", "credit"])
def test_nothing_is_said_of_a_program_after_its_exit(talk: Conversation, what: str) -> None:
    program = running(talk)
    talk.receive(line(type="exit", program=program, code=3))
    assert not talk.alive(program)
    more = {"stream": 1, "data": text(1), "code": 0, "bytes": 1}
    with pytest.raises(ProtocolError, match="does not run"):
        talk.receive(line(type=what, program=program, **more))


def test_a_program_that_did_not_start_is_none(talk: Conversation) -> None:
    number, program, _ = talk.exec({"argv": ["x"]})
    talk.receive(line(type="error", id=number, kind="not_started", message="x", code=126))
    assert not talk.alive(program)
    with pytest.raises(ProtocolError, match="does not run"):
        talk.receive(line(type="exit", program=program, code=0))


def test_orders_to_one_that_has_ended_are_not_sent(talk: Conversation) -> None:
    program = running(talk)
    assert json.loads(talk.order("signal", program, number=15)) == {
        "verb": "signal", "program": program, "number": 15,
    }  # fmt: skip
    talk.receive(line(type="exit", program=program, signal=9))
    assert talk.order("signal", program, number=15) == b""
    assert talk.took(program, WINDOW) == b""
    assert talk.forget(program) == b""


def test_one_is_forgotten_once_and_its_output_gets_no_credit(talk: Conversation) -> None:
    program = running(talk)
    assert json.loads(talk.forget(program)) == {"verb": "forget", "program": program}
    assert talk.forget(program) == b""
    talk.receive(line(type="output", program=program, stream=1, data=text(PIECE)))
    assert talk.took(program, WINDOW) == b""
    assert isinstance(talk.receive(line(type="exit", program=program, signal=9)), Ended)


# --- lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"hello", b"[]", b"1", b"{}", b'{"type":"ok"}', b'{"type":"ok","id":0}',
        b'{"type":"ok","id":-1}', b'{"type":"ok","id":"1"}', b'{"type":"ok","id":1.5}',
        b'{"type":"ok","id":' + b"9" * 5000 + b"}", b'{"type":"run","id":1}',
        b'{"type":"error","id":1,"kind":"tired"}',
        b'{"type":"error","id":1,"kind":"usage","code":1}',
        b'{"type":"output","program":1,"stream":1,"data":""}',
        b'{"type":"output","program":1,"stream":3,"data":"aGk="}',
        b'{"type":"output","program":1,"stream":1,"data":"a%k="}',
        b'{"type":"output","program":1,"stream":1,"data":7}',
        b'{"type":"exit","program":1,"code":-1}', b'{"type":"exit","program":1,"signal":0}',
        b'{"type":"exit","program":1,"code":0,"reason":"tired"}',
        b'{"type":"credit","program":1,"bytes":0}', b'{"type":"credit","program":1,"bytes":1e3}',
        b'{"type":"lost"}', b'{"type":"lost","message":"' + b"x" * 9000 + b'"}',
        b"\xff\xfe", b'{"type":"lost","message":"\xff"}', b'{"type":"lost","message":"x"',
        b'{"type":"ok","id":1,"result":' + b"[" * 200_000,
    ],
)  # fmt: skip
def test_a_line_that_is_none(bad: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_line(bad)
    assert caught.value.kind == "malformed"
    assert len(str(caught.value)) < 1000


def test_a_piece_of_output_has_a_most() -> None:
    good = line(type="output", program=1, stream=1, data=text(PIECE))
    assert isinstance(read_line(good), Said)
    with pytest.raises(ProtocolError):
        read_line(line(type="output", program=1, stream=1, data=text(PIECE + 1)))


def test_unknown_fields_are_passed_over() -> None:
    assert read_line(b'{"type":"ok","id":1,"new":{"a":[1]}}') == Ok(1)


@pytest.mark.parametrize("how", [{}, {"code": 1, "signal": 2}])
def test_an_exit_is_by_code_or_by_signal(talk: Conversation, how: dict[str, int]) -> None:
    with pytest.raises(ProtocolError, match="a code or a signal"):
        talk.receive(line(type="exit", program=running(talk), **how))


def test_lines_however_they_are_cut() -> None:
    data = b"one\ntwo\n\nthree\nrest"
    for size in (1, 2, 3, 5, len(data)):
        cutter = Lines()
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert [one for piece in pieces for one in cutter.feed(piece)] == [
            b"one", b"two", b"", b"three",
        ]  # fmt: skip


def test_a_line_without_end() -> None:
    cutter = Lines()
    assert cutter.feed(b"x" * (LINE - 1)) == []
    with pytest.raises(ProtocolError) as caught:
        cutter.feed(b"x")
    assert caught.value.kind == "too_large"
    with pytest.raises(ProtocolError):
        Lines().feed(b"x" * LINE + b"\n")
    assert len(Lines().feed(b"x" * (LINE - 1) + b"\n")) == 1


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("usage", UsageError),
        ("not_started", ProgramNotStarted),
        ("unsupported", UsageError),
        ("missing", RuntimeMissing),
        ("image", ImageRefused),
        ("denied", PermissionDenied),
        ("lost", InstanceLost),
        ("failed", InstanceLost),
    ],
)
def test_errors_have_types(kind: Any, error: type[GuactorsError]) -> None:
    found = error_of("d", "exec", Failure(1, kind, "because", 126))
    assert type(found) is error
    assert "because" in str(found)
    if isinstance(found, ProgramNotStarted):
        assert found.code == 126


def test_what_is_shown_of_a_driver_is_short_and_plain() -> None:
    assert readable("a\x1b[31mb\0\n") == "a?[31mb?"
    assert len(readable("x" * 9000)) < 2100
