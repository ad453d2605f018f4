"""Calls of a worker whose code runs in an instance: everything passes here as bytes.

Owns: the :class:`~guactors.enclosure.enclosure.Enclosure`, what was sent there, and the references
that may come back. Must never: open code, arguments or results of a session, but to see that they
are plain data where code must be signed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from guactors import refs, values
from guactors.actor_making import settle_in
from guactors.context import running
from guactors.enclosure.conversation import Answer, Asked, Conversation
from guactors.enclosure.enclosure import Enclosure
from guactors.errors import GuactorsError, InternalError, NotSerializable, PermissionDenied
from guactors.messages import Call, InstanceGone, LoadActor, RefWord, Reply, StreamItem, Value
from guactors.objects import process
from guactors.payload import decode_payload
from guactors.refs import current_session
from guactors.runtimes.choice import open_runtime
from guactors.values import Packed
from guactors.worker import execution
from guactors.worker.backpressure import Pause
from guactors.worker.execution import BUILT_IN, Outcome
from guactors.worker.intake import Item
from guactors.worker.programs import store_at
from guactors.worker.trust import CLASS, FUNCTION

if TYPE_CHECKING:
    from guactors.worker.process import Worker

Parts = Sequence[memoryview]

MOST_COROUTINES: Final = 100
"""Calls of an async actor that run at a time: each has a thread out here."""
_FAILED: Final = 70
"""Exit status of a worker whose Python has ended, as sysexits.h has it."""
_END_WITHIN: Final = 5.0
_DETAIL_MOST: Final = 4096


class Enclosed:
    """``worker``: whose calls these are; ``env``: variables in there. Threads: any."""

    def __init__(self, worker: Worker, env: dict[str, str]) -> None:
        self._worker = worker
        where = worker.code.trust.where
        self._enclosure = Enclosure(
            where,
            lambda: open_runtime(where.runtime, partial(store_at, where.root)),
            env,
            self._print,
            self._ended,
        )
        self._lock = threading.Lock()
        self._sent: set[bytes] = set()
        self._items: dict[int, Item] = {}
        self._known: set[tuple[str, int]] = set()
        """References that were handed in, and may come back."""

    def close(self) -> None:
        """Nothing of it is left."""
        self._enclosure.close()

    # --- calls ----------------------------------------------------------------------------------

    def answer(self, item: Item, name: str) -> Outcome:
        """Run a call to its end on this thread. Raises what prevents that."""
        call = item.call
        if not call.fn and call.method in BUILT_IN and call.method != "__ray_call__":
            result = BUILT_IN[call.method](None)
            return execution.success(item, result, name, self._worker)
        failed = next((dep for dep in call.deps if dep.error), None)
        if failed is not None:
            return Reply(call.id, [Value(failed.data, 0, True)], call.attempt), ()
        asked = self._ask(item, name)
        try:
            return self._wait(asked, item, name)
        except BaseException:
            asked.cancel()
            raise
        finally:
            self._items.pop(asked.id, None)

    def cancel(self, item: Item) -> None:
        """Have a running call end, if what runs in there can be: a coroutine. Its answer comes.
        Never blocks."""
        id = next((id for id, known in list(self._items.items()) if known is item), 0)
        if id:
            word = {"do": "cancel", "id": id}
            say = self._enclosure.talk().say
            threading.Thread(target=say, args=(word,), daemon=True).start()

    def _ask(self, item: Item, name: str) -> Asked:
        call, trust = item.call, self._worker.code.trust
        if trust.signers is not None:
            execution.arguments(item)  # raises for what is no data
            if not call.fn and call.method.startswith("_") and call.method != "__call__":
                raise PermissionDenied(f"{name} was not called: it is no public method")
        talk = self._enclosure.talk()
        if call.fn:
            self._define(talk, call)
        counts, parts = _arguments(item)
        self._learn(item, [*call.refs, *(ref for dep in call.deps for ref in dep.refs)])
        header = {
            "do": "call",
            "fn": call.fn.hex(),
            "method": call.method,
            "name": name,
            "returns": call.returns,
            "counts": counts,
        }
        asked = talk.ask(header, parts)
        self._items[asked.id] = item
        return asked

    def _define(self, talk: Conversation, call: Call) -> None:
        code = self._worker.code
        with self._lock:
            found = code.blob(call.fn)
            code.trust.check_signed(FUNCTION, found.name, found.blob, found.signatures)
            if call.fn in self._sent:
                return
            if found.refs:
                code.borrow(call.fn)
                self._known.update((word.owner, word.object) for word in found.refs)
            talk.say({"do": "define", "fn": call.fn.hex(), "name": found.name}, [found.blob])
            self._sent.add(call.fn)

    def _learn(self, item: Item, words: Sequence[RefWord]) -> None:
        if not words:
            return
        if self._worker.spec is not None:
            # An actor may keep them, which nobody out here sees.
            from guactors.worker.serving import keep_borrowed

            keep_borrowed(item.link, words)
        self._known.update((word.owner, word.object) for word in words)

    def _wait(self, asked: Asked, item: Item, name: str) -> Outcome:
        call = item.call
        if call.returns >= 0:
            return self._ended_call(item, *asked.wait(), name)
        with Pause(self._worker, item, name) as pause:
            index = 0
            while True:
                answer, parts = asked.wait()
                if answer.say != "item":
                    return self._ended_call(item, answer, parts, name)
                [packed] = self._packed(answer, parts, item)
                value = execution.to_value(packed, item.link, self._worker)
                self._worker.stream(item.link, StreamItem(call.id, index, value), packed.buffers)
                index += 1
                asked.more()
                if call.window:
                    pause.after(index)

    def _ended_call(self, item: Item, answer: Answer, parts: Parts, name: str) -> Outcome:
        call = item.call
        if answer.say == "failed":
            return self._failed(item, answer, parts, name)
        if call.returns < 0:
            return Reply(call.id, [], call.attempt), ()
        made = list(self._packed(answer, parts, item))
        if len(made) != max(1, call.returns):
            raise InternalError(f"{name} answered with {len(made)} values")
        buffers = [buffer for one in made for buffer in one.buffers]
        found = [execution.to_value(one, item.link, self._worker) for one in made]
        return Reply(call.id, found, call.attempt), buffers

    def _failed(self, item: Item, answer: Answer, parts: Parts, name: str) -> Outcome:
        if answer.own:
            return execution.failure(item, NotSerializable(answer.text), name)
        if answer.exit is not None:
            self._worker.exit_status = answer.exit & 0xFF
            self._worker.leaving = True
        if item.cancelled:
            return execution.failure(item, execution.ended_early(item, name), name)
        value = Value(bytes(parts[0]), 0, True)
        return Reply(item.call.id, [value], item.call.attempt, answer.fault[:256]), ()

    def _packed(self, answer: Answer, parts: Parts, item: Item) -> Iterator[Packed]:
        large, at = self._worker.sharing.from_size(item.link), 0
        for count, named in zip(answer.counts, answer.refs, strict=True):
            data, buffers = bytes(parts[at]), parts[at + 1 : at + 1 + count]
            at += 1 + count
            found = [self._reference(owner, number) for owner, number in named]
            if len(data) + sum(buffer.nbytes for buffer in buffers) >= large:
                yield Packed(process.store().write([data, *buffers]), (), found)
            else:
                yield Packed(data, [bytes(buffer) for buffer in buffers], found)

    def _reference(self, owner: str, number: int) -> Any:
        if (owner, number) not in self._known:
            raise PermissionDenied(f"the image answered with {owner}/{number}, which it never had")
        return refs._rebuild_ref(owner, number)

    # --- one actor ------------------------------------------------------------------------------

    def load(self, message: LoadActor) -> int:
        """Build the actor: how many of its calls may run at a time. Raises what prevents that, and
        what its constructor raised."""
        payload, worker = decode_payload(message.payload), self._worker
        if payload.enclosed:
            session = current_session()
            assert session is not None
            settle_in(session, payload.enclosed)
            self._known.update((one.owner, one.object) for one in payload.enclosed)
        name = message.spec.class_name
        worker.code.trust.check_signed(CLASS, name, payload.cls, message.signatures)
        counts, parts = [len(payload.buffers)], [payload.cls, payload.args, *payload.buffers]
        for dep in payload.deps:
            counts.append(len(dep.buffers))
            parts += [dep.data, *dep.buffers]
        most = message.spec.max_concurrency
        header = {
            "do": "load",
            "name": name,
            "counts": counts,
            "threads": max(1, most),
            "in_groups": sum(payload.groups.values()),
            "coroutines": min(most or MOST_COROUTINES, MOST_COROUTINES),
        }
        answer, said = self._enclosure.talk().ask(header, parts).wait()
        if said:
            raise NotBuilt(bytes(said[0]))
        return answer.threads

    # --- what it tells --------------------------------------------------------------------------

    def _print(self, id: int, stream: int, data: bytes) -> None:
        running.set(self._items.get(id))
        target = sys.stdout if stream == 1 else sys.stderr
        target.write(data.decode("utf-8", "backslashreplace"))

    def _ended(self, cause: str, why: str) -> None:
        """Of the thread that reads: this worker is of no more use, and its callers learn so as of
        any worker that died."""
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self._enclosure.close()
        self._worker.control.tell_provider(InstanceGone(cause, why[:_DETAIL_MOST]))
        # It ends this process; if it should not be able to, it is to end all the same.
        time.sleep(_END_WITHIN)
        os._exit(_FAILED)


class NotBuilt(GuactorsError):
    """An actor's constructor raised; ``data``: what, as a pickled error."""

    def __init__(self, data: bytes) -> None:
        super().__init__("the actor could not be built")
        self.data = data


def _arguments(item: Item) -> tuple[list[int], list[Any]]:
    call = item.call
    data, buffers = values.gathered(
        execution.found(call.args, call.stored, item), item.buffers[: call.buffers]
    )
    counts, parts = [len(buffers)], [data, *buffers]
    position = call.buffers
    for dep in call.deps:
        own = item.buffers[position : position + dep.buffers]
        position += dep.buffers
        data, buffers = values.gathered(execution.found(dep.data, dep.stored, item), own)
        counts.append(len(buffers))
        parts += [data, *buffers]
    return counts, parts
