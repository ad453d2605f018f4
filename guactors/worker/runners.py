"""One call at a time on the main thread: tasks and plain actors; and the choice of another runner.

Owns: the hot loop of a worker, and the interruption of a running task. Must never: touch a socket
except through the worker.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from guactors import values
from guactors.context import ActorExit, Place, is_leaving, present_place, running, set_place
from guactors.messages import LoadActor
from guactors.payload import DEPLOYMENT, decode_payload
from guactors.worker import execution
from guactors.worker.async_runner import AsyncRunner
from guactors.worker.binding import unbind_code
from guactors.worker.execution import Interrupted, Outcome
from guactors.worker.intake import DRAIN_EVERY, Item
from guactors.worker.outbox import QUICK
from guactors.worker.serving import Borrowed, answer, open_actor
from guactors.worker.thread_runner import ThreadRunner

if TYPE_CHECKING:
    from guactors.worker.enclosed import Enclosed
    from guactors.worker.process import Worker

NAP = 5.0
RETRY = 0.002
"""Seconds until an interrupt that came at a bad moment is tried again."""


class SyncRunner:
    """One call at a time on the main thread. Becomes another runner when an actor that needs one
    is loaded: ``run`` returns what runs next, None at the end."""

    hosts = True
    """Whether a get() on the main thread must serve the data lane meanwhile."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._current: Item | None = None
        self._pace: dict[object, float] = {}
        worker.runner = self
        _install_interrupt(self)

    def run(self) -> Any:
        worker = self._worker
        lock, poller = worker.lock, worker.poller
        monotonic = time.monotonic
        glanced = 0.0
        while True:
            now = monotonic()
            if now - glanced > DRAIN_EVERY and worker.intake.mailbox:
                glanced = now
                worker.control.glance()
            with lock:
                item = worker.next_item(now)
                if item is None:
                    worker.flush()
            if worker.for_session:
                worker.serve_session()
            if worker.exiting:
                return None
            if item is not None:
                self._execute(item)
            elif worker.to_load is not None and worker.session_id:
                following = load_actor(worker)
                if following is not self:
                    return following
            elif worker.leaving:
                return None
            else:
                poller.wait(NAP)

    def _execute(self, item: Item) -> None:
        worker = self._worker
        call = item.call
        began = time.monotonic()
        pace_key = call.fn or call.method
        if worker.outbox.count:
            if self._pace.get(pace_key, 1.0) > QUICK:
                with worker.lock:
                    worker.flush()
            else:
                worker.control.watch_outbox()
        name = item.name = worker.code.name(call)
        try:
            reply, buffers = self._run(item, name, began)
        except Interrupted as error:
            # The interrupt came a moment after the user's code had ended.
            reply, buffers = execution.failure(item, error, name)
        except ActorExit:
            worker.exit_actor()
            return
        self._current = None
        now = time.monotonic()
        with worker.lock:
            worker.finish(item, reply, buffers, now, began)
        if worker.code.runs_left and worker.code.wear(call.fn):
            worker.bouncing.retire()
        self._pace[pace_key] = now - began

    def _run(self, item: Item, name: str, now: float) -> Outcome:
        call = item.call
        if item.expires and now >= item.expires:
            return execution.too_late(item, name)
        running.set(item)
        self._current = item
        if call.refs or call.deps:
            with Borrowed(item):
                return self._call(item, name)
        return self._call(item, name)

    def _call(self, item: Item, name: str) -> Outcome:
        try:
            return answer(self._worker, item, name)
        except ActorExit:
            raise
        except SystemExit as error:
            if is_leaving():
                raise ActorExit(0) from None
            self._worker.exit_status = error.code if isinstance(error.code, int) else 1
            self._worker.leaving = True
            return execution.failure(item, error, name)
        except BaseException as error:
            return execution.failure(item, error, name)
        finally:
            self._current = None

    def cancel(self, link: str, call: int, *, timeout: bool) -> bool:
        """Interrupt the running task, or flag the running actor call. Any thread."""
        item = self._current
        if item is None or item.link != link or item.call.id != call:
            return False
        item.timed_out = timeout
        item.cancelled = True
        self._worker.brakes.on_cancelled(link, call)
        if item.call.fn:
            self._worker.control.interrupt_main()
        return True

    def interrupted(self) -> bool:
        """Whether the running call is to be interrupted now."""
        item = self._current
        return item is not None and item.cancelled and bool(item.call.fn)

    def interrupt_later(self) -> None:
        """The running call was in the middle of our own code: try again in a moment."""
        timer = threading.Timer(RETRY, self._worker.control.interrupt_main)
        timer.daemon = True
        timer.start()

    def calls_of(self, link: str) -> list[int]:
        """Calls of this caller that run. Any thread."""
        item = self._current
        return [item.call.id] if item is not None and item.link == link else []

    def coroutines(self) -> list[tuple[str, Any]]:
        """None run here."""
        return []

    def wake(self) -> None:
        """The worker is leaving; the poller was woken already."""


def _install_interrupt(runner: SyncRunner) -> None:
    import signal

    if threading.current_thread() is not threading.main_thread():
        return

    def on_signal(_number: int, frame: FrameType | None) -> None:
        if not runner.interrupted():
            return
        if _interruptible(frame):
            raise Interrupted
        runner.interrupt_later()

    signal.signal(signal.SIGINT, on_signal)


_CALLERS = frozenset({execution.start.__code__, answer.__code__})
"""Where the user's code is called from."""
_WAITS = frozenset({"wait", "_wait"})
"""Where user code that called back into this package may be interrupted: asleep, holding
nothing."""
_OUTSIDE = ("guactors.integrations.", "guactors.util.")
"""Rooms of this package that are to the rest of it what user code is."""


def _interruptible(frame: FrameType | None) -> bool:
    """Whether the main thread is in the user's own code, or asleep on its behalf: an exception in
    the middle of a send would cut a message in half."""
    while frame is not None:
        if frame.f_code in _CALLERS:
            return True
        module = frame.f_globals.get("__name__", "")
        if module.startswith("guactors.") and not module.startswith(_OUTSIDE):
            return frame.f_code.co_name in _WAITS
        frame = frame.f_back
    return False


def load_actor(worker: Worker) -> Any:
    """Become the actor that the provider sent; the runner that is to serve it."""
    message, worker.to_load = worker.to_load, None
    assert message is not None
    worker.spec = message.spec
    set_place(
        Place(
            worker.config.provider,
            worker.config.worker,
            message.spec.actor,
            message.spec.name,
            message.incarnation,
            worker.config.labels,
            message.spec.handle,
        ),
        worker.callers,
    )
    name = f"{message.spec.class_name}()"
    if worker.code.enclosed is not None:
        if decode_payload(message.payload).cls != DEPLOYMENT:
            return _load_enclosed(worker, worker.code.enclosed, message)
        # It keeps an instance of its own, and no code of the session comes.
        unbind_code(worker.code)
    try:
        actor = open_actor(worker, message)
        groups = actor.payload.groups
        with worker.lock:
            worker.intake.divide(groups)
        if actor.is_async:
            set_place(replace(present_place(), asynchronous=True), worker.callers)
            return AsyncRunner(worker, message, actor, name)
        worker.code.instance = actor.build()
    except BaseException as error:
        worker.loaded(values.pack_error(error, name))
        return worker.runner
    worker.loaded(b"")
    if message.spec.max_concurrency > 1 or groups:
        return ThreadRunner(worker, max(1, message.spec.max_concurrency), groups)
    return worker.runner


def _load_enclosed(worker: Worker, enclosed: Enclosed, message: LoadActor) -> Any:
    """As above, for an actor whose code runs in an instance."""
    from guactors.worker.enclosed import NotBuilt

    groups = decode_payload(message.payload).groups
    try:
        with worker.lock:
            worker.intake.divide(groups)
        threads = enclosed.load(message)
    except NotBuilt as error:
        worker.loaded(error.data)
        return worker.runner
    except BaseException as error:
        worker.loaded(values.pack_error(error, f"{message.spec.class_name}()"))
        return worker.runner
    worker.code.label = message.spec.class_name
    worker.loaded(b"")
    if threads > 1 or groups:
        return ThreadRunner(worker, threads, groups)
    return worker.runner


Runner = SyncRunner | ThreadRunner | AsyncRunner
