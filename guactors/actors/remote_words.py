"""What two actor systems say to each other, and how errors and causes read on the wire.

Owns: the bridge's messages, their encoding, and the codec of payloads. Must never: do I/O, or build
anything but plain data from what arrives.

Encoding: one frame, a version byte and a msgpack array ``[tag, field, ...]``. Control lane:
questions and answers of Priority.HIGH, watches, ends. Data lane: the rest.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

from guactors import errors
from guactors.actors.mailbox import Priority
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
)
from guactors.errors import GuactorsError, PeerLost, ProtocolError, TaskError
from guactors.messages import Count, DeathReport, Name, Text
from guactors.transport.base import Frame, Lane

VERSION = 1
LONGEST_PATH = 4096
LONGEST_TEXT = 60_000

M = TypeVar("M")

Path = Annotated[str, Meta(max_length=LONGEST_PATH)]
Level = Annotated[int, Meta(ge=int(Priority.HIGH), le=int(Priority.LOW))]


class Codec(Protocol):
    """Turns messages and answers into bytes and back; what it raises becomes a typed error."""

    def encode(self, value: Any) -> bytes:
        """``value`` as bytes."""

    def decode(self, data: bytes) -> Any:
        """The value in ``data``, which comes from the other side and may be anything."""


class MsgpackCodec:
    """Plain data: None, bool, int, float, str, bytes, list, dict, datetime, and on the way out
    dataclasses and structs, which arrive as dicts (``array_like`` structs as lists)."""

    def encode(self, value: Any) -> bytes:
        """See Codec."""
        return msgspec.msgpack.encode(value)

    def decode(self, data: bytes) -> Any:
        """See Codec."""
        return msgspec.msgpack.decode(data)


class CauseWord(Struct, array_like=True, frozen=True):
    """A cause of death: class name, by whom or why, and the text of its error."""

    kind: Name
    who: Path = ""
    error: Text = ""


class Message(Struct, array_like=True, frozen=True):
    """Base of all messages of the bridge."""


# --- from the side that holds refs ---------------------------------------------------------------


class Tell(Message, frozen=True, tag=1):
    """``request`` 0: no answer; else Answer(None) once it is in the mailbox."""

    actor: Path
    payload: bytes
    priority: Level = Priority.NORMAL
    request: Count = 0


class Ask(Message, frozen=True, tag=2):
    """Answered with Answer or Refusal of the same ``request``."""

    request: Count
    actor: Path
    payload: bytes
    priority: Level = Priority.NORMAL


class Withdraw(Message, frozen=True, tag=3):
    """Nobody waits for the answer any more. No answer."""

    request: Count


class Watch(Message, frozen=True, tag=4):
    """Answered with Terminated, when it is gone."""

    actor: Path


class Unwatch(Message, frozen=True, tag=5):
    """The watch is over. No answer."""

    actor: Path


# --- from the side that has the actors -----------------------------------------------------------


class Answer(Message, frozen=True, tag=10):
    """What ``receive`` returned."""

    request: Count
    payload: bytes


class Refusal(Message, frozen=True, tag=11):
    """What ``receive``, or the way to it, raised: class name and text. ``request`` 0: a message
    of this link was not understood at all, nothing of what is open can be trusted to come."""

    request: Count
    kind: Name
    text: Text
    trace: Text = ""
    death: DeathReport | None = None


class Terminated(Message, frozen=True, tag=12):
    """A watched actor is gone."""

    actor: Path
    cause: CauseWord


class Probe(Message, frozen=True, tag=13):
    """Nothing. Whether it can be sent shows whether the peer is still there."""


Questions = Tell | Ask | Withdraw | Watch | Unwatch
Answers = Answer | Refusal | Terminated | Probe

_encode = msgspec.msgpack.Encoder().encode
_questions: msgspec.msgpack.Decoder[Questions] = msgspec.msgpack.Decoder(Questions)
_answers: msgspec.msgpack.Decoder[Answers] = msgspec.msgpack.Decoder(Answers)


def lane_of(priority: int) -> Lane:
    """The lane that questions of ``priority``, and their answers, travel on."""
    return Lane.CONTROL if priority <= Priority.HIGH else Lane.DATA


def encode(message: Message) -> list[Frame]:
    """``message`` as frames."""
    return [bytes((VERSION,)) + _encode(message)]


def decode_question(frames: Sequence[Frame]) -> Questions:
    """A message to the side that has the actors. Raises ProtocolError, and only that."""
    return _decode(_questions, frames)


def decode_answer(frames: Sequence[Frame]) -> Answers:
    """A message to the side that holds refs. Raises ProtocolError, and only that."""
    return _decode(_answers, frames)


def _decode(decoder: msgspec.msgpack.Decoder[M], frames: Sequence[Frame]) -> M:
    if len(frames) != 1 or not len(frames[0]):
        raise ProtocolError("malformed", f"a bridge message is one frame, not {len(frames)}")
    frame = memoryview(frames[0])
    if frame[0] != VERSION:
        raise ProtocolError(
            "version", f"the other side speaks bridge version {frame[0]}, this one {VERSION}"
        )
    try:
        return decoder.decode(frame[1:])
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError("malformed", str(error)) from error


# --- errors and causes ---------------------------------------------------------------------------


def refusal(request: int, error: BaseException) -> Refusal:
    """``error`` for the other side; its traceback too where it is the user's own."""
    kind = type(error).__name__
    if isinstance(error, PeerLost):
        death = error.death
        report = None
        if death is not None:
            facts = {name: _cut(fact) for name, fact in vars(death).items()}
            report = DeathReport(**facts)
        return Refusal(request, kind, _cut(error.message), death=report)
    if isinstance(error, GuactorsError):
        return Refusal(request, kind, _cut(str(error)))
    trace = "".join(traceback.format_exception(error))
    return Refusal(request, kind, _cut(str(error)), trace=_cut(trace))


def error_of(word: Refusal) -> GuactorsError:
    """The error to raise for ``word``: the same class where it is one of ours, else TaskError."""
    known = getattr(errors, word.kind, None)
    if not (isinstance(known, type) and issubclass(known, GuactorsError)):
        failed = TaskError(f"{word.kind}: {word.text}")
        failed.remote_traceback = word.trace
        return failed
    if issubclass(known, PeerLost):
        report = word.death
        death = None
        if report is not None:
            death = errors.Death(*(getattr(report, f) for f in report.__struct_fields__))
        return known(word.text, death)
    if issubclass(known, ProtocolError):
        return known("malformed", word.text)
    return known(word.text)


def cause_word(cause: Cause) -> CauseWord:
    """``cause`` for the other side."""
    kind = type(cause).__name__
    match cause:
        case Stopped(who) | Killed(who) | Lost(who):
            return CauseWord(kind, _cut(who, LONGEST_PATH))
        case Failed(error) | StartFailed(error):
            return CauseWord(kind, error=_cut(repr(error)))
        case Escalated(child, error):
            return CauseWord(kind, _cut(child, LONGEST_PATH), _cut(repr(error)))
        case Completed() | SystemShutdown():
            return CauseWord(kind)


def cause_of(word: CauseWord) -> Cause:
    """The cause that ``word`` tells; errors inside it become TaskErrors of the same text."""
    error = TaskError(word.error)
    match word.kind:
        case "Completed":
            return Completed()
        case "Stopped":
            return Stopped(word.who)
        case "Killed":
            return Killed(word.who)
        case "Failed":
            return Failed(error)
        case "StartFailed":
            return StartFailed(error)
        case "Escalated":
            return Escalated(word.who, error)
        case "SystemShutdown":
            return SystemShutdown()
        case _:
            return Lost(word.who or f"by a cause this version does not know: {word.kind}")


def _cut(fact: Any, longest: int = LONGEST_TEXT) -> Any:
    """A text that fits the limits above; other facts as they are."""
    if isinstance(fact, str) and len(fact) > longest:
        return fact[: longest - 4] + " ..."
    return fact
