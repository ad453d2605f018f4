"""How calls end: with values, items, or an error.

Owns: the streams, and the rule that each call is settled once and its arguments let go once. Must
never: decide whether a call is to be tried again (the core does, before it comes here).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable

from guactors.caller.effects import SendPeer
from guactors.caller.objects import ObjectTable
from guactors.caller.streams import Stream
from guactors.caller.task_log import TaskLog
from guactors.caller.tasks import STREAM, Buffers, Task
from guactors.errors import GuactorsError, SessionClosed
from guactors.messages import RefWord, Reply, StreamItem, StreamTaken

NONE = pickle.dumps(None, 5)
"""The value of a stream that has come to its end."""

UNNAMED = "error"
"""The type of an error of which the worker said none."""


class Endings:
    """Settles calls in the object table; ``log`` is told of those that end on this side."""

    def __init__(
        self,
        objects: ObjectTable,
        log: TaskLog,
        pack_refs: Callable[[list[RefWord]], bytes],
    ) -> None:
        self.objects = objects
        self.log = log
        self.pack_refs = pack_refs
        self.streams: dict[int, Stream] = {}
        self.on_away: Callable[[Task, list[int]], bool] = lambda task, away: False
        """Results of a call stay where they were made; whether the call is to be kept for them."""

    def reply(self, peer: str, task: Task, reply: Reply, buffers: Buffers, position: int) -> int:
        """Settle one answered call; the position of the next reply's buffers."""
        objects = self.objects
        values = reply.values
        if values and values[0].error:
            value = values[0]
            end = position + value.buffers
            contains = objects.borrow(value.refs, peer) if value.refs else None
            for id in task.results():
                objects.settle(id, value.data, buffers[position:end], error=True, contains=contains)
            task.fault = task.fault or reply.fault or UNNAMED
            position = end
        elif task.gather:
            self._gather(task)
        elif task.returns == STREAM:
            objects.settle(task.id, values[0].data if values else NONE)
        else:
            id = task.id
            for value in values:
                end = position + value.buffers
                if value.stored is None and not value.refs:
                    objects.settle(id, value.data, buffers[position:end])
                else:
                    objects.travel.take_in(id, value, buffers[position:end], peer, peer)
                position = end
                id += 1
        if task.returns == STREAM:
            self.end_stream(task)
        if not (objects.kept_at and self._is_kept(task)):
            self._let_go(task)
        return position

    def _let_go(self, task: Task) -> None:
        """The call has ended: what it was made of is needed no more."""
        if task.args:
            task.args, task.buffers = b"", ()
        if task.deps or task.lent:
            self.finish(task)

    def _is_kept(self, task: Task) -> bool:
        away = [id for id in task.results() if self.objects.is_away(id)]
        return bool(away) and self.on_away(task, away)

    def on_item(self, peer: str, message: StreamItem, buffers: Buffers) -> None:
        """The next item of a stream; one that a retry repeats is dropped."""
        stream = self.streams.get(message.call)
        id = self.objects.new()
        self.objects.travel.take_in(id, message.value, buffers, peer, peer)
        if stream is None or stream.finished or stream.before + message.index < stream.received:
            self.objects.drop(id)
            if stream is not None and stream.window and message.index == 0:
                # A producer that began again does not know what was taken of the one before.
                taken = StreamTaken(message.call, stream.announce())
                self.objects.effects.append(SendPeer(peer, taken))
            return
        stream.received += 1
        stream.items.append(id)
        self._stream_news(message.call)

    def begin_again(self, task: Task) -> None:
        """It is going to be sent to another worker."""
        task.attempt += 1
        task.peer = ""
        stream = self.streams.get(task.id)
        if stream is not None:
            stream.begin_again()

    def take_item(self, call: int) -> int | None:
        """The next unread item of a stream, None where none is there; the hold goes along."""
        stream = self.streams[call]
        id, due = stream.take()
        entry = self.objects.entries.get(call)
        task = entry.task if entry is not None else None
        if due and task is not None and task.peer:
            self.objects.effects.append(SendPeer(task.peer, StreamTaken(call, stream.announce())))
        return id

    def _gather(self, task: Task) -> None:
        """The items of its stream, none of which was handed out, become one value."""
        items = list(self.streams.pop(task.id).items)
        data = self.pack_refs([self.objects.word(id) for id in items])
        self.objects.settle(task.id, data, contains=items)

    def _stream_news(self, call: int) -> None:
        entry = self.objects.entries.get(call)
        if entry is not None and entry.watched and not self.streams[call].gather:
            self.objects.settled.append(call)

    def end_stream(self, task: Task) -> None:
        """No more items come."""
        stream = self.streams.get(task.id)
        if stream is not None:
            stream.finished = True
            if stream.gather:
                del self.streams[task.id]
                for id in stream.items:
                    self.objects.drop(id)

    def settled(self, task: Task) -> bool:
        """Whether the outcome is there, or wanted no more."""
        entries = map(self.objects.entries.get, task.results())
        return all(entry is None or entry.data is not None for entry in entries)

    def fail(self, task: Task, error: Exception, *, finish: bool = True) -> None:
        """Settle every result with an error; not ``finish`` while the worker still has the call."""
        data = pickle.dumps(error, 5)
        for id in task.results():
            self.objects.settle(id, data, error=True)
        self.log.on_end(task, type(error).__name__)
        self.end_stream(task)
        if finish:
            self.finish(task)

    def finish(self, task: Task) -> None:
        """The call needs its arguments no more."""
        task.args, task.buffers = b"", ()
        for id in task.deps:
            self.objects.drop(id)
        for id in task.lent:
            self.objects.drop(id)
        task.deps = task.lent = ()

    def close(self, why: GuactorsError | None = None) -> None:
        """The session ends: everything pending is settled, with ``why`` if there is a reason."""
        for entry in list(self.objects.entries.values()):
            if entry.data is None:
                name = (entry.task.name or entry.task.method) if entry.task else "the object"
                error = why or SessionClosed(f"the session ended before {name} did")
                self.objects.fail(entry.id, error)
        for stream in self.streams.values():
            stream.finished = True
