"""The room of images at the hub: questions in, jobs for the disk and answers out.

Owns: which questions are worked on and how far each is, what waits, the housekeeping. Must never:
touch the disk (``images.serving`` does, off the loop), read a clock, or keep a peer waiting for an
answer for ever: each question gets one.

The rules are in ``uploads`` and ``fetches``: steps that yield jobs and are
sent the outcomes. Nothing is answered before the list of uploads has been read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from typing import Any, Final

from msgspec import Struct

from guactors import errors
from guactors import messages as m
from guactors.errors import GuactorsError, ImageRefused, MailboxFull
from guactors.image_state.desk import UPLOAD, ImageDesk, Steps
from guactors.image_state.fetches import Fetches
from guactors.image_state.jobs import Did, Do, Job, Load, Loaded, Sweep
from guactors.image_state.ledger import KEPT, Ledger
from guactors.image_state.passing import sweep_passing
from guactors.image_state.turns import Turns
from guactors.image_state.uploads import Uploads
from guactors.images.manifest import CHUNK, image_id
from guactors.scheduling import events as e
from guactors.security.rights import Reason

SWEEP_EVERY: Final = 3600.0
"""Seconds between two times that what was left unfinished is removed."""


class _Running(Struct, eq=False):
    """``asked`` is None for a chore, ``size`` as in ``Turns.done``."""

    steps: Generator[Job, Any, m.Message | None]
    asked: e.ImagesAsked | None
    size: int = 0


class ImageRoom:
    """A :class:`guactors.scheduling.events.Room`, whose effects hold ``Do`` besides the usual ones,
    each to be answered with a ``Did``. ``wall`` turns ``now`` into epoch seconds. ``keeps``: is
    there a place for images at this hub?"""

    def __init__(self, wall: Callable[[float], float] = float, *, keeps: bool = True) -> None:
        self._desk = ImageDesk(wall)
        self._uploads = Uploads(self._desk)
        self._fetches = Fetches(self._desk)
        self._turns: Turns[e.ImagesAsked] = Turns()
        self._running: dict[int, _Running] = {}
        self._tickets = itertools.count(1)
        self._keeps = keeps
        self._begun = False
        self._loaded = False
        self._fault: GuactorsError | None = None
        self._sweep_at: float | None = None

    def __repr__(self) -> str:
        return f"<ImageRoom running={len(self._running)} questions={len(self._turns)}>"

    # --- the room -------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[e.Effect]:
        """Take one event."""
        self._desk.now = now
        match event:
            case e.ImagesAsked():
                return self._asked(event)
            case e.RevocationsAre(message):
                self._desk.revoke(message.keys)
            case Did(ticket, outcome):
                running = self._running.pop(ticket)
                return [*self._step(running, outcome), *self._go_on()]
        return []

    def on_tick(self, now: float) -> list[e.Effect]:
        """Housekeeping."""
        self._desk.now = now
        if not self._loaded or self._fault:
            return []
        self._uploads.on_tick()
        self._fetches.on_tick()
        if self._sweep_at is not None and now >= self._sweep_at:
            self._sweep_at = now + SWEEP_EVERY
            if self._desk.ledger.expire(self._desk.wall - KEPT, self._uploads.busy()):
                self._desk.chores.append(self._desk.save())
            self._desk.chores.append(Sweep())
            return [*self._chores(), *self._step(_Running(sweep_passing(self._desk), None), None)]
        return self._chores()

    def next_wake(self, _now: float) -> float | None:
        """When ``on_tick`` has something to do."""
        wakes = [*self._uploads.wakes(), *self._fetches.wakes()]
        if self._sweep_at is not None:
            wakes.append(self._sweep_at)
        return min(wakes, default=None)

    def stop(self) -> list[Job]:
        """The hub ends: what is still to be done, and then nothing."""
        if not self._loaded or self._fault:
            return []
        self._uploads.keep_sent()
        return [self._desk.save()]

    # --- questions ------------------------------------------------------------------------------

    def _asked(self, asked: e.ImagesAsked) -> list[e.Effect]:
        message = asked.message
        if not self._keeps:
            return self._refuse(
                asked, ImageRefused("this hub keeps no images: start it with --data")
            )
        size = 0
        if isinstance(message, m.PutChunk):
            size = len(message.data)
            if size > CHUNK:
                text = f"a chunk of {size} bytes: they have {CHUNK} at most"
                return self._refuse(asked, ImageRefused(text))
        alone = not isinstance(message, m.PutChunk | m.AskChunk)
        if not self._turns.put(asked.peer, asked, alone=alone, size=size):
            text = "too many questions about images wait at the hub: send fewer at a time"
            return self._refuse(asked, MailboxFull(text))
        if self._begun:
            return self._go_on()
        self._begun = True
        return self._step(_Running(self._load(), None), None)

    def _go_on(self) -> list[e.Effect]:
        """Begin what may begin."""
        effects: list[e.Effect] = []
        while self._loaded and (turn := self._turns.start()):
            peer, asked, size = turn
            if self._fault is not None:
                self._turns.done(peer, size)
                effects += self._refuse(asked, self._fault)
            else:
                effects += self._step(_Running(self._steps(asked), asked, size), None)
        return effects

    def _steps(self, asked: e.ImagesAsked) -> Steps:
        match asked.message:
            case m.OfferImage():
                return self._uploads.offer(asked)
            case m.PutChunk():
                return self._uploads.put(asked)
            case m.SealImage():
                return self._uploads.seal(asked)
            case m.AskImages():
                return self._fetches.list(asked)
            case m.AskImage():
                return self._fetches.manifest(asked)
            case m.AskChunk():
                return self._fetches.chunk(asked)
            case m.RemoveImage():
                return self._fetches.remove(asked)
        raise TypeError(f"{type(asked.message).__name__} is no question about images")

    def _step(self, running: _Running, outcome: object) -> list[e.Effect]:
        """One step on; the answer after the last one."""
        asked = running.asked
        answer: list[e.Effect] = []
        try:
            if isinstance(outcome, GuactorsError):
                job = running.steps.throw(outcome)
            else:
                job = running.steps.send(outcome)
        except StopIteration as end:
            if asked is not None:
                answer.append(e.ToPeer(asked.peer, end.value))
        except GuactorsError as error:
            if asked is not None:
                answer += self._refuse(asked, error)
        else:
            ticket = next(self._tickets)
            self._running[ticket] = running
            return [*self._told(), Do(ticket, job), *self._chores()]
        if asked is not None:
            self._turns.done(asked.peer, running.size)
        return [*self._told(), *answer, *self._chores()]

    def _refuse(self, asked: e.ImagesAsked, error: GuactorsError) -> list[e.Effect]:
        message = asked.message
        if isinstance(error, ImageRefused):
            # What rights do not allow was told by whoever judged it.
            image = getattr(message, "image", "")
            if isinstance(message, m.OfferImage):
                image = image_id(message.manifest)
            if isinstance(message, m.OfferImage | m.PutChunk | m.SealImage):
                self._desk.tell(asked.standing, UPLOAD, image, Reason.IMAGE, str(error))
        fault = m.Fault(_kind(error), str(error), getattr(message, "request", 0))
        return [*self._told(), e.ToPeer(asked.peer, fault)]

    def _told(self) -> list[e.Effect]:
        told, self._desk.told = self._desk.told, []
        return [e.ToRoom(e.RoomName.GATEKEEPER, e.Decided(decision)) for decision in told]

    # --- chores ---------------------------------------------------------------------------------

    def _load(self) -> Generator[Job, Any, None]:
        try:
            found: Loaded = yield Load()
            self._desk.ledger = Ledger(found.uploads, found.images)
        except GuactorsError as fault:
            self._fault = fault
        else:
            self._sweep_at = self._desk.now
        self._loaded = True

    def _chores(self) -> list[e.Effect]:
        chores, self._desk.chores = self._desk.chores, []
        effects: list[e.Effect] = []
        for job in chores:
            effects += self._step(_Running(_chore(job), None), None)
        return effects

    def check(self) -> None:
        """Every invariant holds."""
        self._turns.check()
        self._uploads.check()
        self._fetches.check()


def _kind(error: GuactorsError) -> str:
    """The name by which everybody knows it: the store has errors of its own below those."""
    known = vars(errors).values()
    return str(next(kind.__name__ for kind in type(error).__mro__ if kind in known))


def _chore(job: Job) -> Generator[Job, Any, None]:
    # Whoever does it logs what fails; it is tried again at its next time.
    yield job
