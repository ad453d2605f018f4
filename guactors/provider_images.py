"""The images of a provider: fetched from the hub into the store, unpacked for workers.

Owns: what is being fetched, the directories that workers work in, the pins of what they use. Must
never: decide whether an image may run (``provider_state`` does), hand out what it did not verify,
or hash and unpack on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from guactors.errors import ImageRefused, UsageError
from guactors.home import private_directory
from guactors.messages import Message
from guactors.provider_fetch import Fetch, ImageTrouble, Questions, ask_image
from guactors.provider_state import Effect as CoreEffect
from guactors.provider_state import (
    ImageFacts,
    NeedImage,
    PrepareRoot,
    ProviderCore,
    RemoveRoot,
)

if TYPE_CHECKING:
    from guactors.images.pins import Pin
    from guactors.images.store import ImageStore

log = logging.getLogger("guactors.provider")

QUOTA: Final = 64 << 30
"""Bytes of images that a provider keeps."""
BUSY: Final = 60.0
"""Seconds to wait for another process that fetches the same blob into the same store."""


class ImageHere(Struct, frozen=True):
    """The image is whole in the store."""

    facts: ImageFacts


class ImageMissing(Struct, frozen=True):
    """It could not be had; ``reason`` as in ``ProviderCore.on_image_failed``."""

    image: str
    reason: str
    detail: str


class RootReady(Struct, frozen=True):
    """The worker's image is unpacked at ``root``, or in the store there."""

    worker: str
    root: str


class RootFailed(Struct, frozen=True):
    """It is not; ``reason`` as in ``ProviderCore.on_root_failed``."""

    worker: str
    reason: str
    detail: str


News = ImageHere | ImageMissing | RootReady | RootFailed


def tell_core(core: ProviderCore, news: News, now: float) -> Sequence[CoreEffect]:
    """Hand it to the event it is."""
    match news:
        case ImageHere(facts):
            return core.on_image(facts, now)
        case ImageMissing(image, reason, detail):
            return core.on_image_failed(image, reason, detail, now)
        case RootReady(worker, root):
            return core.on_root_ready(worker, root, now)
        case RootFailed(worker, reason, detail):
            return core.on_root_failed(worker, reason, detail, now)


class Images:
    """``directory``: of the store; ``roots``: of the workers' directories. ``send``: to the hub;
    ``tell`` gets the News, on the loop."""

    def __init__(
        self,
        directory: Path,
        roots: Path,
        send: Callable[[Message], None],
        tell: Callable[[News], None],
    ) -> None:
        self._directory = directory
        self._roots = roots
        self._tell = tell
        self._questions = Questions(send)
        self._made: ImageStore | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._preparing: dict[str, asyncio.Task[None]] = {}
        self._pins: dict[str, Pin] = {}

    def heard(self, message: Message) -> bool:
        """Whether a message of the hub is for us; then it is taken care of."""
        return self._questions.heard(message)

    def hub_up(self) -> None:
        """The hub can be asked."""
        self._questions.linked()

    def hub_lost(self) -> None:
        """The link is gone: what was being fetched is not."""
        self._questions.lost()

    def close(self) -> None:
        """No worker is left. Blocks while directories are removed."""
        self.hub_lost()
        for task in self._tasks:
            task.cancel()
        for pin in self._pins.values():
            pin.close()
        self._pins.clear()
        remove_tree(self._roots)

    def carry_out(self, effect: NeedImage | PrepareRoot | RemoveRoot) -> None:
        """See the effects; the News tell what came of it."""
        match effect:
            case NeedImage(image):
                self._run(self._need(image))
            case PrepareRoot(worker, image, unpack):
                self._preparing[worker] = self._run(self._prepare(worker, image, unpack=unpack))
            case RemoveRoot(worker):
                self._run(self._remove(worker))

    def _store(self) -> ImageStore:
        """Called in a thread."""
        from guactors.images.store import ImageStore

        if self._made is None:
            self._made = ImageStore(self._directory, quota=QUOTA, now=time.time)
        return self._made

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- fetching -------------------------------------------------------------------------------

    async def _need(self, image: str) -> None:
        try:
            self._tell(ImageHere(await self._fetch(image)))
        except ImageTrouble as trouble:
            self._tell(ImageMissing(image, trouble.reason, trouble.detail))
        except (ImageRefused, UsageError, OSError) as error:
            self._tell(ImageMissing(image, "failed", str(error)))

    async def _fetch(self, image: str) -> ImageFacts:
        from guactors.images.manifest import image_id, parse_manifest, signers_of

        answer = await ask_image(self._questions, image)
        data, signatures = bytes(answer.manifest), bytes(answer.signatures)
        if image_id(data) != image:
            raise ImageTrouble(
                "image",
                f"the hub sent the manifest of {image_id(data)} for the image {image}: it is "
                "broken or not honest, tell its owner",
            )
        try:
            manifest = parse_manifest(data)
            # At the time 0 no signature is too old: the core judges that for itself.
            signers = signers_of(data, signatures or None, 0)
        except ImageRefused as error:
            raise ImageTrouble("image", str(error)) from None
        store = await asyncio.to_thread(self._store)
        for blob in await asyncio.to_thread(store.missing_blobs, manifest):
            partial = await asyncio.to_thread(store.open_partial, blob, wait=BUSY)
            try:
                await Fetch(image, manifest, blob, partial, self._questions).run()
                await asyncio.to_thread(partial.seal)
            finally:
                await asyncio.to_thread(partial.close)
        await asyncio.to_thread(store.add_image, data, signatures or None)
        return ImageFacts(image, signers, tuple(manifest.runtimes), manifest.not_after)

    # --- unpacking ------------------------------------------------------------------------------

    async def fetch(self, image: str) -> None:
        """Have the image here. Raises ImageTrouble or ImageRefused."""
        await self._fetch(image)

    def unpack_named(self, image: str, name: str, target: Path) -> None:
        """Unpack the image, which must have this name, as the new directory ``target``. Blocks.
        Raises ImageTrouble, ImageRefused, UsageError or OSError."""
        from guactors.images.unpack import unpack_image

        store = self._store()
        with store.pin(image):
            if store.get(image).manifest.name != name:
                # Whether an image may be run is judged where one is run, and not here.
                raise ImageTrouble("image", f"{image} is an image, and no archive of files")
            unpack_image(store, image, target)

    async def _prepare(self, worker: str, image: str, *, unpack: bool) -> None:
        try:
            pin, root = await asyncio.to_thread(self._place, worker, image, unpack=unpack)
        except ImageTrouble as trouble:
            self._tell(RootFailed(worker, trouble.reason, trouble.detail))
        except ImageRefused as error:
            self._tell(RootFailed(worker, "image", str(error)))
        except (UsageError, OSError) as error:
            self._tell(RootFailed(worker, "failed", str(error)))
        else:
            self._pins[worker] = pin
            self._tell(RootReady(worker, str(root)))
        finally:
            self._preparing.pop(worker, None)

    def _place(self, worker: str, image: str, *, unpack: bool) -> tuple[Pin, Path]:
        """In a thread."""
        from guactors.images.unpack import unpack_image

        store = self._store()
        root = private_directory(self._roots) / worker if unpack else self._directory
        if not store.has(image):
            raise ImageTrouble("gone", f"the image {image} had to make room for another one")
        pin = store.pin(image)
        try:
            if unpack:
                unpack_image(store, image, root)
        except BaseException:
            pin.close()
            raise
        return pin, root

    async def _remove(self, worker: str) -> None:
        preparing = self._preparing.get(worker)
        if preparing is not None:
            await asyncio.wait((preparing,))
        await asyncio.to_thread(remove_tree, self._roots / worker)
        pin = self._pins.pop(worker, None)
        if pin is not None:
            pin.close()


def remove_tree(path: Path) -> None:
    """Remove an unpacked image, whose directories may be closed even to their owner."""
    try:
        os.chmod(path, stat.S_IRWXU)
        for where, directories, _ in os.walk(path):
            for name in directories:
                inner = os.path.join(where, name)
                if not os.path.islink(inner):
                    os.chmod(inner, stat.S_IRWXU)
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s cannot be removed: %s", path, error)
