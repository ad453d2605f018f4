"""The bridge's messages survive the wire, and nothing else does."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.actors.mailbox import Priority
from guactors.actors.remote_words import (
    VERSION,
    Answer,
    Ask,
    Message,
    Probe,
    Refusal,
    Tell,
    Terminated,
    Unwatch,
    Watch,
    Withdraw,
    cause_of,
    cause_word,
    decode_answer,
    decode_question,
    encode,
    error_of,
    lane_of,
    refusal,
)
from guactors.actors.supervision import (
    Cause,
    Completed,
    Escalated,
    Failed,
    Killed,
    Lost,
    StartFailed,
    Stopped,
    SystemShutdown,
    describe,
)
from guactors.errors import (
    ActorKilled,
    Death,
    GuactorsError,
    MailboxFull,
    ProtocolError,
    TaskError,
    UsageError,
)
from guactors.transport.base import Lane

QUESTIONS = [
    Tell("counter", b"\x01", Priority.HIGH, 7),
    Ask(1, "counter", b"\xc0", Priority.LOW),
    Withdraw(1),
    Watch("counter"),
    Unwatch("counter"),
]
ANSWERS = [
    Answer(1, b"\xc0"),
    refusal(1, ActorKilled("gone", Death("killed", detail="by me"))),
    Terminated("counter", cause_word(Completed())),
    Probe(),
]


@pytest.mark.parametrize("message", QUESTIONS, ids=lambda m: type(m).__name__)
def test_questions_arrive(message: Message) -> None:
    assert decode_question(encode(message)) == message
    with pytest.raises(ProtocolError):
        decode_answer(encode(message))


@pytest.mark.parametrize("message", ANSWERS, ids=lambda m: type(m).__name__)
def test_answers_arrive(message: Message) -> None:
    assert decode_answer(encode(message)) == message
    with pytest.raises(ProtocolError):
        decode_question(encode(message))


@given(st.lists(st.binary(max_size=64), max_size=3))
def test_nothing_but_protocol_errors_comes_of_noise(frames: list[bytes]) -> None:
    for decode in (decode_question, decode_answer):
        try:
            message = decode(frames)
        except ProtocolError:
            continue
        assert isinstance(message, Message)


@given(st.sampled_from(QUESTIONS + ANSWERS), st.integers(0, 200), st.integers(0, 255))
def test_nothing_but_protocol_errors_comes_of_a_flipped_byte(
    message: Message, place: int, value: int
) -> None:
    frame = bytearray(encode(message)[0])
    frame[place % len(frame)] = value
    for decode in (decode_question, decode_answer):
        with suppress(ProtocolError):
            assert isinstance(decode([bytes(frame)]), Message)


def test_deep_nesting_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        decode_question([bytes((VERSION,)) + b"\x91" * 100_000])


def test_system_priority_cannot_be_asked_for_from_outside() -> None:
    with pytest.raises(ProtocolError):
        decode_question(encode(Tell("counter", b"\xc0", Priority.SYSTEM)))


def test_urgent_words_travel_on_the_control_lane() -> None:
    assert [lane_of(level) for level in Priority] == [
        Lane.CONTROL, Lane.CONTROL, Lane.DATA, Lane.DATA,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "error",
    [
        MailboxFull("full"),
        UsageError("no"),
        ActorKilled("gone", Death("killed", detail="why", exit_code=3, signal=9)),
        ProtocolError("malformed", "what"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_our_errors_arrive_as_themselves(error: GuactorsError) -> None:
    word = decode_answer(encode(refusal(5, error)))
    assert isinstance(word, Refusal)
    arrived = error_of(word)
    assert type(arrived) is type(error)
    if isinstance(error, ActorKilled):
        assert isinstance(arrived, ActorKilled)
        assert arrived.death == error.death
        assert str(arrived) == str(error)


def test_errors_of_the_user_arrive_as_task_errors_with_their_traceback() -> None:
    try:
        raise KeyError("lost")
    except KeyError as error:
        word = refusal(1, error)
    arrived = error_of(word)
    assert type(arrived) is TaskError
    assert "KeyError: 'lost'" in str(arrived)
    assert "test_remote_words.py" in arrived.remote_traceback


def test_overlong_texts_are_cut_so_that_the_other_side_takes_them() -> None:
    error = ActorKilled("x" * 10**6, Death("killed", detail="y" * 10**6, stderr_tail="z" * 10**6))
    for message in (refusal(1, error), refusal(1, ValueError("v" * 10**6))):
        assert decode_answer(encode(message)) == message
    for cause in (Lost("l" * 10**6), Failed(ValueError("f" * 10**6))):
        told = Terminated("a", cause_word(cause))
        assert decode_answer(encode(told)) == told


@pytest.mark.parametrize(
    "cause",
    [
        Completed(), Stopped("boss"), Killed("boss"), SystemShutdown(), Lost("unplugged"),
        Failed(ValueError("x")), StartFailed(ValueError("x")), Escalated("child", ValueError("x")),
    ],
    ids=lambda c: type(c).__name__,
)  # fmt: skip
def test_causes_keep_their_type_and_words(cause: Cause) -> None:
    arrived = cause_of(cause_word(cause))
    assert type(arrived) is type(cause)
    if not isinstance(cause, Failed | StartFailed | Escalated):
        assert arrived == cause
    else:
        assert "ValueError('x')" in describe(arrived)
