"""When a worker takes no calls, and gives back those that it has not started.

Owns: the three reasons (its task waits in ``get``, it stands still for others, it has run its last
call) and what callers are told of them. Must never: give back a call that has started, or tell
callers that calls are welcome while another reason stands.

Before a worker is stopped nothing of its callers may be in its sockets: it would wait there as long
as the worker stands still, and nobody else could have it. So they say Halted behind their last
calls. Who does not say it soon, because he is stopped himself, is not waited for.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from guactors import messages as m
from guactors.context import set_leaving
from guactors.errors import GuactorsError
from guactors.runtimes.program import end_all, has_instances, pause_all, resume_all

if TYPE_CHECKING:
    from guactors.worker.process import Worker

PATIENCE: Final = 0.008
"""Seconds that callers have to say Halted: less than the provider waits for us."""
_LOOK: Final = 0.0003


class Bouncing:
    """Of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.blocked = False
        """Its task waits in get."""
        self.retiring = False
        """It has run a function as often as that allows."""
        self.standing = False
        """It is to stand still."""
        self._unhalted: set[str] = set()
        self._saying = threading.Lock()

    def refuses(self) -> bool:
        """Whether calls that come now go straight back. An actor keeps its own."""
        return (self.blocked or self.standing or self.retiring) and not self._worker.spec

    def set_blocked(self, blocked: bool) -> None:
        """The task waits in get (or goes on): its CPU is free, and nothing queues behind it."""
        if self._worker.spec is not None:
            return
        with self._saying:
            bounced = self._change(blocked=blocked)
            self._worker.control.tell_provider(m.Blocked(blocked))
            if blocked:
                self._tell(bounced)
            elif not self.standing:
                self._welcome()

    def retire(self) -> None:
        """Run nothing more: what waits here goes back, and the provider lets this process go when
        the lease is over. The main thread, between two calls."""
        # The provider first: it must know before anybody can give the lease back.
        self._worker.control.tell_provider(m.Retiring())
        with self._saying:
            self._tell(self._change(retiring=True), retiring=True)

    def stand(self, number: int) -> None:
        """Nothing of its callers is here any more when this has said so, and its instances stand
        still. The control thread."""
        worker, error = self._worker, ""
        with self._saying:
            bounced = self._change(standing=True)
            self._unhalted = set(bounced)
            self._tell(bounced, halt=True)
        try:
            pause_all()
        except GuactorsError as fault:
            error = str(fault)
        until = time.monotonic() + PATIENCE
        while self._unhalted and time.monotonic() < until:
            time.sleep(_LOOK)
            with worker.lock:
                worker.drain(time.monotonic())
        worker.control.tell_provider(m.Stood(number, error))

    def quit(self, grace: float) -> None:
        """It ends within so many seconds: what waits here goes back, what runs is asked to end.
        The control thread."""
        set_leaving()
        with self._saying:
            self._tell(self._change(retiring=True), retiring=True)
        if not has_instances():
            self._leave()
            return
        ending = threading.Thread(target=self._end_instances, args=(grace,), daemon=True)
        ending.start()

    @staticmethod
    def _end_instances(grace: float) -> None:
        """What they do at their end is no result of the call that they ran for."""
        end_all(grace)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)

    def _leave(self) -> None:
        """After what runs."""
        worker = self._worker
        worker.leaving = True
        worker.poller.wake()
        worker.runner.wake()

    def halted(self, link: str) -> None:
        """Behind this nothing comes from the caller. The worker's lock is held."""
        self._unhalted.discard(link)

    def go_on(self) -> None:
        """It stands still no longer. The control thread."""
        try:
            resume_all()
        except GuactorsError as fault:
            # An instance that cannot go on is of no use to anybody.
            gone = m.InstanceGone("unresponsive", f"an instance does not go on: {fault}"[:1000])
            self._worker.control.tell_provider(gone)
        with self._saying:
            self.standing = False
            if not self.blocked:
                self._welcome()

    def _change(
        self, *, blocked: bool | None = None, standing: bool = False, retiring: bool = False
    ) -> dict[str, list[int]]:
        """By caller, the calls that were taken out for it."""
        worker = self._worker
        links = [link for link, _ in worker.known_links()]
        with worker.lock:
            if blocked is not None:
                self.blocked = blocked
            self.standing = self.standing or standing
            self.retiring = self.retiring or retiring
            if not self.refuses() or blocked is False:
                return {}
            worker.flush()
            worker.drain(time.monotonic())
            bounced = worker.intake.bounce_all()
            return {link: bounced.get(link, []) for link in links}

    def _tell(
        self, bounced: dict[str, list[int]], *, retiring: bool = False, halt: bool = False
    ) -> None:
        for link, calls in bounced.items():
            self._worker.control.send(link, m.Bounced(calls, True, retiring, halt))

    def _welcome(self) -> None:
        for link, _ in self._worker.known_links():
            self._worker.control.send(link, m.Unblocked())
