"""What happens to the worker while its main thread waits in ``get``.

Owns: the hooks between the session's pump and the worker. While the main thread waits it also
serves the data lane, so that values it waits for can arrive there.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from guactors.session import Session

if TYPE_CHECKING:
    from guactors.worker.process import Worker


class BlockingHost:
    """Implements ``pump.Host``."""

    session: Session

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._depth = 0
        self._told = False

    def entering(self) -> bool:
        if threading.get_ident() != self._worker.main_thread or not self._worker.runner.hosts:
            return False
        self._depth += 1
        if self._depth == 1:
            self.session.watch_host(self._worker.data_fds)
        return True

    def blocking(self) -> None:
        if not self._told:
            self._told = True
            self._worker.bouncing.set_blocked(True)

    def serve(self) -> None:
        """Called by the session's service while the main thread waits."""
        if self._depth:
            with self._worker.lock:
                self._worker.drain(time.monotonic())
            self._worker.serve_session()

    def leaving(self) -> None:
        self._depth -= 1
        if self._depth:
            return
        self.session.unwatch_host(self._worker.data_fds)
        if self._told:
            self._told = False
            self._worker.bouncing.set_blocked(False)
