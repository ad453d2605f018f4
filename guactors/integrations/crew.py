"""A queue of calls that leaves for the grid a few at a time: what executors and pools are made of.

Owns: the jobs that wait, those that are out, and one thread that takes in what came back. Users'
callbacks run on that thread, never on one that serves a socket. Must never: know what a job means
to its user, or leave a job without an end: each is settled with a value or an error.
"""

from __future__ import annotations

import atexit
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future
from typing import Any, Final, Protocol

import guactors as gu
from guactors.errors import SessionClosed, TaskCancelled, TaskError
from guactors.integrations.places import LOOK_AGAIN, Places, grid_here
from guactors.integrations.window import Window

Settle = Callable[[Any, BaseException | None], None]
HANDED_OVER = 0.0005
"""Seconds that the crew's thread gets to settle a job whose answer is here."""

_exiting = False


class InitializerFailed(BrokenExecutor):
    """The initializer raised; nothing can run. Its error is the cause."""


class Job:
    """One call: ``function(*args, **kwargs)``, and ``settle(value, error)`` for its outcome.
    ``ref`` is there while the call is out."""

    __slots__ = ("_claims", "args", "began", "function", "kwargs", "ref")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        settle: Settle,
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self._claims = [settle]
        self.ref: gu.ObjectRef | None = None
        self.began = 0.0

    @property
    def open(self) -> bool:
        """Whether nobody has ended it yet."""
        return bool(self._claims)

    def claim(self) -> Settle | None:
        """The right to tell the outcome: the first who asks has it, in whatever thread."""
        self.args, self.kwargs = (), {}
        try:
            return self._claims.pop()
        except IndexError:
            return None

    def end(self, value: Any, error: BaseException | None) -> None:
        """Settle it, unless somebody has."""
        settle = self.claim()
        if settle is not None:
            settle(value, error)


class Hands(Protocol):
    """Who carries the calls out."""

    interruptible: bool
    """Whether a call that runs can be ended without ending its process."""

    def start(self, job: Job) -> gu.ObjectRef:
        """Send the call off."""

    def ended(self, job: Job, error: BaseException | None) -> None:
        """Its answer is here."""

    def dismiss(self, *, now: bool) -> None:
        """No more calls; ``now``: end what still runs."""


def plain_error(error: BaseException) -> BaseException:
    """What the user's code raised, as that very type, with the remote traceback as its cause; other
    errors as they are."""
    if isinstance(error, TaskError) and error.cause is not None:
        cause = error.cause
        cause.__cause__ = error
        return cause
    return error


class Crew:
    """Jobs in, outcomes out, at most ``window.limit`` of them on the grid at a time. With
    ``places`` the window grows as the grid does."""

    def __init__(
        self, name: str, hands: Hands, window: Window, places: Places | None = None
    ) -> None:
        self._hands = hands
        self._window = window
        self._places = places
        # Reentrant, because a collector that runs within it may meet an executor, and close it.
        self._lock = threading.RLock()
        self._waiting: deque[Job] = deque()
        self._out: set[Job] = set()
        self._inbox: queue.SimpleQueue[tuple[Job, Future[Any]] | Job | None] = queue.SimpleQueue()
        self._closing = False
        self._broken: BaseException | None = None
        self._name = name
        self._thread: threading.Thread | None = None
        self.in_worker: Final = gu.get_runtime_context().get_worker_id() is not None
        self._grid = grid_here()
        # After init(), so that it runs before the grid is left.
        atexit.register(self._at_exit)

    # --- users' threads ---------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Take a job. Raises RuntimeError after ``close``, BrokenExecutor after a failed
        initializer."""
        with self._lock:
            if self._broken is not None:
                raise InitializerFailed("the initializer failed, nothing can run") from self._broken
            if _exiting:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if self._closing:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"guactors-{self._name}", daemon=True
                )
                self._thread.start()
            self._waiting.append(job)
            failed = self._start_what_fits()
        for one, error in failed:
            one.end(None, error)

    @property
    def interruptible(self) -> bool:
        """Whether a call that runs can be ended."""
        return self._hands.interruptible

    def cancel(self, job: Job) -> None:
        """Give up a job that was claimed: one that waits is skipped, one that runs is ended where
        that is possible. It leaves a note only, so that a collector may call it at any point."""
        self._inbox.put(job)

    def wait(self, jobs: Sequence[Job], timeout: float | None) -> None:
        """Inside a worker: until one of ``jobs`` has ended, or ``timeout`` seconds are over. It
        waits as ``gu.wait`` does, so that the processor is free for the jobs meanwhile. Elsewhere
        it returns at once: whoever waits may just sleep."""
        if not self.in_worker:
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        while jobs and all(job.open for job in jobs):
            refs = [job.ref for job in jobs if job.ref is not None]
            if not refs:
                with self._lock:
                    refs = [job.ref for job in self._out if job.ref is not None]
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if refs:
                gu.wait(refs, num_returns=1, timeout=left)
            if left == 0.0:
                return
            time.sleep(HANDED_OVER)

    def close(self, *, drop_waiting: bool = False) -> list[Job]:
        """Take no more jobs. The jobs that were dropped are the caller's to end."""
        with self._lock:
            self._closing = True
            dropped = list(self._waiting) if drop_waiting else []
            if drop_waiting:
                self._waiting.clear()
        self._inbox.put(None)
        if self._thread is None:
            self._finish()
        return dropped

    def join(self) -> None:
        """After ``close``: wait until every job has ended."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        if self.in_worker:
            while thread.is_alive():
                with self._lock:
                    refs = [job.ref for job in self._out if job.ref is not None]
                if refs:
                    gu.wait(refs, num_returns=1)
                thread.join(HANDED_OVER)
        thread.join()

    def terminate(self) -> None:
        """End everything: jobs that wait or run end with TaskCancelled."""
        dropped = self.close(drop_waiting=True)
        with self._lock:
            dropped += self._out
        error = TaskCancelled(f"{self._name} was terminated")
        for job in dropped:
            ref = job.ref
            job.end(None, error)
            if ref is not None and self._hands.interruptible:
                gu.cancel(ref)
        self._hands.dismiss(now=True)

    # --- starting, with the lock held -------------------------------------------------------------

    def _start_what_fits(self) -> list[tuple[Job, BaseException]]:
        failed: list[tuple[Job, BaseException]] = []
        if self._waiting and grid_here() != self._grid:
            left = SessionClosed(f"the grid that this {self._name} began on was left")
            failed = [(job, left) for job in self._waiting]
            self._waiting.clear()
        limit = self._window.limit
        while self._waiting and len(self._out) < limit:
            job = self._waiting.popleft()
            if not job.open:
                continue
            try:
                self._send(job)
            except Exception as error:  # noqa: BLE001 - what pickling raises is the job's outcome
                failed.append((job, error))
        return failed

    def _send(self, job: Job) -> None:
        job.began = time.monotonic()
        job.ref = ref = self._hands.start(job)
        job.args, job.kwargs = (), {}
        self._out.add(job)
        put = self._inbox.put
        ref.future().add_done_callback(lambda future: put((job, future)))

    # --- the crew's thread ------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._take_in()
            with self._lock:
                failed = self._start_what_fits()
                over = self._closing and not self._waiting and not self._out
            for job, error in failed:
                job.end(None, error)
            if over:
                self._finish()
                return

    def _take_in(self) -> None:
        """Wait for answers and settle all that are here. What it holds ends with it, so that an
        idle crew keeps nothing alive."""
        places = self._places if self._waiting else None
        try:
            news = self._inbox.get(timeout=LOOK_AGAIN if places else None)
        except queue.Empty:
            news = None
        if places is not None:
            places.look_again(self._on_grown)
        while news is not None:
            if isinstance(news, tuple):
                self._on_answer(*news)
            elif news.ref is not None and self._hands.interruptible:
                gu.cancel(news.ref)
            try:
                news = self._inbox.get_nowait()
            except queue.Empty:
                return

    def _on_grown(self) -> None:
        assert self._places is not None
        self._window.places = self._places.count
        self._inbox.put(None)

    def _on_answer(self, job: Job, future: Future[Any]) -> None:
        error = future.exception()
        with self._lock:
            self._out.discard(job)
            self._window.on_answer(time.monotonic() - job.began, starved=bool(self._waiting))
        job.ref = None
        self._hands.ended(job, error)
        if error is not None:
            error = plain_error(error)
            if isinstance(error, InitializerFailed):
                self._break(error)
            job.end(None, error)
        else:
            job.end(future.result(), None)

    def _break(self, error: BaseException) -> None:
        with self._lock:
            self._broken = error
            dropped = list(self._waiting)
            self._waiting.clear()
        for job in dropped:
            job.end(None, InitializerFailed("the initializer failed, nothing can run"))

    def _finish(self) -> None:
        self._hands.dismiss(now=False)
        atexit.unregister(self._at_exit)

    def _at_exit(self) -> None:
        global _exiting  # noqa: PLW0603 - one interpreter, one end
        _exiting = True
        self.close()
        self.join()
