"""What every runner does with a call: references that came with it, its run from start to reply,
items of its stream, and the building of an actor.

Owns: these four. Must never: choose a thread (``runners`` do).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from guactors import values
from guactors.actor_making import settle_in
from guactors.errors import TaskCancelled
from guactors.messages import LoadActor, RefWord, Reply, StreamItem
from guactors.payload import PROGRAM, ActorPayload, decode_payload
from guactors.refs import current_session
from guactors.worker import execution
from guactors.worker.backpressure import Pause
from guactors.worker.execution import Outcome
from guactors.worker.intake import Item

if TYPE_CHECKING:
    from guactors.worker.process import Worker


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


def answer(worker: Worker, item: Item, name: str) -> Outcome:
    """Run a call to its end on this thread. Raises what the user's code raises."""
    call = item.call
    if worker.code.enclosed is not None and call.fn != PROGRAM:
        return worker.code.enclosed.answer(item, name)
    result = execution.start(worker.code, item)
    if call.returns >= 0:
        return execution.success(item, result, name, worker)
    if call.window:
        with Pause(worker, item, name) as pause:
            for index, part in enumerate(iterate(result, name)):
                send_item(worker, item, index, part, name)
                pause.after(index + 1)
        return Reply(call.id, [], call.attempt), ()
    for index, part in enumerate(iterate(result, name)):
        send_item(worker, item, index, part, name)
    return Reply(call.id, [], call.attempt), ()


def iterate(result: Any, name: str) -> Any:
    """What a streaming call gave, as something to iterate over. Raises TypeError."""
    if hasattr(result, "__iter__"):
        return result
    raise TypeError(f"{name} streams, but returned {type(result).__name__}, which is no iterator")


def send_item(worker: Worker, item: Item, index: int, part: Any, name: str) -> None:
    """One item of a stream to its reader."""
    if item.link in worker.admission.expelled:
        raise TaskCancelled(f"{name} was stopped: who reads the stream may call here no more")
    large = worker.sharing.from_size(item.link)
    packed = values.pack(part, lambda: f"item {index} of {name}", large=large)
    value = execution.to_value(packed, item.link, worker)
    worker.stream(item.link, StreamItem(item.call.id, index, value), packed.buffers)


def keep_borrowed(link: str, words: Sequence[RefWord]) -> None:
    """References that a function's code captured are borrowed for good."""
    session = current_session()
    assert session is not None
    with session.lock:
        session.core.objects.borrow(words, link)


def let_go(ids: list[int]) -> None:
    """What was held for an actor's beginning is held by its own references now, or by nobody."""
    session = current_session() if ids else None
    if session is not None:
        session.released.extend(ids)


class Opened(Struct, frozen=True):
    """An actor's class, which may be run, and what it is to be made with."""

    cls: Any
    payload: ActorPayload
    held: list[int]

    @property
    def is_async(self) -> bool:
        """Whether the class has async methods."""
        from guactors.remote_actor import is_async_class

        return isinstance(self.cls, type) and is_async_class(self.cls)

    def build(self) -> Any:
        """Run the constructor. Raises whatever that raises."""
        payload = self.payload
        try:
            deps = [values.unpack(raw.data, raw.buffers) for raw in payload.deps]
            args, kwargs = values.unpack_arguments(payload.args, payload.buffers, deps)
        finally:
            let_go(self.held)
        return self.cls(*args, **kwargs)


def open_actor(worker: Worker, message: LoadActor) -> Opened:
    """Check and open the class. Raises PermissionDenied, and whatever opening it raises."""
    payload = decode_payload(message.payload)
    held: list[int] = []
    if payload.enclosed:
        session = current_session()
        assert session is not None
        held = settle_in(session, payload.enclosed)
    try:
        return Opened(worker.code.open_class(message, payload.cls), payload, held)
    except BaseException:
        let_go(held)
        raise
