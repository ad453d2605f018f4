"""What a provider asks its hub about images: the manifest, then the chunks of each blob.

Owns: the open questions and who waits for their answers, one download a blob. Must never: believe
an answer (the hash of each chunk is checked where it is written), or hash on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeGuard

from guactors.errors import ImageRefused
from guactors.messages import AskChunk, AskImage, ChunkIs, Fault, ImageIs, Message

if TYPE_CHECKING:
    from guactors.images.manifest import Blob, Manifest
    from guactors.images.partial import Partial
    from guactors.images.transfer_state import Effect

log = logging.getLogger("guactors.provider")

ANSWER_WITHIN: Final = 60.0
"""Seconds in which the hub must say what an image is."""
LATER: Final = 1.0
"""Seconds until the hub is asked again that had too much to do."""
HUB: Final = "the hub"
REFUSALS: Final = frozenset({"ImageRefused", "PermissionDenied", "UsageError"})
"""Faults of the hub that asking again will not change."""


class ImageTrouble(Exception):
    """Ends a fetch; ``reason`` and ``detail`` as in ImageMissing."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Questions:
    """What the hub was asked and has not answered. ``send`` sends to it."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._last = 0
        self._linked = False
        self._open: dict[int, Callable[[Message | None], None]] = {}

    def ask(
        self, question: Callable[[int], Message], answered: Callable[[Message | None], None]
    ) -> None:
        """``question`` makes the message of a number; ``answered`` gets what comes back, None when
        the link is lost."""
        if not self._linked:
            answered(None)
            return
        self._last += 1
        self._open[self._last] = answered
        self._send(question(self._last))

    def heard(self, message: Message) -> bool:
        """Whether the message answers one of ours."""
        if not isinstance(message, ImageIs | ChunkIs | Fault):
            return False
        answered = self._open.pop(message.request, None)
        if answered is not None:
            answered(message)
        return answered is not None

    def linked(self) -> None:
        """There is a new link."""
        self._linked = True

    def lost(self) -> None:
        """Nothing is answered any more."""
        self._linked = False
        waiting, self._open = self._open, {}
        for answered in waiting.values():
            answered(None)


async def ask_image(questions: Questions, image: str) -> ImageIs:
    """What the hub says that the image is, unverified. Raises ImageTrouble."""
    said = ""
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            while _means_later(message := await _answer(questions, image)):
                said = f": {message.detail}"
                await asyncio.sleep(LATER)
    except TimeoutError:
        detail = f"the hub did not say within {ANSWER_WITHIN:.0f} s what the image {image} is"
        raise ImageTrouble("failed", detail + said) from None
    if isinstance(message, Fault):
        reason = "image" if message.kind in REFUSALS else "failed"
        raise ImageTrouble(reason, message.detail)
    if not isinstance(message, ImageIs):
        raise ImageTrouble("link_lost", "the link to the hub broke")
    return message


async def _answer(questions: Questions, image: str) -> Message | None:
    future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()

    def answered(message: Message | None) -> None:
        if not future.done():
            future.set_result(message)

    questions.ask(lambda number: AskImage(number, image), answered)
    return await future


class Fetch:
    """One blob on its way from the hub: the shell of ``images.transfer_state``."""

    def __init__(
        self, image: str, manifest: Manifest, blob: Blob, partial: Partial, questions: Questions
    ) -> None:
        from guactors.images.transfer_state import Download

        self._image = image
        self._partial = partial
        self._questions = questions
        self._download = Download(manifest, {blob.sha3_256: partial.missing()}, [HUB])
        self._events: asyncio.Queue[Callable[[float], list[Effect]]] = asyncio.Queue()
        self._writes: set[asyncio.Task[None]] = set()
        self._over = False
        self._lost = False
        self._lied = ""

    async def run(self) -> None:
        """Until all chunks are written. Raises ImageTrouble."""
        from guactors.images.transfer_state import Failed

        effects = self._download.begin(time.monotonic())
        try:
            while True:
                for effect in effects:
                    if isinstance(effect, Failed):
                        raise self._trouble(effect.reason)
                    self._carry_out(effect)
                if self._download.ended:
                    return
                effects = await self._next()
        finally:
            self._over = True
            if self._writes:
                await asyncio.wait(self._writes)

    def _trouble(self, reason: str) -> ImageTrouble:
        if self._lost:
            return ImageTrouble("link_lost", reason)
        return ImageTrouble("image" if self._lied else "failed", self._lied or reason)

    async def _next(self) -> list[Effect]:
        wake = self._download.wake_at
        wait = None if wake is None else max(0.0, wake - time.monotonic())
        try:
            event = await asyncio.wait_for(self._events.get(), wait)
        except TimeoutError:
            return self._download.on_tick(time.monotonic())
        return event(time.monotonic())

    def _carry_out(self, effect: Effect) -> None:
        from guactors.images.transfer_state import Ask, Drop, Write

        match effect:
            case Ask(_, blob, index):
                self._ask(blob, index)
            case Write(_, blob, index, data):
                task = asyncio.get_running_loop().create_task(self._write(blob, index, data))
                self._writes.add(task)
                task.add_done_callback(self._writes.discard)
            case Drop(source, reason):
                log.warning("image %s: %s %s", self._image, source, reason)

    def _ask(self, blob: str, index: int) -> None:
        download = self._download
        if self._over:
            return

        def answered(message: Message | None) -> None:
            match message:
                case ChunkIs(data=data):
                    self._put(lambda now: download.on_chunk(HUB, blob, index, data, now))
                case None:
                    self._lost = True
                    self._put(lambda now: download.on_source_lost(HUB, now))
                case _ if _means_later(message):
                    # For the download it is a slow answer, of which it has only so much patience.
                    asyncio.get_running_loop().call_later(LATER, self._ask, blob, index)
                case _:
                    self._put(lambda now: download.on_refused(HUB, blob, index, now))

        self._questions.ask(lambda n: AskChunk(n, self._image, blob, index), answered)

    def _put(self, event: Callable[[float], list[Effect]]) -> None:
        self._events.put_nowait(event)

    async def _write(self, blob: str, index: int, data: bytes | memoryview) -> None:
        from guactors.images.partial import WrongChunk

        try:
            await asyncio.to_thread(self._partial.write, index, data)
        except WrongChunk as error:
            self._lied = f"the hub sent wrong data: {error}"
            self._put(lambda now: self._download.on_wrong(blob, index, now))
        except (ImageRefused, OSError) as error:
            reason = str(error)
            self._put(lambda now: self._download.on_failed(reason, now))
        else:
            self._put(lambda now: self._download.on_written(blob, index, now))


def _means_later(message: Message | None) -> TypeGuard[Fault]:
    """Whether the hub has too much to do to answer at this moment."""
    return isinstance(message, Fault) and message.kind == "MailboxFull"
