"""The shell of the images in the hub process: its room, and the threads of the disk.

Owns: the threads in which jobs for the disk are done, so that the hub's loop serves everybody else
meanwhile. Must never: decide (:class:`guactors.image_state.ImageRoom` does), or load anything of
images before somebody asks about one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from guactors.actors import ActorRef
from guactors.actors.supervision import Cause
from guactors.config import HubConfig
from guactors.errors import ActorDied, GuactorsError, ImageRefused, InternalError
from guactors.room_actor import RoomActor, Tick, epoch_seconds
from guactors.scheduling import events as e

if TYPE_CHECKING:
    from guactors.image_state import ImageRoom
    from guactors.image_state.jobs import Do, Job
    from guactors.images.serving import ImageServing

THREADS: Final = 4
LAST_JOBS: Final = 5.0
"""Seconds that running jobs are given when the hub ends."""

log = logging.getLogger("guactors.hub")


class ImageActor(RoomActor):
    """Images, if the hub has a place to keep them."""

    def __init__(self, hub: ActorRef, config: HubConfig) -> None:
        super().__init__()
        self.hub = hub
        self._config = config
        self._place = config.data or config.spool
        self._room: ImageRoom | None = None
        self._revoked: e.RevocationsAre | None = None
        self._serving: ImageServing | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._jobs: set[Future[object]] = set()

    def on_start(self) -> None:
        """Nothing to wait for before the first question."""

    async def on_stop(self, _cause: Cause) -> None:
        """Have the disk know what came. Jobs that do not end in time end with the process."""
        if self._threads is None or self._room is None:
            return
        self._threads.shutdown(wait=False, cancel_futures=True)
        running = [asyncio.wrap_future(job) for job in list(self._jobs)]
        if running:
            _, late = await asyncio.wait(running, timeout=LAST_JOBS)
            if late:
                log.warning("%d jobs of the image store did not end in time", len(late))
                return
        for job in self._room.stop():
            self._do(job)
        if self._serving is not None:
            self._serving.close()

    def receive(self, message: Any) -> None:
        """What was revoked before the first question waits for the room: the newest list has
        all."""
        if self._room is None and isinstance(message, e.RevocationsAre):
            self._revoked = message
        else:
            super().receive(message)

    def think(self, message: e.Event | Tick, now: float) -> list[e.Effect]:
        """The room is made with the first question."""
        if self._room is None:
            from guactors.image_state import ImageRoom

            self.room = self._room = ImageRoom(epoch_seconds, keeps=bool(self._place))
            if self._revoked is not None:
                self._room.handle(self._revoked, now)
        return super().think(message, now)

    def carry(self, effects: list[e.Effect], now: float) -> None:
        """Jobs go to the threads, all else to the hub."""
        if not self._place:
            super().carry(effects, now)
            return
        from guactors.image_state.jobs import Do

        for effect in effects:
            if isinstance(effect, Do):
                self._start(effect)
        super().carry([effect for effect in effects if not isinstance(effect, Do)], now)

    def _start(self, todo: Do) -> None:
        from guactors.image_state.jobs import Did

        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gu-images")
        me = self.context.self_ref

        def done(future: Future[object]) -> None:
            self._jobs.discard(future)
            if not future.cancelled():
                with suppress(ActorDied):  # the hub ends
                    me.tell(Did(todo.ticket, future.result()))

        future = self._threads.submit(self._do, todo.job)
        self._jobs.add(future)
        future.add_done_callback(done)

    def _do(self, job: Job) -> object:
        """In a thread: the outcome, which may be an error."""
        try:
            return self._open().do(job)
        except GuactorsError as error:
            log.info("%s: %s", type(job).__name__, error)
            return error
        except OSError as error:
            log.exception("the image store failed")
            return ImageRefused(f"the hub's image store failed: {error}")
        except Exception as error:
            # Nobody's image may end the hub; whoever sent it learns of the bug, and so do we.
            log.exception("a job of the image store failed")
            return InternalError(f"the hub's image store failed: {error!r}; please report this")

    def _open(self) -> ImageServing:
        """The first job is alone, so no two threads open it."""
        if self._serving is None:
            from guactors.images.serving import ImageServing

            config = self._config
            self._serving = ImageServing(Path(self._place), quota=config.image_quota, now=time.time)
        return self._serving
