"""One call while it runs: user code as a generator, which works, waits for values, and can be
interrupted.

Owns: what a program does. Must never: touch a link; the worker sends what comes of it.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator
from typing import TYPE_CHECKING

from guactors.caller.tasks import Task
from guactors.errors import GuactorsError
from guactors.messages import RefWord, Reply, StreamItem, Value
from guactors.worker.intake import Item
from tests.sim.caller import SimCaller
from tests.sim.program import Program, UserError, function_of, item_of, pack, read, unpack, value_of

if TYPE_CHECKING:
    from tests.sim.worker import SimWorker

Steps = Generator["float | list[int]", None, "tuple[Reply, list[bytes]]"]
"""A number: that many seconds of work. Ids: wait until all of them are there."""


class Interrupted(BaseException):
    """Thrown into a running call that was cancelled."""


class Crash(BaseException):
    """The process ends now."""


class Running:
    """``steps``: the user's code; ``waiting``: what it waits for; ``told``: the grid knows that."""

    __slots__ = ("_held", "_session", "item", "over", "program", "steps", "told", "turn", "waiting")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.program: Program = unpack(item.call.args)
        self.waiting: set[int] = set()
        self.told = False
        self.over = False
        self.turn = 0
        self._held: list[int] = []
        self._session: SimCaller | None = None
        self.steps: Steps

    def start(self, worker: SimWorker) -> None:
        """The generator of this call; nothing runs before it is driven."""
        self.steps = self._steps(worker)

    def _steps(self, worker: SimWorker) -> Steps:
        item, program = self.item, self.program
        call = item.call
        words: list[RefWord] = list(call.refs)
        for dep in call.deps:
            words += dep.refs
        if words:
            self._held += self._open(worker).core.objects.borrow(words, item.link)
        parts, position = [], call.buffers
        for dep in call.deps:
            if dep.error:
                raise pickle.loads(dep.data)
            if dep.stored is not None:
                parts.append(worker.look(dep.stored) or b"gone")
                continue
            parts.append(read(dep.data, item.buffers[position : position + dep.buffers]))
            position += dep.buffers
        children = [self._call(worker, index) for index in range(len(program.children))]
        yield program.seconds
        if call.refs:
            borrowed = self._held[: len(call.refs)]
            yield borrowed
            parts += self._values(borrowed)
        if program.lends:
            yield 0.0
            value = value_of(program.uid, [*parts, b"lent"])
            refs = self._open(worker).core.objects.lend(children[-1:], item.link)
            return Reply(call.id, [Value(value, 0, False, refs)], call.attempt), []
        if children:
            yield children
            parts += self._values(children)
        yield from self._items(worker)
        if program.ends == "crash" and worker.crashes(program):
            raise Crash
        if program.ends == "raise":
            raise UserError(str(program.uid))
        if call.returns < 0:
            return Reply(call.id, [], call.attempt), []
        data = value_of(program.uid, parts)
        if program.far:
            return Reply(
                call.id, [Value(b"", stored=worker.keep(item.link, data))], call.attempt
            ), []
        if program.wide:
            return Reply(call.id, [Value(b"", 1)], call.attempt), [data]
        return Reply(call.id, [Value(data)], call.attempt), []

    def _items(self, worker: SimWorker) -> Generator[float, None, None]:
        """Its stream, paused while too much of it is unread."""
        item, uid = self.item, self.program.uid
        brake = worker.brakes.put_on(item, f"{uid}", lambda: None) if item.call.window else None
        try:
            for index in range(self.program.items):
                yield 0.001
                part = Value(item_of(uid, index))
                worker.stream(item.link, StreamItem(item.call.id, index, part))
                while brake is not None and brake.holds(index + 1):
                    yield 0.001
        finally:
            worker.brakes.take_off(item)

    def _open(self, worker: SimWorker) -> SimCaller:
        self._session = worker.open_session()
        return self._session

    def _call(self, worker: SimWorker, index: int) -> int:
        child = self.program.children[index]
        session = self._open(worker)
        now = worker.clock.now
        id = session.core.objects.new()
        self._held.append(id)
        task = Task(
            id,
            fn=function_of(child.program),
            name=f"child {child.program.uid}",
            args=pack(child.program),
            deadline=now + child.timeout if child.timeout else 0.0,
            retries=child.retries,
            parent=(self.item.link, self.item.call.id),
        )
        worker.promises(session.peer, task)
        return session.submit(session.core.demand(child.shape), task)

    def _values(self, ids: list[int]) -> list[bytes]:
        assert self._session is not None
        values = []
        for id in ids:
            entry = self._session.core.objects.entries[id]
            if entry.error:
                raise pickle.loads(entry.data or b"")
            values.append(read(entry.data, entry.buffers))
        return values

    def failure(self, error: BaseException) -> tuple[Reply, list[bytes]]:
        """The reply of a call that raised."""
        call = self.item.call
        value = Value(pickle.dumps(error, 5), 0, True)
        return Reply(call.id, [value], call.attempt, missing=self.item.missing), []

    def release(self) -> None:
        """Its local variables go."""
        self.over = True
        self.steps.close()
        if self._session is not None and not self._session.closed:
            self._session.drop(self._held)


Failure = GuactorsError | UserError
