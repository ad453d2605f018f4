"""The talk with one Python in an instance.

Owns: its program, who waits for which answer, and the thread that reads what it says. Must never:
open what it carries: whoever made it is not trusted out here.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from queue import SimpleQueue
from typing import Any, Final

import msgspec
from msgspec import Struct

from guactors.enclosure.frames import FrameError, Splitter, encode
from guactors.enclosure.source import modules, same_python
from guactors.errors import InstanceLost, UsageError, VersionMismatch
from guactors.runtimes.base import Exit
from guactors.runtimes.instance import Running

WITHIN: Final = 120.0
"""Seconds that a Python may take to say hello; one in an emulated machine is slow."""
_TAIL: Final = 2000
_STDERR: Final = 2


class Answer(Struct, frozen=True):
    """What it says, checked. ``counts`` and ``refs``: by value, the buffers behind its pickle, and
    the references inside it; ``own``: an error of ours, with ``text``; ``fault``: the type of the
    user's; ``exit``: it is to end with this status; ``threads``: of an actor that was built."""

    say: str
    id: int = 0
    counts: list[int] = []
    refs: list[list[tuple[str, int]]] = []
    own: str = ""
    text: str = ""
    fault: str = ""
    exit: int | None = None
    threads: int = 1
    stream: int = 0
    python: list[int] = []
    kind: str = ""


Frame = tuple[Answer, list[memoryview]]
Print = Callable[[int, int, bytes], None]
"""Of a call (0: none) to a stream."""
Ended = Callable[[str, str], None]
"""Gets a cause, as ``Exit.reason`` has it or one of ``errors.DEATH_CAUSES``, and the detail."""


class Asked:
    """A call on its way."""

    def __init__(self, talk: Conversation, id: int) -> None:
        self._talk = talk
        self.id = id
        self.answers: SimpleQueue[Frame | None] = SimpleQueue()

    def wait(self) -> Frame:
        """Its next answer. Raises InstanceLost."""
        found = self.answers.get()
        if found is None:
            raise InstanceLost(self._talk.over)
        return found

    def more(self) -> None:
        """One item of its stream was taken."""
        self._talk.say({"do": "more", "id": self.id})

    def cancel(self) -> None:
        """It is to end; who asked waits no more."""
        self._talk.forget(self.id)
        self._talk.say({"do": "cancel", "id": self.id})


class Conversation:
    """``place``: where this is, for messages. ``tell``: gets what is printed in there. ``ended``:
    called with the reason when it ends by itself. Threads: any."""

    def __init__(self, running: Running, place: str, tell: Print, ended: Ended) -> None:
        self._running = running
        self._place = place
        self._tell = tell
        self._ended = ended
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._asked: dict[int, Asked] = {}
        self._ids = count(1)
        self._splitter = Splitter()
        self._ready: list[Frame] = []
        self._closed = False
        self.over = ""

    def begin(self) -> None:
        """It says hello, and gets what it needs. Raises VersionMismatch, UsageError,
        InstanceLost."""
        until = time.monotonic() + WITHIN
        hello, _ = self._first("hello", until)
        if not same_python(hello.python, hello.kind):
            there = ".".join(str(x) for x in hello.python)
            here = ".".join(str(x) for x in sys.version_info[:3])
            raise VersionMismatch(
                f"the image {self._place} has {hello.kind} {there}, and your code is of "
                f"{sys.implementation.name} {here}: take an image with Python "
                f"{sys.version_info[0]}.{sys.version_info[1]}"
            )
        self._running.write(modules())
        self._first("ready", until)
        threading.Thread(target=self._read, name="enclosure", daemon=True).start()

    def ask(self, header: dict[str, Any], parts: Sequence[Any]) -> Asked:
        """Send it; its answers come by ``Asked.wait``. Raises UsageError for what is too large."""
        with self._lock:
            asked = Asked(self, next(self._ids))
            if self.over:
                asked.answers.put(None)
            self._asked[asked.id] = asked
        self.say({**header, "id": asked.id}, parts)
        return asked

    def say(self, header: dict[str, Any], parts: Sequence[Any] = ()) -> None:
        """A frame, whole; nothing happens once it is over."""
        try:
            pieces = encode(header, parts)
        except FrameError as error:
            raise UsageError(f"{error}, into the image {self._place}") from None
        with self._writing:
            for piece in pieces:
                self._running.write(bytes(piece))

    def forget(self, id: int) -> None:
        """Nobody waits for it."""
        with self._lock:
            self._asked.pop(id, None)

    def close(self) -> None:
        """End it."""
        self._closed = True
        self._running.close()

    # --- reading --------------------------------------------------------------------------------

    def _first(self, wanted: str, until: float) -> Frame:
        said = b""
        while not self._ready:
            found = self._running.read(max(0.0, until - time.monotonic()))
            if isinstance(found, Exit) or found is None:
                end = _how(found) if isinstance(found, Exit) else f"was silent for {WITHIN:g} s"
                words = said.decode(errors="replace").strip()
                raise UsageError(
                    f"the Python of the image {self._place} {end}: {words or 'it said nothing'}"
                )
            if found.stream == _STDERR:
                said = (said + found.data)[-_TAIL:]
                continue
            try:
                self._ready += self._feed(found.data)
            except FrameError as error:
                raise UsageError(
                    f"what was started in {self._place} is no Python: {error}"
                ) from None
        answer, parts = self._ready.pop(0)
        if answer.say != wanted:
            raise UsageError(f"what was started in {self._place} says {answer.say!r}")
        return answer, parts

    def _feed(self, data: bytes) -> Iterator[Frame]:
        for header, parts in self._splitter.feed(data):
            try:
                answer = msgspec.convert(header, Answer)
            except msgspec.ValidationError as error:
                raise FrameError(f"an answer that is none: {error}") from None
            _check(answer, len(parts))
            yield answer, parts

    def _read(self) -> None:
        why, cause = "it ended", "exited"
        try:
            for found in self._running.output():
                if isinstance(found, Exit):
                    why = f"the Python of the image {self._place} {_how(found)}"
                    cause = found.reason or ("signal" if found.signal else "exited")
                elif found.stream == _STDERR:
                    self._tell(0, _STDERR, found.data)
                else:
                    for answer, parts in self._feed(found.data):
                        self._hear(answer, parts)
        except (FrameError, InstanceLost) as error:
            why = f"the Python of the image {self._place} was given up: {error}"
            self._running.close()
        with self._lock:
            self.over = why
            waiting = list(self._asked.values())
        if not self._closed:
            self._ended(cause, why)
        for asked in waiting:
            asked.answers.put(None)

    def _hear(self, answer: Answer, parts: list[memoryview]) -> None:
        if answer.say == "print":
            self._tell(answer.id, answer.stream, bytes(parts[0]))
            return
        with self._lock:
            asked = self._asked.get(answer.id)
            if asked is not None and answer.say != "item":
                del self._asked[answer.id]
        if asked is not None:
            asked.answers.put((answer, parts))


_PARTS: Final = {"hello": 0, "ready": 0, "print": 1}


def _check(answer: Answer, parts: int) -> None:
    """That there is what it says there is. Raises FrameError."""
    if answer.say in ("done", "item"):
        counts = answer.counts
        right = len(answer.refs) == len(counts) and parts == len(counts) + sum(counts)
        right = right and all(count >= 0 for count in counts)
        right = right and (answer.say == "done" or len(counts) == 1)
    elif answer.say == "failed":
        right = parts == (0 if answer.own else 1)
    elif answer.say == "loaded":
        right = parts <= 1 and answer.threads > 0
    else:
        right = parts == _PARTS.get(answer.say, -1)
        right = right and (answer.say != "print" or answer.stream in (1, 2))
    if not right:
        raise FrameError(f"{answer.say!r} with {parts} parts")


def _how(end: Exit) -> str:
    how = f"was ended by signal {end.signal}" if end.signal else f"ended with status {end.code}"
    return f"{how} ({end.detail or end.reason})" if end.reason else how
