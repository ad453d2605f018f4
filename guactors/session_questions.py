"""What a session asks the hub and waits for.

Owns: the questions under way and their answers. Must never: understand either.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from guactors.errors import GuactorsError
from guactors.hub_line import HubLine, error_of
from guactors.messages import Fault, Message
from guactors.pump import Pump


class Questions:
    """Of one session, whose lock is the pump's."""

    def __init__(self, hub: HubLine, pump: Pump) -> None:
        self._hub = hub
        self._pump = pump
        self._numbers = itertools.count(1)
        self._answers: dict[int, Message | None] = {}
        self._unasked: dict[int, Message] = {}
        """Those that came before the hub's welcome."""

    def ask(self, make: Callable[[int], Message], timeout: float) -> Any:
        """Send ``make(request)`` and return the answer. Raises the error class a Fault names,
        HubUnreachable when none came."""
        request = self.number()
        with self._pump.lock:
            self.expect(request)
            if self._hub.up:
                self._hub.send(make(request))
            else:
                self._unasked[request] = make(request)
        try:
            self._pump.wait(lambda: self.answered(request), timeout)
        finally:
            answer = self.take(request)
            self._unasked.pop(request, None)
        if answer is None:
            raise self._hub.unreachable()
        if isinstance(answer, Fault):
            raise error_of(answer)
        return answer

    # --- for who asks by other means --------------------------------------------------------------

    def number(self) -> int:
        """For a question."""
        return next(self._numbers)

    def expect(self, request: int) -> None:
        """Keep the answer when it comes. The lock is held."""
        self._answers[request] = None

    def answered(self, request: int) -> bool:
        """Whether it has come."""
        return self._answers[request] is not None

    def take(self, request: int) -> Message | None:
        """The answer, if it has come; nobody waits for it any more."""
        return self._answers.pop(request)

    # --- news; the lock is held -------------------------------------------------------------------

    def on_hub_up(self) -> None:
        """Ask what could not be asked before."""
        questions, self._unasked = self._unasked, {}
        for request, question in questions.items():
            if request in self._answers:
                self._hub.send(question)

    def on_answer(self, message: Any) -> None:
        """To one of the questions, or to one that nobody waits for any more."""
        if message.request in self._answers:
            self._answers[message.request] = message
            self._pump.news()

    def refuse(self, error: GuactorsError) -> None:
        """The hub answers no more."""
        for request, answer in self._answers.items():
            if answer is None:
                self._answers[request] = Fault(type(error).__name__, str(error), request)
