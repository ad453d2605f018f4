"""Values and streams as threads and event loops ask for them: get, put, wait, futures, items.

Owns: the futures that wait for objects. Must never: decide anything about objects (the core does),
or hold the lock while it waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from guactors import values
from guactors.caller.away import Away
from guactors.caller.entries import Entry
from guactors.errors import GetTimeout, GuactorsError, SessionClosed
from guactors.messages import RefWord
from guactors.objects.base import LARGE, Held
from guactors.payload import Enclosed
from guactors.refs import ObjectRef, pack_refs
from guactors.waiting import Enough, Stopwatch

if TYPE_CHECKING:
    from guactors.session import Session

_PENDING = frozenset({type(None)})
"""What an entry has whose value is nowhere yet."""
_ABSENT = _PENDING | {Away}
"""What an entry has whose value is not here."""


class SessionValues:
    """The part of a session that hands out values; one per session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._core = session.core
        self._core.endings.pack_refs = pack_refs
        self._pump = session.pump
        self._lock = session.lock
        self._standing = session.core.standing
        self._futures: dict[int, list[Future[Any]]] = {}
        self._touchy: dict[int, list[Future[Any]]] = {}
        """Apart from those, futures that end when their call stands still."""
        self.left: list[int] = []
        """What the latest ``wait`` left, each once."""

    def notify(self) -> None:
        """Objects settled: resolve their futures and rouse whoever sleeps. The lock is held."""
        objects = self._core.objects
        settled, objects.settled = objects.settled, []
        for id in settled:
            if not objects.all_here and objects.is_away(id):
                continue  # it is on its way, and will be said again
            for future in (*self._futures.pop(id, ()), *self._touchy.pop(id, ())):
                self._resolve(future, id)
        for id in list(self._touchy):
            error = self._standing.told(id)
            for future in self._touchy.pop(id) if error is not None else ():
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
        self._pump.news()

    # --- values -----------------------------------------------------------------------------------

    def put(self, value: Any) -> ObjectRef:
        """An immutable copy of ``value``."""
        session = self._session
        if session.released:
            session.settle_releases()  # what it needs may be free then
        packed = values.pack(value, lambda: "the value given to put()", large=LARGE)
        with self._lock:
            objects = self._core.objects
            id = objects.new()
            contains = [ref.id for ref in packed.refs]
            for inner in contains:
                objects.hold(inner)
            objects.settle(id, packed.data, packed.buffers, contains=contains)
        return ObjectRef(id, self._session)

    def get_one(self, id: int, timeout: float | None, *, counts: bool = True) -> Any:
        """The value of one object; raises its error, or GetTimeout. ``counts``: whether seconds
        count in which its call stands still."""
        entry = self._core.objects.entries[id]
        data = entry.data
        if type(data) is bytes and not entry.error:
            return values.unpack(data, entry.buffers)  # mostly, and at a third less
        if type(data) in _ABSENT:
            special = self._standing.used or not counts
            if entry.origin is not None or entry.data is not None or special:
                self._await([id], timeout, counts)
            else:
                entry.wanted = True
                if not self._pump.wait(lambda: type(entry.data) not in _ABSENT, timeout):
                    raise self._late(1, 1, timeout)
        return self._value(id)

    def get_many(
        self, ids: Sequence[int], timeout: float | None, *, counts: bool = True
    ) -> list[Any]:
        """Values in order; raises as soon as one of them has failed. See ``get_one``; of several
        that are awaited one is enough to stop the clock."""
        entries = self._core.objects.entries
        if any(type(entries[id].data) in _ABSENT for id in ids):
            self._await(ids, timeout, counts)
            for id in ids:
                if entries[id].error:
                    return [self._value(id)]  # which raises
        return [self._value(id) for id in ids]

    def _await(self, ids: Sequence[int], timeout: float | None, counts: bool) -> None:
        entries = self._core.objects.entries
        with self._lock:
            wanted = [entries[id] for id in ids if type(entries[id].data) in _ABSENT]
            self._want(wanted)
        if not wanted:
            return
        position = 0

        def done() -> bool:
            nonlocal position
            while position < len(wanted):
                if type(wanted[position].data) in _ABSENT:
                    return bool(self._failed_among(wanted, position))
                if wanted[position].error:
                    return True
                position += 1
            return True

        touchy: list[int] = []
        if self._standing.used:
            touchy = [entry.id for entry in wanted if self._standing.minds(entry.id)]

        def over() -> bool:
            return done() or any(map(self._standing.told, touchy))

        if counts or timeout is None:
            ended = self._pump.wait(over if touchy else done, timeout)
        else:
            ended = self._wait_running(over, timeout, [entry.id for entry in wanted])
        if not ended:
            waiting = sum(type(entry.data) in _ABSENT for entry in wanted)
            raise self._late(waiting, len(ids), timeout)
        self._raise_told(touchy, done)

    def _raise_told(self, touchy: Sequence[int], done: Callable[[], bool]) -> None:
        for id in touchy:
            error = self._standing.told(id)
            if error is not None and not done():
                raise error

    def _wait_running(self, done: Callable[[], bool], timeout: float, ids: Sequence[int]) -> bool:
        """As ``wait`` of the pump, but while one of these calls stands still no time passes."""
        watch = Stopwatch(timeout)

        def stands() -> bool:
            return any(map(self._standing.stands, ids))

        while True:
            left = watch.look(stands(), time.monotonic())
            changed = self._pump.wait(lambda: done() or stands() != watch.still, left)
            if done() or not changed:
                return done()

    def _want(self, entries: Sequence[Entry]) -> None:
        """Have it said when these are here, and have them come. The lock is held."""
        for entry in entries:
            entry.watched = True
        if self._core.want(entries, time.monotonic()):
            self._session.after_core()

    def _late(self, waiting: int, count: int, timeout: float | None) -> GuactorsError:
        if self._session.closed:
            return SessionClosed("the session ended while get() waited")
        return GetTimeout(
            f"{waiting} of {count} objects were not there after {timeout} s; "
            "the calls go on, get() them again or cancel() them"
        )

    def _failed_among(self, wanted: Sequence[Any], start: int) -> bool:
        """Whether a later one failed already: looked for only when something settled."""
        settled = len(wanted) - start
        if settled > 64:
            # Scanning a long list each round would be quadratic; errors there surface in order.
            return False
        return any(entry.error for entry in wanted[start:])

    def _value(self, id: int) -> Any:
        entry = self._core.objects.entries[id]
        data = entry.data
        if type(data) is bytes and not entry.error:
            return values.unpack(data, entry.buffers)
        if entry.error:
            raise values.unpack_error(_here(entry))
        return values.unpack(_here(entry), entry.buffers)

    def wait(
        self, ids: list[int], count: int, timeout: float | None, *, local: bool = True
    ) -> list[int]:
        """Positions of the first ``count`` ready ones, in order; of fewer when time is up. With
        ``local`` a value is ready when it is on this machine. What is not among them is what
        ``left`` says next; ``ids`` are unique, and taken over."""
        absent = _ABSENT if local else _PENDING
        found = self._ready(ids, count, absent)
        if len(found) < count:
            self._watch(ids, local=local)
            ready = partial(self._is_ready, absent=absent)
            self._pump.wait(Enough(ids, count, ready), timeout)
            found = self._ready(ids, count, absent)
        if len(found) == 1:
            del ids[found[0]]
            self.left = ids
        else:
            taken = set(found)
            self.left = [id for at, id in enumerate(ids) if at not in taken]
        return found

    def _ready(self, ids: Sequence[int], count: int, absent: frozenset[type]) -> list[int]:
        entries, streams = self._core.objects.entries, self._core.streams
        found: list[int] = []
        for at, id in enumerate(ids):
            if type(entries[id].data) in absent and not (id in streams and streams[id].items):
                continue
            found.append(at)
            if len(found) == count:
                break
        return found

    def _is_ready(self, id: int, absent: frozenset[type]) -> bool:
        if type(self._core.objects.entries[id].data) not in absent:
            return True
        stream = self._core.streams.get(id)
        return stream is not None and bool(stream.items)

    def _watch(self, ids: Sequence[int], *, local: bool) -> None:
        """Have it said when one of them settles; fetch what is lent to us, and ``local`` all."""
        objects = self._core.objects
        with self._lock:
            if local:
                self._want([objects.entries[id] for id in ids])
                return
            for id in ids:
                entry = objects.entries[id]
                entry.watched = True
                if entry.origin is not None:
                    objects.need(id)

    def future(self, id: int, *, patient: bool = False) -> Future[Any]:
        """A future for one object; a ``patient`` one waits though its call stands still."""
        future: Future[Any] = Future()
        with self._lock:
            entry = self._core.objects.entries[id]
            told = None if patient else self._standing.told(id)
            if told is not None:
                future.set_exception(told)
                return future
            if type(entry.data) in _ABSENT:
                touchy = not patient and self._standing.minds(id)
                (self._touchy if touchy else self._futures).setdefault(id, []).append(future)
                self._want([entry])
                self._core.objects.hold(id)
                future.add_done_callback(lambda _: self._session.released.append(id))
                self._pump.kick()
                return future
        self._resolve(future, id)
        return future

    def word(self, id: int) -> RefWord:
        """The grid-wide name of an object."""
        return self._core.objects.word(id)

    def capture(self, fn: bytes, refs: Sequence[ObjectRef]) -> None:
        """The code of a function refers to these, those of an earlier session are nobody's."""
        ids = [ref.id for ref in refs if ref._session is self._session]
        with self._lock:
            objects = self._core.objects
            if fn not in objects.captured:
                objects.captured[fn] = ids
                for id in ids:
                    objects.hold(id)

    def share(self, id: int) -> ObjectRef:
        """One more reference to an object."""
        with self._lock:
            self._core.objects.hold(id)
        return ObjectRef(id, self._session)

    def arrived(self, owner: str, object: int) -> ObjectRef:
        """A reference that was unpickled here."""
        with self._lock:
            return ObjectRef(self._core.objects.stray(RefWord(owner, object)), self._session)

    def when_ready(self, ids: Sequence[int], then: Callable[[], None]) -> None:
        """Call ``then`` once all objects are there: now, or later on the serving thread."""
        entries = self._core.objects.entries
        pending = [id for id in ids if type(entries[id].data) in _ABSENT]
        if not pending:
            then()
            return
        left = len(pending)

        def one_less(_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                then()

        for id in pending:
            self.future(id, patient=True).add_done_callback(one_less)

    def first_error(self, ids: Sequence[int]) -> bytes | None:
        """The pickled error of the first of these ready values that is one."""
        entries = self._core.objects.entries
        failed = next((entries[id] for id in ids if entries[id].error), None)
        if failed is None:
            return None
        data, _ = values.gathered(_here(failed), failed.buffers)
        return bytes(data)

    def missing(self, ids: Sequence[int]) -> list[int]:
        """What is not there yet of these objects and all that they refer to."""
        entries = self._core.objects.entries
        with self._lock:
            return [id for id in self._reach(ids) if type(entries[id].data) in _ABSENT]

    def _reach(self, ids: Sequence[int]) -> list[int]:
        """These objects and all that they refer to, each once, inner ones first."""
        found: dict[int, None] = {}
        todo = [(id, False) for id in reversed(ids)]
        while todo:
            id, opened = todo.pop()
            if opened:
                found[id] = None
            elif id not in found:
                todo.append((id, True))
                todo += [(inner, False) for inner in self._core.objects.entries[id].contains or ()]
        return list(found)

    def enclosed(self, ids: Sequence[int]) -> dict[int, Enclosed]:
        """These ready objects and all that they refer to, as an actor's payload carries them."""
        made = {}
        with self._lock:
            for id in self._reach(ids):
                entry = self._core.objects.entries[id]
                data, buffers = values.gathered(_here(entry), entry.buffers)
                word, inner = self.word(id), map(self.word, entry.contains or ())
                made[id] = Enclosed(
                    word.owner,
                    word.object,
                    bytes(data),
                    [bytes(buffer) for buffer in buffers],
                    entry.error,
                    [(one.owner, one.object) for one in inner],
                )
        return made

    def raw(self, id: int) -> tuple[bytes, list[bytes]]:
        """A ready value as bytes; raises its error."""
        entry = self._core.objects.entries[id]
        if entry.error:
            raise values.unpack_error(_here(entry))
        data, buffers = values.gathered(_here(entry), entry.buffers)
        return bytes(data), [bytes(buffer) for buffer in buffers]

    # --- streams ----------------------------------------------------------------------------------

    def next_item(self, call: int, timeout: float | None) -> ObjectRef | None:
        """The next item of a stream, None at its end; the call's error comes as a last item."""
        self._watch_stream(call)
        told = self._standing.told
        if not self._pump.wait(lambda: self.item_ready(call) or told(call) is not None, timeout):
            if self._session.closed:
                raise SessionClosed("the session ended while a stream was read")
            raise GetTimeout(f"the stream had no item for {timeout} s")
        self._raise_told([call], lambda: self.item_ready(call))
        return self._take_item(call)

    async def next_item_async(self, call: int) -> ObjectRef | None:
        import asyncio

        self._watch_stream(call)
        while not self.item_ready(call):
            future: Future[Any] = Future()
            with self._lock:
                self._raise_told([call], lambda: self.item_ready(call))
                if not self.item_ready(call):
                    self._touchy.setdefault(call, []).append(future)
                else:
                    break
            self._pump.kick()
            await asyncio.wait([asyncio.wrap_future(future)])
        return self._take_item(call)

    def _watch_stream(self, call: int) -> None:
        with self._lock:
            self._core.objects.entries[call].watched = True

    def item_ready(self, call: int) -> bool:
        """Whether an item, or the end, is there."""
        stream = self._core.streams[call]
        return bool(stream.items) or stream.finished

    def stream_finished(self, call: int) -> bool:
        stream = self._core.streams[call]
        return stream.finished and not stream.items

    def _take_item(self, call: int) -> ObjectRef | None:
        with self._lock:
            item = self._core.endings.take_item(call)
            if item is not None:
                self._session.after_core()
                return ObjectRef(item, self._session)
            stream = self._core.streams[call]
            entry = self._core.objects.entries[call]
            if entry.error and not stream.told:
                stream.told = True
                self._core.objects.hold(call)
                return ObjectRef(call, self._session)
            return None

    def _resolve(self, future: Future[Any], id: int) -> None:
        if not future.set_running_or_notify_cancel():
            return
        if self._core.objects.entries[id].data is None:
            future.set_result(None)  # a stream has news
            return
        try:
            future.set_result(self._value(id))
        except BaseException as error:
            future.set_exception(error)


def _here(entry: Entry) -> bytes | Held:
    """The pickle of a value that was waited for."""
    data = entry.data or b""
    assert not isinstance(data, Away), entry
    return data
