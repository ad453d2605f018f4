"""Which images are on this machine, which are on their way, and which could not be had.

Owns: one fetch at a time for each image, and what is known of those that are here. Must never:
decide whether an image may run (``permits`` does) or touch a file.
"""

from __future__ import annotations

from msgspec import Struct

from guactors.provider_state.effects import Effect, NeedImage

MOST_KNOWN = 1000
LINK_LOST = "link_lost"
"""The reason of a failure that says nothing of the image: it is asked for again."""
GONE = "gone"
"""The reason why it cannot be unpacked where it was removed since: it is fetched again."""


class ImageFacts(Struct, frozen=True):
    """An image that is whole in the store. ``signers``: keys whose signatures of it are good, until
    ``not_after`` (epoch seconds); ``runtimes``: the only ones it may run in, empty: any."""

    image: str
    signers: frozenset[str] = frozenset()
    runtimes: tuple[str, ...] = ()
    not_after: int | None = None

    def signers_at(self, now: float) -> frozenset[str]:
        """Whose signatures count at this epoch second."""
        return frozenset() if self.not_after is not None and now > self.not_after else self.signers


class Learned(Struct, frozen=True):
    """``at``: monotonic seconds."""

    facts: ImageFacts
    at: float


class Failure(Struct, frozen=True):
    """``reason``: a word of ``Reason``, or ``failed`` where the image itself is not to blame."""

    reason: str
    detail: str
    at: float


class Shelf:
    """Images by id."""

    def __init__(self) -> None:
        self._here: dict[str, Learned] = {}
        self._fetching: set[str] = set()
        self._failures: dict[str, Failure] = {}

    def find(self, image: str) -> Learned | None:
        """What is known of it, if it is here."""
        return self._here.get(image)

    def failure(self, image: str, since: float) -> Failure | None:
        """Why the last fetch that ended at ``since`` or later failed."""
        failure = self._failures.get(image)
        return failure if failure is not None and failure.at >= since else None

    def want(self, image: str) -> list[Effect]:
        """Have it fetched, or asked for anew; nothing if that is on its way."""
        if image in self._fetching:
            return []
        self._fetching.add(image)
        return [NeedImage(image)]

    def on_image(self, facts: ImageFacts, now: float) -> None:
        """It is here."""
        self._fetching.discard(facts.image)
        self._failures.pop(facts.image, None)
        self._here.pop(facts.image, None)
        self._here[facts.image] = Learned(facts, now)
        _trim(self._here)

    def on_failed(self, image: str, reason: str, detail: str, now: float) -> None:
        """It could not be fetched."""
        self._fetching.discard(image)
        if reason != LINK_LOST:
            self._failures.pop(image, None)
            self._failures[image] = Failure(reason, detail, now)
            _trim(self._failures)

    def forget(self, image: str) -> None:
        """It is not as whole as was thought: fetch it again when it is needed."""
        self._here.pop(image, None)


def _trim(items: dict[str, Learned] | dict[str, Failure]) -> None:
    while len(items) > MOST_KNOWN:
        del items[next(iter(items))]
