"""A worker as its caller sees it: what was sent, what is not yet answered.

Owns: batching of calls into frames. Must never: decide where a task goes (``leases``, ``actors``).
"""

from __future__ import annotations

from msgspec.structs import replace

from guactors.alternatives import taking
from guactors.caller.effects import SendPeer
from guactors.caller.objects import ObjectTable
from guactors.caller.tasks import Task
from guactors.messages import Call, Calls, Define, Endpoint, RefWord, Value

_NOTHING: list[Value] = []
BATCH = 32
"""Calls in one frame at the most: beyond it the first call of the frame would wait for the last."""


class Target:
    """The outbox and the unanswered calls of one worker."""

    __slots__ = (
        "blocked", "buffers", "defined", "endpoints", "in_flight", "last_reply", "lost", "lowest",
        "outbox", "peer", "provider", "taken",
    )  # fmt: skip

    def __init__(
        self, peer: str, endpoints: list[Endpoint], provider: str = "", taken: int = 0
    ) -> None:
        self.peer = peer
        self.endpoints = endpoints
        self.provider = provider
        self.taken = taken
        """Which of its demand's alternatives its lease holds."""
        self.in_flight: dict[int, Task] = {}
        self.outbox: list[Call] = []
        self.buffers: list[bytes | memoryview] = []
        self.defined: set[bytes] = set()
        self.blocked = False
        self.lost = False
        self.lowest = 0
        """Of the priorities that went out since nothing was in flight."""
        self.last_reply = 0.0

    def add(self, task: Task, objects: ObjectTable, blobs: dict[bytes, Define], now: float) -> None:
        """Put one call into the outbox, its function's definition before it."""
        if task.fn and task.fn not in self.defined:
            self.defined.add(task.fn)
            lent = objects.lend(objects.captured.get(task.fn, ()), self.peer)
            objects.effects.append(
                SendPeer(self.peer, _define(blobs[task.fn], task, lent, self.taken))
            )
        task.peer = self.peer
        task.sent_at = now
        if task.priority < self.lowest or not self.in_flight:
            self.lowest = task.priority
        self.in_flight[task.id] = task
        args = task.args
        if (
            task.deps or task.lent or task.buffers or task.deadline or task.due or task.group
            or task.window or type(args) is not bytes
        ):  # fmt: skip
            self.outbox.append(self._laden(task, objects, now))
            return
        self.outbox.append(
            Call(
                task.id, task.fn, task.method, args, 0, _NOTHING, task.returns,
                task.priority, 0.0, task.attempt,
            )
        )  # fmt: skip

    def _laden(self, task: Task, objects: ObjectTable, now: float) -> Call:
        """A call with values, references or a deadline."""
        deps: list[Value] = []
        args, frames, stored = objects.travel.outgoing(task.args, task.buffers, self.peer)
        self.buffers.extend(frames)
        for id in task.deps:
            dep, dep_frames = objects.travel.value(objects.entries[id], self.peer)
            deps.append(dep)
            self.buffers.extend(dep_frames)
        refs = objects.lend(task.lent, self.peer) if task.lent else []
        return Call(
            task.id, task.fn, task.method, args, len(frames), deps, task.returns,
            task.priority, task.remaining(now), task.attempt, task.group, refs, stored, task.window,
        )  # fmt: skip

    def urgent(self) -> bool:
        """Whether to flush now: nothing on the wire would wake us later, or the frame is full."""
        waiting = len(self.outbox)
        if not waiting:
            return False  # what it held was cancelled
        return waiting == len(self.in_flight) or waiting >= BATCH or self.outbox[-1].priority > 0

    def flush(self) -> list[SendPeer]:
        """The outbox as one frame, or nothing."""
        if not self.outbox:
            return []
        effect = SendPeer(self.peer, Calls(self.outbox), self.buffers)
        self.outbox = []
        self.buffers = []
        return [effect]

    def forget(self, task: Task, objects: ObjectTable) -> bool:
        """Remove a call that was not sent yet, with what was lent along; False when it is on the
        wire."""
        for i, call in enumerate(self.outbox):
            if call.id == task.id:
                start = sum(_frames(c) for c in self.outbox[:i])
                del self.buffers[start : start + _frames(call)]
                del self.outbox[i]
                self.in_flight.pop(task.id, None)
                for words in (call.refs, *(dep.refs for dep in call.deps)):
                    objects.on_release(self.peer, words)
                return True
        return False

    def __repr__(self) -> str:
        return f"<Target {self.peer} in_flight={len(self.in_flight)} outbox={len(self.outbox)}>"


def _define(code: Define, task: Task, lent: list[RefWord], taken: int) -> Define:
    """With what the lease of the task's demand holds, and what its code refers to."""
    shape = getattr(task.home, "shape", None)
    if shape is None:
        return code
    return replace(code, resources=taking(shape, taken).resources, refs=lent)


def _frames(call: Call) -> int:
    return call.buffers + sum(dep.buffers for dep in call.deps)
