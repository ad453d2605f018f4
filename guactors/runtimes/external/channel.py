"""The line to a driver that runs, and the thread that hears it.

Owns: who waits for which answer, and when a driver is lost. Must never: wait for one without a
deadline, hold more of what it says than it has credit for, or go on with one that broke the rules.

Threads: any. One thread reads both pipes, and neither waits for a reader nor sends: so a driver
that keeps the rules is never held up in its own writing while it should read.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

assert sys.platform != "win32", "needs poll"

from msgspec import Raw

from guactors.errors import GuactorsError, InstanceLost, ProtocolError, RuntimeMissing
from guactors.messages import Limits
from guactors.runtimes.external import words
from guactors.runtimes.external.conversation import Conversation, error_of, readable
from guactors.runtimes.external.executable import LOOK, Executable
from guactors.runtimes.external.manifest import Driver
from guactors.runtimes.external.program import Program
from guactors.runtimes.external.words import Ended, Failure, Gone, Lines, Ok, Room, Said
from guactors.runtimes.native.guardian import Guardian

_READ: Final = 65536
_TAIL: Final = 4096


class _Answer:
    """What somebody waits for."""

    def __init__(self, lock: threading.Lock) -> None:
        self.there = threading.Condition(lock)
        self.found: Ok | Failure | None = None
        self.given_up = False


class Channel:
    """To the running driver ``driver`` of the instance ``instance``, whose group is held to
    ``limits``. Raises RuntimeMissing where it cannot be started or does not say hello."""

    def __init__(self, driver: Driver, instance: str, limits: Limits, guardian: Guardian) -> None:
        self.driver = driver
        self.instance = instance
        self.lock = threading.Lock()
        self.talk = Conversation(driver.name, frozenset(driver.manifest.capabilities))
        self.lost = ""
        """Why it is not there any more."""
        self._programs: dict[int, Program] = {}
        self._waiting: dict[int, _Answer] = {}
        self._lines = Lines()
        self._tail = b""
        self._sending = threading.Lock()
        self._closing = self._closed = False
        self.executable = Executable(driver, instance, limits, guardian)
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(
            target=self._hear, name=f"driver of {instance}", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # the system allows no more threads
            os.close(self._stop)
            os.close(self._stopper)
            self.executable.close()
            raise RuntimeMissing(
                f"nobody can listen to the driver {driver.name!r}: {error}"
            ) from error
        self._greet()

    def _greet(self) -> None:
        try:
            self.answer_to(self.post(self.talk.hello), "hello")
        except GuactorsError as error:
            self.close()
            raise RuntimeMissing(str(error)) from error
        except BaseException:
            self.close()
            raise

    # --- asking ---------------------------------------------------------------------------------

    def ask(self, verb: str, extra: float = 0.0, **body: Any) -> Raw:
        """The answer to a request. ``extra``: seconds that it may take longer than the verb does.
        Raises what the driver answers, InstanceLost where it does not."""
        return self.answer_to(self.request(verb, **body), verb, extra)

    def request(self, verb: str, **body: Any) -> int:
        """Send a request: the number that ``answer_to`` wants."""
        return self.post(lambda: self.talk.ask(verb, body))

    def exec(self, body: dict[str, Any], *, tty: bool, stdin: bool) -> Program:
        """Start a program. Raises as ``ask``."""
        made: list[Program] = []

        def make() -> tuple[int, bytes]:
            number, program, line = self.talk.exec(body)
            made.append(Program(self, program, tty=tty, stdin=stdin))
            self._programs[program] = made[0]
            return number, line

        number = self.post(make)
        try:
            self.answer_to(number, "exec")
        except GuactorsError:
            with self.lock:
                self._programs.pop(made[0].number, None)
            raise
        return made[0]

    def post(self, make: Callable[[], tuple[int, bytes]]) -> int:
        """Send what ``make`` makes, which is called with the lock."""
        with self.lock:
            self.check()
            number, line = make()
            self._waiting[number] = _Answer(self.lock)
        self.send(line)
        return number

    def answer_to(self, number: int, verb: str, extra: float = 0.0) -> Raw:
        """What the driver says to a request that was sent."""
        seconds = self.driver.deadline(verb) + extra
        with self.lock:
            answer = self._waiting[number]
            try:
                answer.there.wait_for(
                    lambda: answer.found is not None or answer.given_up or self.lost, seconds
                )
            finally:
                del self._waiting[number]
            found = answer.found
            if found is None:
                self.check()
        if found is None:
            self.lose(f"did not answer {verb!r} within {seconds:g} s")
            raise InstanceLost(self.lost)
        if isinstance(found, Ok):
            return found.result
        if found.kind in {"lost", "failed"}:
            self.lose(f"says of {verb}: {readable(found.message)}")
            raise InstanceLost(self.lost)
        raise error_of(self.driver.name, verb, found)

    def read(self, kind: type[words.T], raw: Raw) -> words.T:
        """What an answer holds; a driver whose answer holds something else is lost."""
        try:
            return words.read_result(kind, raw)
        except ProtocolError as error:
            self.lose(f"broke the protocol: {readable(str(error))}")
            raise InstanceLost(self.lost) from error

    def check(self) -> None:
        """Raise InstanceLost where the driver is not there. The lock is held."""
        if self._closing:
            raise InstanceLost(f"the instance {self.instance} was closed")
        if self.lost:
            raise InstanceLost(self.lost)

    def send(self, line: bytes) -> None:
        """To its standard input. Raises InstanceLost where it does not take it in time."""
        if not line:
            return
        seconds = self.driver.deadline("send")
        until = time.monotonic() + seconds
        if not self._sending.acquire(timeout=seconds):
            self.lose(f"does not read its standard input for {seconds:g} s")
            raise InstanceLost(self.lost)
        try:
            taken = self.executable.write(line, until, lambda: not self.lost)
        except OSError:
            # Nobody reads it any more: who hears it knows soon why.
            self._thread.join(LOOK)
            self.lose("closed its standard input")
        else:
            if not taken:
                self.lose(f"does not read its standard input for {seconds:g} s")
        finally:
            self._sending.release()
        if self.lost:
            raise InstanceLost(self.lost)

    # --- hearing --------------------------------------------------------------------------------

    def _hear(self) -> None:
        out, err = self.executable.output, self.executable.errors
        end = os.pidfd_open(self.executable.pid) if hasattr(os, "pidfd_open") else -1
        poll = select.poll()
        for fd in (out, err, self._stop, end):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        try:
            while not self.lost:
                ready = {fd for fd, _ in poll.poll(None if end >= 0 else LOOK * 1000)}
                if self._stop in ready:
                    break
                if err in ready and not self._hear_words():
                    poll.unregister(err)
                if out in ready:
                    self._hear_lines(os.read(out, _READ))
                elif end in ready or (end < 0 and self.executable.has_ended()):
                    self._hear_end()
        finally:
            if end >= 0:
                os.close(end)
            if not self.lost and not self._closed:
                self.lose("is not listened to any more, which is a bug of guactors")

    def _hear_words(self) -> bytes:
        """Of its standard error: what is said there is only for people."""
        err = self.executable.errors
        if not select.select([err], [], [], 0)[0]:
            return b""
        data = os.read(err, _READ)
        self._tail = (self._tail + data)[-_TAIL:]
        return data

    def _hear_end(self) -> None:
        how = self.executable.how_it_ended()
        self._hear_words()
        self.lose(how)

    def _hear_lines(self, data: bytes) -> None:
        if not data:
            self._hear_end()
        try:
            for line in self._lines.feed(data):
                if not self.lost:
                    self._on_line(line)
        except ProtocolError as error:
            self.lose(f"broke the protocol: {readable(str(error))}")

    def _on_line(self, line: bytes) -> None:
        with self.lock:
            heard = self.talk.receive(line)
            match heard:
                case Ok() | Failure():
                    answer = self._waiting.get(heard.id)
                    if answer is not None:
                        answer.found = heard
                        answer.there.notify_all()
                case Said() | Room():
                    if (program := self._programs.get(heard.program)) is not None:
                        program.on_news(heard)
                case Ended():
                    if (program := self._programs.pop(heard.program, None)) is not None:
                        program.on_end(heard)
        if isinstance(heard, Gone):
            self.lose(f"says that its instance is gone: {readable(heard.message)}")

    # --- its end --------------------------------------------------------------------------------

    def lose(self, why: str) -> None:
        """It is not there any more, or must not be: it ends, with all that it started."""
        reason, detail = self.why()
        with self.lock:
            if self.lost:
                return
            tail = readable(self._tail.decode(errors="replace"))
            said = detail or (f"its last words: {tail}" if tail else "")
            self.lost = f"the driver {self.driver.name!r} of {self.instance} {why}"
            if said:
                self.lost += f"; {said}"
            self._tell_all(reason or "lost", detail or self.lost)
        self.executable.kill()

    def why(self) -> tuple[str, str]:
        """Reason and detail of a violent end; empty if it was none of ours."""
        memory = self.executable.out_of_memory()
        return ("memory_limit", memory) if memory else ("", "")

    def _tell_all(self, reason: str, detail: str) -> None:
        for answer in self._waiting.values():
            answer.given_up = True
            answer.there.notify_all()
        for program in self._programs.values():
            program.on_loss(reason, detail)
        self._programs.clear()

    def say_goodbye(self) -> None:
        """Whoever waits for the driver is told that it was closed, and it may end what it has."""
        with self.lock:
            if self.lost or self._closing:
                return
            self._closing = True
            self._tell_all("", "")
            number, line = self.talk.ask("close", {})
            self._waiting[number] = _Answer(self.lock)
        # Whatever it answers: all of it that is on this machine is ended by ``close``.
        with suppress(GuactorsError):
            self.send(line)
            self.answer_to(number, "close")

    def close(self) -> None:
        """Nothing of it is left when this returns. Idempotent; one thread at a time calls it."""
        if self._closed:
            return
        self._closed = True
        with self.lock:
            self.lost = self.lost or f"the instance {self.instance} was closed"
            self._tell_all("", "")
        os.write(self._stopper, b"x")
        self.executable.kill()
        self._thread.join()
        os.close(self._stop)
        os.close(self._stopper)
        with self._sending:
            self.executable.close()
