"""What waits to run: accepted calls in priority order.

Owns: the mailbox, expiry of queued calls, taking back and cancelling what has not started. Pure;
the worker's lock is held around every method.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from guactors.messages import Call
from guactors.transport.base import Frame
from guactors.worker.call_queue import CallQueue

DRAIN_EVERY = 0.001
"""Seconds after which arrivals are looked at even though calls wait: they may be more urgent."""


class Item(Struct, eq=False):
    """One accepted call. ``link``: whom to answer; ``expires``: absolute, 0 for never.
    ``cancelled`` is set when it should end, ``timed_out`` when that is because its time is over;
    ``name`` once it runs; ``missing`` when a stored value that it needs was gone. What
    ``context.Running`` asks for."""

    link: str
    call: Call
    buffers: Sequence[Frame] = ()
    expires: float = 0.0
    cancelled: bool = False
    timed_out: bool = False
    name: str = ""
    missing: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """Names the call within this worker."""
        return self.link, self.call.id


class Intake:
    """Calls accepted and not started."""

    def __init__(self) -> None:
        self.mailbox: CallQueue[Item] = CallQueue()
        self.groups: dict[str, CallQueue[Item]] = {}
        """Apart from it, what waits for the concurrency groups of an actor."""

    def divide(self, groups: Iterable[str]) -> None:
        """From here on calls that name one of these groups wait apart."""
        for group in groups:
            self.groups[group] = CallQueue()

    def _mailboxes(self) -> list[CallQueue[Item]]:
        return [self.mailbox, *self.groups.values()]

    def add(self, link: str, calls: Sequence[Call], buffers: Sequence[Frame], now: float) -> None:
        """Accept a batch; each call takes its buffers from the front."""
        position = 0
        put = self.mailbox.put
        for call in calls:
            if not (call.buffers or call.deps or call.remaining or call.priority or call.group):
                put(Item(link, call), 0)
                continue
            own: Sequence[Frame] = ()
            count = call.buffers
            if call.deps:
                count += sum(dep.buffers for dep in call.deps)
            if count:
                own = buffers[position : position + count]
                position += count
            expires = now + call.remaining if call.remaining else 0.0
            mailbox = self.groups.get(call.group, self.mailbox)
            mailbox.put(Item(link, call, own, expires), call.priority)

    def cancel(self, link: str, call: int) -> Item | None:
        """Take out a call that has not started; None when it is not here."""
        for mailbox in self._mailboxes():
            found = mailbox.remove(lambda item: item.link == link and item.call.id == call)
            if found is not None:
                return found
        return None

    def take_back(self, link: str, count: int) -> list[int]:
        """Take out up to ``count`` calls of a caller, the last ones first; their ids."""
        back: list[Item] = []
        for mailbox in self._mailboxes():
            back += mailbox.take_back(count - len(back), lambda item: item.link == link)
        return [item.call.id for item in back]

    def bounce_all(self) -> dict[str, list[int]]:
        """Take out everything, by caller."""
        bounced: dict[str, list[int]] = {}
        for mailbox in self._mailboxes():
            for item in mailbox.clear():
                bounced.setdefault(item.link, []).append(item.call.id)
        return bounced

    def forget(self, link: str) -> int:
        """The caller is gone: nobody wants its calls. How many there were."""
        return sum(
            len(mailbox.take_back(len(mailbox), lambda item: item.link == link))
            for mailbox in self._mailboxes()
        )
