"""Listing, fetching and removing images at the hub.

Owns: who fetches which image at the moment. Must never: remove an image that somebody fetches, or
show one to somebody who may not use it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from guactors import messages as m
from guactors.errors import ImageRefused, MailboxFull, UsageError
from guactors.image_state.desk import DOWNLOAD, REMOVE, ImageDesk, Steps, asked_image, unknown
from guactors.image_state.jobs import (
    Breathe,
    Facts,
    Job,
    LetGo,
    ListAll,
    Look,
    Looked,
    Read,
    Remove,
)
from guactors.scheduling.events import ImagesAsked, Standing
from guactors.security.rights import Reason

FETCH_IDLE: Final = 30.0
"""Seconds without a word after which a peer fetches no more."""
MOST_FETCHED: Final = 64
"""Images that are fetched at a time: their files are open."""
TOLD_AGAIN: Final = 600.0
"""Seconds in which the downloads of one image by one principal are one line of the audit log."""
MOST_TOLD: Final = 1000
SLICE: Final = 50
"""Images that are judged in a row before the hub's loop serves others."""


@dataclass(slots=True)
class Fetch:
    """``peers``: when each last asked for a chunk, and how many it got; ``busy``: jobs under
    way."""

    found: Looked
    peers: dict[str, tuple[float, int]] = field(default_factory=dict)
    busy: int = 0

    @property
    def chunks(self) -> int:
        """Of all blobs."""
        return sum({x.sha3_256: len(x.chunks) for x in self.found.manifest.blobs}.values())

    @property
    def until(self) -> float:
        """When it ends if nobody says anything."""
        return max(at for at, _ in self.peers.values()) + FETCH_IDLE


class Fetches:
    """The rules; each question is answered by steps."""

    def __init__(self, desk: ImageDesk) -> None:
        self._desk = desk
        self._fetches: dict[str, Fetch] = {}
        self._told: dict[tuple[str, str], float] = {}

    # --- questions ------------------------------------------------------------------------------

    def list(self, asked: ImagesAsked) -> Steps:
        """AskImages."""
        message, standing = asked.message, asked.standing
        assert isinstance(message, m.AskImages)
        found: list[Facts] = yield ListAll()
        rows: list[m.ImageRow] = []
        for number, one in enumerate(found):
            if number and not number % SLICE:
                yield Breathe()
            if self._desk.sees(standing, one.image, one.signers):
                by = sorted(self._desk.counted(one.signers))
                rows.append(
                    m.ImageRow(one.image, one.name, one.size, one.created, by, one.last_used)
                )
        return m.ImageList(message.request, rows)

    def manifest(self, asked: ImagesAsked) -> Steps:
        """AskImage."""
        message, standing, desk = asked.message, asked.standing, self._desk
        assert isinstance(message, m.AskImage)
        image = asked_image(message.image)
        found = yield from self._look(standing, image)
        desk.check_fetch(standing, image, found.signers)
        self._tell(standing, image)
        return m.ImageIs(message.request, found.data, found.signatures)

    def chunk(self, asked: ImagesAsked) -> Steps:
        """AskChunk."""
        message, standing, desk = asked.message, asked.standing, self._desk
        assert isinstance(message, m.AskChunk)
        image = asked_image(message.image)
        known = self._fetches.get(image)
        found = known.found if known else (yield from self._look(standing, image))
        desk.check_fetch(standing, image, found.signers)
        blob = next((x for x in found.manifest.blobs if x.sha3_256 == message.blob), None)
        if blob is None or message.index >= len(blob.chunks):
            raise UsageError(f"the image {image} has no chunk {message.index} of {message.blob}")
        fetch = self._begin(image, found, asked.peer)
        fetch.busy += 1
        try:
            data: bytes = yield Read(image, blob, message.index)
        finally:
            fetch.busy -= 1
            self._note(image, fetch, asked.peer)
        return m.ChunkIs(message.request, data)

    def remove(self, asked: ImagesAsked) -> Steps:
        """RemoveImage."""
        message, standing, desk = asked.message, asked.standing, self._desk
        assert isinstance(message, m.RemoveImage)
        image = asked_image(message.image)
        uploaders = desk.ledger.uploaders(image)
        mine = standing.principal in uploaders
        admin = standing.rights.may("admin", desk.wall).allowed
        if not (mine or admin):
            found = yield from self._look(standing, image)
            if not desk.sees(standing, image, found.signers):
                desk.tell(standing, REMOVE, image, Reason.ACTION, "it may not use it, either")
                raise unknown(image)
            detail = f"{image} may be removed by whoever uploaded it, or by an administrator"
            raise desk.refuse(standing, REMOVE, image, Reason.ACTION, detail)
        if mine and not admin and len(uploaders) > 1:
            desk.ledger.disclaim(standing.principal, image)
            yield desk.save()
            desk.tell(standing, REMOVE, image)
            return m.Done(message.request, f"{image} is kept for others, who uploaded it, too")
        if image in self._fetches:
            raise ImageRefused(
                f"{image} is being fetched by {len(self._fetches[image].peers)} processes: try "
                "again in a minute"
            )
        there: bool = yield Remove(image)
        desk.ledger.forget(image)
        yield desk.save()
        if not there:
            raise unknown(image)
        desk.tell(standing, REMOVE, image)
        return m.Done(message.request, f"{image} is removed")

    def _tell(self, standing: Standing, image: str) -> None:
        """Write into the audit log who had which image, but not for each time that he looks."""
        key, now = (standing.principal, image), self._desk.now
        if key in self._told and now < self._told[key] + TOLD_AGAIN:
            return
        self._told.pop(key, None)
        self._told[key] = now
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]
        self._desk.tell(standing, DOWNLOAD, image)

    # --- who fetches what -----------------------------------------------------------------------

    def _look(self, standing: Standing, image: str) -> Generator[Job, Any, Looked]:
        """The image. Only who sees everything hears that it is there, but damaged."""
        try:
            found: Looked | None = yield Look(image)
        except ImageRefused:
            if standing.rights.everything:
                raise
            found = None
        if found is None:
            raise unknown(image)
        return found

    def _begin(self, image: str, found: Looked, peer: str) -> Fetch:
        fetch = self._fetches.get(image)
        if fetch is None:
            if len(self._fetches) >= MOST_FETCHED:
                raise MailboxFull(
                    f"{MOST_FETCHED} images are being fetched from the hub: try again in a minute"
                )
            fetch = self._fetches[image] = Fetch(found)
        fetch.peers[peer] = self._desk.now, fetch.peers.get(peer, (0.0, 0))[1]
        return fetch

    def _note(self, image: str, fetch: Fetch, peer: str) -> None:
        """A question of the peer is answered; who has had as many chunks as there are is done."""
        _, count = fetch.peers.get(peer, (0.0, 0))
        fetch.peers[peer] = self._desk.now, count + 1
        if count + 1 >= fetch.chunks and not fetch.busy:
            del fetch.peers[peer]
            if not fetch.peers:
                self._end(image)

    def _end(self, image: str) -> None:
        del self._fetches[image]
        self._desk.chores.append(LetGo(image))

    # --- time -----------------------------------------------------------------------------------

    def on_tick(self) -> None:
        """Forget those who say nothing any more."""
        now = self._desk.now
        for image, fetch in list(self._fetches.items()):
            if fetch.busy:
                continue
            late = [peer for peer, (at, _) in fetch.peers.items() if now >= at + FETCH_IDLE]
            for peer in late:
                del fetch.peers[peer]
            if not fetch.peers:
                self._end(image)

    def wakes(self) -> Iterator[float]:
        """When ``on_tick`` has something to do."""
        yield from (fetch.until for fetch in self._fetches.values() if not fetch.busy)

    def check(self) -> None:
        """Every invariant holds."""
        assert len(self._fetches) <= MOST_FETCHED
        for fetch in self._fetches.values():
            assert fetch.busy >= 0
            assert fetch.peers or fetch.busy
