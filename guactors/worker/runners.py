"""On which thread, or in which loop, calls run.

Owns: the three ways: one at a time on the main thread (tasks and plain actors), on several threads
(``max_concurrency``), as coroutines on one loop (async actors). Must never: touch a socket except
through the worker.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time

from types import FrameType
from typing import TYPE_CHECKING, Any

from guactors import values
from guactors.context import Place, running, set_place
from guactors.errors import CallTimeout
from guactors.messages import LoadActor, RefWord, Reply, StreamItem
from guactors.payload import decode_payload
from guactors.refs import current_session
from guactors.worker import execution
from guactors.worker.execution import Interrupted, Outcome
from guactors.worker.intake import Item
from guactors.worker.outbox import QUICK

if TYPE_CHECKING:
    from guactors.worker.process import Worker

NAP = 5.0
RETRY = 0.002
"""Seconds until an interrupt that came at a bad moment is tried again."""


class Borrowed:
    """The references that came with a call, held until it has ended."""

    def __init__(self, item: Item) -> None:
        call = item.call
        words: list[RefWord] = list(call.refs)
        for dep in call.deps:
            words.extend(dep.refs)
        self._words = words
        self._link = item.link

    def __enter__(self) -> None:
        if self._words:
            self._session = current_session()
            assert self._session is not None
            with self._session.lock:
                self._ids = self._session.core.objects.borrow(self._words, self._link)

    def __exit__(self, *exc: object) -> None:
        if self._words and self._session is not None:
            self._session.released.extend(self._ids)
            self._session.settle_releases()


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
        while True:
            with lock:
                item = worker.next_item(monotonic())
                if item is None:
                    worker.flush()
            if worker.for_session:
                worker.serve_session()
            if item is not None:
                self._execute(item)
            elif worker.to_load is not None:
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
        self._current = None
        with worker.lock:
            worker.finish(item, reply, buffers, began)
        self._pace[pace_key] = time.monotonic() - began

    def _run(self, item: Item, name: str, now: float) -> Outcome:
        call = item.call
        if item.expires and now >= item.expires:
            late = CallTimeout(f"{name} was still queued when its timeout passed; it never ran")
            return execution.failure(item, late, name)
        running.set(item)
        self._current = item
        if call.refs or call.deps:
            with Borrowed(item):
                return self._call(item, name)
        return self._call(item, name)

    def _call(self, item: Item, name: str) -> Outcome:
        call = item.call
        try:
            function = self._worker.code.find(call)
            args, kwargs = execution.arguments(item)
            result = function(*args, **kwargs)
            if call.returns < 0:
                for index, part in enumerate(_iterate(result, name)):
                    send_item(self._worker, item, index, part, name)
                return Reply(call.id, [], call.attempt), ()
        except SystemExit as error:
            self._worker.exit_status = error.code if isinstance(error.code, int) else 1
            self._worker.leaving = True
            return execution.failure(item, error, name)
        except BaseException as error:
            return execution.failure(item, error, name)
        finally:
            self._current = None
        return execution.success(item, result, name, self._worker.lend)

    def cancel(self, link: str, call: int, *, timeout: bool) -> bool:
        """Interrupt the running task, or flag the running actor call. Any thread."""
        item = self._current
        if item is None or item.link != link or item.call.id != call:
            return False
        item.timed_out = timeout
        item.cancelled = True
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

    def wake(self) -> None:
        """The worker is leaving; the poller was woken already."""


def _install_interrupt(runner: SyncRunner) -> None:
    import signal

    if threading.current_thread() is not threading.main_thread():
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not runner.interrupted():
            return
        if _interruptible(frame):
            raise Interrupted
        runner.interrupt_later()

    signal.signal(signal.SIGINT, on_signal)


_WAITS = frozenset({"wait", "_wait"})
"""Where user code that called back into this package may be interrupted: asleep, holding nothing."""


def _interruptible(frame: FrameType | None) -> bool:
    """Whether the main thread is in the user's own code, or asleep on its behalf: an exception in
    the middle of a send would cut a message in half."""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == __name__:
            return True
        if module.startswith("guactors."):
            return frame.f_code.co_name in _WAITS
        frame = frame.f_back
    return False


def _iterate(result: Any, name: str) -> Any:
    if hasattr(result, "__iter__"):
        return result
    raise TypeError(f"{name} streams, but returned {type(result).__name__}, which is no iterator")


def send_item(worker: Worker, item: Item, index: int, part: Any, name: str) -> None:
    """One item of a stream to its reader."""
    packed = values.pack(part, lambda: f"item {index} of {name}")
    value = execution.to_value(packed, item.link, worker.lend)
    worker.stream(item.link, StreamItem(item.call.id, index, value), packed.buffers)


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
        )  # fmt: skip
    )
    name = f"{message.spec.class_name}()"
    if _is_async(message):
        return AsyncRunner(worker, message, name)
    try:
        worker.code.instance = build(message, name)
    except BaseException as error:
        worker.loaded(values.pack_error(error, name))
        return worker.runner
    worker.loaded(b"")
    if message.spec.max_concurrency > 1:
        return ThreadRunner(worker, message.spec.max_concurrency)
    return worker.runner


def _is_async(message: LoadActor) -> bool:
    from guactors.remote_actor import is_async_class

    try:
        cls = values.unpack(decode_payload(message.payload).cls)
    except Exception:
        return False  # building it will say what is wrong
    return isinstance(cls, type) and is_async_class(cls)


def build(message: LoadActor, name: str) -> Any:
    """Open the class and run the constructor. Raises whatever that raises."""
    payload = decode_payload(message.payload)
    cls = execution.open_code(payload.cls, name)
    deps = [values.unpack(raw.data, raw.buffers) for raw in payload.deps]
    args, kwargs = values.unpack_arguments(payload.args, payload.buffers, deps)
    return cls(*args, **kwargs)


class ThreadRunner:
    """Several calls at a time, each on a thread of a fixed set. The main thread only receives."""

    hosts = False

    def __init__(self, worker: Worker, threads: int) -> None:
        self._worker = worker
        self._arrived = threading.Condition(worker.lock)
        self._running: dict[tuple[str, int], Item] = {}
        self._threads = [
            threading.Thread(target=self._serve, name=f"guactors-call-{i}", daemon=True)
            for i in range(threads)
        ]
        worker.runner = self

    def run(self) -> None:
        """Receive until told to leave, then wait for the calls that run."""
        worker = self._worker
        for thread in self._threads:
            thread.start()
        while not worker.leaving:
            with worker.lock:
                worker.drain(time.monotonic())
                waiting = len(worker.intake.mailbox)
                if waiting:
                    self._arrived.notify(waiting)
            worker.serve_session()
            worker.poller.wait(NAP)
        with worker.lock:
            self._arrived.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        worker = self._worker
        while True:
            with worker.lock:
                item = worker.intake.mailbox.take()
                while item is None and not worker.leaving:
                    self._arrived.wait()
                    item = worker.intake.mailbox.take()
                if item is None:
                    return
                self._running[item.link, item.call.id] = item
            name = worker.code.name(item.call)
            reply, buffers = self._run(item, name)
            with worker.lock:
                del self._running[item.link, item.call.id]
                worker.outbox.add(item.link, reply, buffers, time.monotonic())
                worker.flush()
            # The send may have consumed the signal of an arrival.
            worker.poller.wake()

    def _run(self, item: Item, name: str) -> Outcome:
        call = item.call
        if item.expires and time.monotonic() >= item.expires:
            late = CallTimeout(f"{name} was still queued when its timeout passed; it never ran")
            return execution.failure(item, late, name)
        execution.enter(item, name)
        try:
            with Borrowed(item):
                function = self._worker.code.find(call)
                args, kwargs = execution.arguments(item)
                result = function(*args, **kwargs)
                if call.returns < 0:
                    for index, part in enumerate(_iterate(result, name)):
                        send_item(self._worker, item, index, part, name)
                    return Reply(call.id, [], call.attempt), ()
                return execution.success(item, result, name, self._worker.lend)
        except BaseException as error:
            return execution.failure(item, error, name)

    def cancel(self, link: str, call: int, *, timeout: bool) -> bool:
        """Flag the running call; a thread cannot be interrupted. The worker's lock is held."""
        item = self._running.get((link, call))
        if item is None:
            return False
        item.timed_out = timeout
        item.cancelled = True
        return True

    def wake(self) -> None:
        """The worker is leaving; the poller was woken already."""


class AsyncRunner:
    """Calls as coroutines on one event loop, at most ``max_concurrency`` at a time."""

    hosts = False

    def __init__(self, worker: Worker, message: LoadActor, name: str) -> None:
        self._worker = worker
        self._message = message
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[tuple[str, int], tuple[Item, asyncio.Task[None]]] = {}
        self._most = message.spec.max_concurrency or 1000
        self._flushing = False
        self._done: asyncio.Event | None = None
        worker.runner = self

    def run(self) -> None:
        """Build the actor on the loop, then serve until told to leave."""
        asyncio.run(self._main())

    async def _main(self) -> None:
        worker = self._worker
        loop = self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        try:
            # On the loop, because constructors make locks and tasks.
            worker.code.instance = build(self._message, self._name)
        except BaseException as error:
            worker.loaded(values.pack_error(error, self._name))
        else:
            worker.loaded(b"")
        for fd in worker.data_fds:
            loop.add_reader(fd, self._receive)
        self._receive()
        while not (worker.leaving and not self._tasks):
            await self._done.wait()
            self._done.clear()

    def _receive(self) -> None:
        worker = self._worker
        items: list[Item] = []
        with worker.lock:
            worker.drain(time.monotonic())
            while len(self._tasks) + len(items) < self._most:
                item = worker.intake.mailbox.take()
                if item is None:
                    break
                items.append(item)
        worker.serve_session()
        assert self._loop is not None
        for item in items:
            task = self._loop.create_task(self._serve(item))
            self._tasks[item.link, item.call.id] = (item, task)

    async def _serve(self, item: Item) -> None:
        worker = self._worker
        name = worker.code.name(item.call)
        try:
            reply, buffers = await self._run(item, name)
        except asyncio.CancelledError:
            reply, buffers = execution.failure(
                item, execution.ended_early(item, name), name
            )
        with worker.lock:
            worker.outbox.add(item.link, reply, buffers, time.monotonic())
        del self._tasks[item.link, item.call.id]
        if not self._flushing:
            self._flushing = True
            assert self._loop is not None
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        with self._worker.lock:
            self._worker.flush()
        # The send may have consumed the signal of an arrival, and calls may wait for a place.
        self._receive()
        if self._worker.leaving and self._done is not None:
            self._done.set()

    async def _run(self, item: Item, name: str) -> Outcome:
        call = item.call
        if item.expires and time.monotonic() >= item.expires:
            late = CallTimeout(f"{name} was still queued when its timeout passed; it never ran")
            return execution.failure(item, late, name)
        execution.enter(item, name)
        try:
            with Borrowed(item):
                function = self._worker.code.find(call)
                args, kwargs = execution.arguments(item)
                result = function(*args, **kwargs)
                if call.returns < 0:
                    await self._stream(item, result, name)
                    return Reply(call.id, [], call.attempt), ()
                if inspect.isawaitable(result):
                    result = await result
                return execution.success(item, result, name, self._worker.lend)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return execution.failure(item, error, name)

    async def _stream(self, item: Item, result: Any, name: str) -> None:
        index = 0
        if hasattr(result, "__aiter__"):
            async for part in result:
                send_item(self._worker, item, index, part, name)
                index += 1
            return
        for part in _iterate(result, name):
            send_item(self._worker, item, index, part, name)
            index += 1
            await asyncio.sleep(0)

    def cancel(self, link: str, call: int, *, timeout: bool) -> bool:
        """Cancel the coroutine. Any thread."""
        found = self._tasks.get((link, call))
        if found is None or self._loop is None:
            return False
        item, task = found
        item.timed_out = timeout
        item.cancelled = True
        self._loop.call_soon_threadsafe(task.cancel)
        return True

    def wake(self) -> None:
        """The worker is leaving."""
        if self._loop is not None and self._done is not None:
            self._loop.call_soon_threadsafe(self._done.set)


Runner = SyncRunner | ThreadRunner | AsyncRunner
