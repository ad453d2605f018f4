"""What is being said between guactors and one driver: requests under way, programs, credit.

Owns: the numbers of requests and programs, what each side may still send for a program, and every
check of what a driver says. Must never: touch a pipe, read a clock, or wait.

Lines go out as ``bytes`` that the caller sends; what comes in goes to :meth:`Conversation.receive`.
A ProtocolError from there is the end: a driver that broke the rules once is not asked again.
Threads: one at a time uses an object.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw

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
from guactors.runtimes.external import words
from guactors.runtimes.external.words import (
    LINE,
    MOST_ROOM,
    NEEDS,
    WINDOW,
    Ended,
    Failure,
    Gone,
    Heard,
    Hello,
    Ok,
    Room,
    Said,
    Started,
)

_MOST_SHOWN: Final = 2000
_KINDS: Final[dict[str, type[GuactorsError]]] = {
    "usage": UsageError,
    "unsupported": UsageError,
    "missing": RuntimeMissing,
    "image": ImageRefused,
    "denied": PermissionDenied,
    "lost": InstanceLost,
    "failed": InstanceLost,
}


class _Program:
    """``credit``: bytes that the driver may still send; ``read``: what was read of them and it was
    not told; ``room``: bytes of input that we may still send, None before it has started."""

    def __init__(self) -> None:
        self.credit = WINDOW
        self.read = 0
        self.room: int | None = None
        self.forgotten = False


class Conversation:
    """With the driver ``name``; ``allowed``: the capabilities that its manifest names."""

    def __init__(self, name: str, allowed: frozenset[str]) -> None:
        self.name = name
        self.capabilities = allowed
        """After ``hello`` those that the driver has here."""
        self.version = ""
        self._last = 0
        self._asked: dict[int, tuple[str, int]] = {}
        """Verb and, of ``exec``, program of each request that is not answered."""
        self._programs: dict[int, _Program] = {}

    # --- what we say ----------------------------------------------------------------------------

    def hello(self) -> tuple[int, bytes]:
        """The first request."""
        return self.ask("hello", {"protocol": words.PROTOCOL, "line": LINE, "window": WINDOW})

    def ask(self, verb: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """A request: its number and line. Raises UsageError for a verb that the driver does not
        know, or what fits into no line."""
        return self._ask(verb, body, 0)

    def exec(self, body: dict[str, Any]) -> tuple[int, int, bytes]:
        """A program: the number of the request, its own, and the line."""
        program = self._last + 1
        number, line = self._ask("exec", body | {"program": program, "credit": WINDOW}, program)
        self._programs[program] = _Program()
        return number, program, line

    def order(self, verb: str, program: int, **body: Any) -> bytes:
        """What is said about a program and has no answer; nothing once it has ended."""
        if not self.alive(program):
            return b""
        self._check(verb)
        return words.write_line(verb, {"program": program, **body})

    def room(self, program: int) -> int:
        """Bytes of input that may be sent now."""
        found = self._programs.get(program)
        return found.room or 0 if found is not None else 0

    def input(self, program: int, data: bytes) -> bytes:
        """A line that takes the room it needs."""
        found = self._programs[program]
        assert found.room is not None
        assert len(data) <= found.room
        found.room -= len(data)
        return words.write_line("input", {"program": program, "data": data})

    def took(self, program: int, size: int) -> bytes:
        """So many bytes of output were read: the line that lets the driver send more, or nothing
        as long as that does not pay."""
        found = self._programs.get(program)
        if found is None or found.forgotten:
            return b""
        found.read += size
        if found.read < WINDOW // 2:
            return b""
        given, found.read = found.read, 0
        found.credit += given
        return words.write_line("credit", {"program": program, "bytes": given})

    def forget(self, program: int) -> bytes:
        """It is to end; its output does not matter. Nothing once it has ended."""
        found = self._programs.get(program)
        if found is None or found.forgotten:
            return b""
        found.forgotten = True
        return words.write_line("forget", {"program": program})

    def alive(self, program: int) -> bool:
        """Whether its end was not told yet."""
        return program in self._programs

    # --- what we hear ---------------------------------------------------------------------------

    def receive(self, line: bytes) -> Heard:
        """One line of the driver's, checked and taken note of. Raises ProtocolError."""
        heard = words.read_line(line)
        match heard:
            case Ok():
                self._answered(heard.id, heard.result)
            case Failure():
                _, program = self._known(heard.id)
                self._programs.pop(program, None)
            case Said():
                self._said(heard)
            case Ended():
                self._started(heard.program)
                if (heard.code is None) == (heard.signal is None):
                    raise ProtocolError("malformed", "an exit has a code or a signal")
                del self._programs[heard.program]
            case Room():
                self._more_room(heard)
            case Gone():
                pass
        return heard

    def _answered(self, number: int, result: Raw) -> None:
        verb, program = self._known(number)
        if verb == "hello":
            self._greeted(words.read_result(Hello, result))
        elif verb == "exec":
            self._programs[program].room = words.read_result(Started, result).credit

    def _greeted(self, hello: Hello) -> None:
        if hello.protocol != words.PROTOCOL:
            raise ProtocolError(
                "version", f"it speaks protocol {hello.protocol}, and we {words.PROTOCOL}"
            )
        if hello.name != self.name:
            raise ProtocolError("unexpected", f"it calls itself {hello.name[:64]!r}")
        self.version = hello.version
        self.capabilities &= frozenset(hello.capabilities)

    def _known(self, number: int) -> tuple[str, int]:
        found = self._asked.pop(number, None)
        if found is None:
            raise ProtocolError("unexpected", f"an answer to {number}, which nobody asked")
        return found

    def _started(self, program: int) -> _Program:
        found = self._programs.get(program)
        if found is None or found.room is None:
            raise ProtocolError("unexpected", f"it speaks of program {program}, which does not run")
        return found

    def _said(self, heard: Said) -> None:
        found = self._started(heard.program)
        if len(heard.data) > found.credit:
            raise ProtocolError(
                "too_large", f"{len(heard.data)} bytes of output with a credit of {found.credit}"
            )
        found.credit -= len(heard.data)

    def _more_room(self, heard: Room) -> None:
        found = self._started(heard.program)
        assert found.room is not None
        if found.room + heard.bytes > MOST_ROOM:
            raise ProtocolError("too_large", f"more than {MOST_ROOM} bytes of credit for input")
        found.room += heard.bytes

    # --- helpers --------------------------------------------------------------------------------

    def _ask(self, verb: str, body: dict[str, Any], program: int) -> tuple[int, bytes]:
        self._check(verb)
        self._last += 1
        try:
            line = words.write_line(verb, body, self._last)
        except (ProtocolError, TypeError, ValueError) as error:
            raise UsageError(f"the driver {self.name!r} cannot be told this: {error}") from None
        self._asked[self._last] = verb, program
        return self._last, line

    def _check(self, verb: str) -> None:
        needs = NEEDS.get(verb)
        if needs is not None and needs not in self.capabilities:
            raise UsageError(
                f"the driver {self.name!r} cannot {verb}: it has not the capability {needs!r}"
            )


def error_of(name: str, verb: str, failure: Failure) -> GuactorsError:
    """What is raised for it."""
    said = readable(failure.message) or "it does not say why"
    if failure.kind == "not_started":
        return ProgramNotStarted(said, failure.code)
    if failure.kind == "usage":
        return UsageError(said)
    return _KINDS[failure.kind](f"the driver {name!r} says of {verb}: {said}")


def readable(text: str) -> str:
    """What a driver says, fit for a message: short, without control characters."""
    shown = "".join(sign if sign.isprintable() or sign == "\n" else "?" for sign in text.strip())
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
