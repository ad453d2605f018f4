"""An actor system on a loop of its own, in a thread of its own, for programs without asyncio.

Owns: that thread and its loop. Must never: know anything of actors.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guactors.actors.system import ActorSystem


@contextmanager
def system_in_thread(system: ActorSystem) -> Iterator[ActorSystem]:
    """Start ``system`` on a new thread's loop; shut it down and join the thread on leaving."""
    started: concurrent.futures.Future[asyncio.Event] = concurrent.futures.Future()

    async def live() -> None:
        leave = asyncio.Event()
        async with system:
            started.set_result(leave)
            await leave.wait()

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    # A daemon: an interrupted program must not hang in its own exit.
    thread = threading.Thread(target=run, name=f"actors {system.name}", daemon=True)
    thread.start()
    leave = started.result()
    try:
        yield system
    finally:
        system.loop.call_soon_threadsafe(leave.set)
        thread.join()
