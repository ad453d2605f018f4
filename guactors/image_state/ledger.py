"""Who uploaded which image, and how far those are that are not finished.

Owns: this list, its form on the disk, and what each principal takes up by it. Must never: judge
rights, or take a chunk that somebody else sent for one's own: who knows a manifest could have the
content from others otherwise, and learn from what is not asked of him what others store here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Literal

import msgspec
from msgspec import Struct

from guactors.errors import ImageRefused

FORMAT: Final = "guactors.uploads/1"
KEPT: Final = 24 * 3600.0
"""Seconds for which an unfinished upload is kept, and counts."""


class Owned(Struct, frozen=True, forbid_unknown_fields=True):
    """A finished upload. ``size``: its bytes; ``blobs``: the names of its blobs; ``since``: epoch
    seconds."""

    principal: str
    image: str
    size: int
    blobs: list[str]
    since: float


class Half(Struct, forbid_unknown_fields=True):
    """An unfinished one. ``sent``: of each blob which chunks came from this principal, bit by bit
    in hex digits; ``touched``: when the last one did, epoch seconds."""

    principal: str
    image: str
    size: int
    blobs: list[str]
    touched: float
    sent: dict[str, str] = {}


class _File(Struct, forbid_unknown_fields=True):
    format: Literal["guactors.uploads/1"]
    owned: list[Owned]
    halves: list[Half]


class Ledger:
    """``data``: what ``encode`` gave before, empty for a new one. ``images``: those that are in the
    store; what is known of others is forgotten. Raises ImageRefused for what is damaged."""

    def __init__(self, data: bytes = b"", images: Collection[str] = ()) -> None:
        self._owned: dict[tuple[str, str], Owned] = {}
        self._halves: dict[tuple[str, str], Half] = {}
        self._uploaders: dict[str, set[str]] = {}
        if not data:
            return
        try:
            file = msgspec.json.decode(data, type=_File)
            for half in file.halves:
                _check_hex(half.sent.values())
        except (msgspec.MsgspecError, ValueError) as fault:
            raise ImageRefused(
                f"the hub's list of uploads is damaged ({fault}): its owner must restore it, or "
                "remove it, after which only owners can remove the images there are"
            ) from None
        there = set(images)
        for entry in file.owned:
            if entry.image in there:
                self._own(entry)
        self._halves = {(x.principal, x.image): x for x in file.halves}

    def encode(self) -> bytes:
        """All of it."""
        return msgspec.json.encode(
            _File(FORMAT, list(self._owned.values()), list(self._halves.values()))
        )

    def used(self, principal: str, *, but: str = "") -> int:
        """Bytes that count for a principal: of its images and of its unfinished uploads, but one.
        An image counts for everybody who uploaded it."""
        sizes = {
            image: entry.size
            for entries in (self._owned, self._halves)
            for (who, image), entry in entries.items()
            if who == principal
        }
        return sum(size for image, size in sizes.items() if image != but)

    def uploaders(self, image: str) -> Collection[str]:
        """Who uploaded all of it."""
        return self._uploaders.get(image, ())

    def blobs_of(self, principal: str) -> set[str]:
        """The blobs of the images that it uploaded."""
        return {
            blob
            for (who, _), entry in self._owned.items()
            if who == principal
            for blob in entry.blobs
        }

    def sent(self, principal: str, image: str) -> dict[str, int]:
        """Which chunks it sent of an unfinished one: by the blob, bit ``1 << index`` for each."""
        half = self._halves.get((principal, image))
        return {} if half is None else {blob: int(x, 16) for blob, x in half.sent.items()}

    # --- changes --------------------------------------------------------------------------------

    def begin(
        self, principal: str, image: str, size: int, blobs: Iterable[str], wall: float
    ) -> bool:
        """It begins to upload the image, which is True, or goes on with it."""
        half = self._halves.get((principal, image))
        if half is not None:
            half.touched = wall
            return False
        self._halves[principal, image] = Half(principal, image, size, sorted(set(blobs)), wall)
        return True

    def abandon(self, principal: str, image: str) -> None:
        """It did not begin after all."""
        self._halves.pop((principal, image), None)

    def keep_sent(self, principal: str, image: str, sent: dict[str, int], wall: float) -> None:
        """These chunks came from it up to this moment."""
        half = self._halves.get((principal, image))
        if half is not None:
            half.sent = {blob: f"{bits:x}" for blob, bits in sent.items()}
            half.touched = wall

    def claim(self, principal: str, image: str, wall: float) -> None:
        """All chunks came from it; the unfinished upload is kept until ``confirm``."""
        half = self._halves[principal, image]
        self._own(Owned(principal, image, half.size, half.blobs, wall))

    def confirm(self, principal: str, image: str) -> None:
        """The image is in the store."""
        self._halves.pop((principal, image), None)

    def disclaim(self, principal: str, image: str) -> None:
        """It does not have the image after all, or does not want it any more."""
        if self._owned.pop((principal, image), None) is not None:
            self._uploaders[image].discard(principal)

    def forget(self, image: str) -> None:
        """The image is gone, for everybody."""
        for principal in self._uploaders.pop(image, ()):
            del self._owned[principal, image]

    def expire(self, before: float, busy: Collection[tuple[str, str]] = ()) -> bool:
        """Forget uploads that nobody went on with since then, epoch seconds, unless they are in
        ``busy`` (principal and image). Whether there were any."""
        old = [k for k, half in self._halves.items() if half.touched < before and k not in busy]
        for key in old:
            del self._halves[key]
        return bool(old)

    def _own(self, entry: Owned) -> None:
        self._owned[entry.principal, entry.image] = entry
        self._uploaders.setdefault(entry.image, set()).add(entry.principal)


def _check_hex(texts: Iterable[str]) -> None:
    for text in texts:
        int(text, 16)
