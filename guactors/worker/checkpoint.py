"""The state of an actor: told by its own class, so that the actor goes on in another process.

Owns: the calls of ``__checkpoint__`` and ``__restore__``, and what a state may be. Must never:
decide when (``bouncing`` does), or end the process.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from guactors import values
from guactors.messages import MOST_STATE, StateTaken, Stood
from guactors.payload import RawValue, decode_value, encode

if TYPE_CHECKING:
    from guactors.worker.process import Worker

CHECKPOINT: Final = "__checkpoint__"
RESTORE: Final = "__restore__"


def take_state(worker: Worker) -> None:
    """Ask the actor for its state, and tell the provider, or why there is none. The main thread,
    when nothing runs and all callers have halted; every answer leaves before."""
    number = worker.bouncing.saving
    with worker.lock:
        worker.flush()
    try:
        state = _pack(worker.code.instance)
    except (Exception, SystemExit) as error:
        text = f"{type(worker.code.instance).__name__}.{CHECKPOINT}() failed: {error!r}"
        worker.control.tell_provider(Stood(number, text[:1000]))
    else:
        worker.control.tell_provider(StateTaken(number, state))
    _wait(worker, number)


def _wait(worker: Worker, number: int) -> None:
    """Until the provider says how it goes on: calls that come meanwhile go back."""
    while worker.bouncing.saving == number and not worker.leaving:
        worker.poller.wait(1.0)
        with worker.lock:
            worker.drain(time.monotonic())
        worker.serve_session()


def _pack(instance: Any) -> bytes:
    packed = values.pack(getattr(instance, CHECKPOINT)(), lambda: "the state", large=0)
    if packed.refs:
        raise ValueError("the state has references to objects: get() their values first")
    data, buffers = values.gathered(packed.data, packed.buffers)
    state = encode(RawValue(bytes(data), [bytes(buffer) for buffer in buffers]))
    if len(state) > MOST_STATE:
        raise ValueError(f"the state has {len(state)} bytes, and may have {MOST_STATE}")
    return state


def restore(instance: Any, state: bytes) -> None:
    """Let a new actor go on with a state. Raises whatever that raises."""
    found = decode_value(state)
    getattr(instance, RESTORE)(values.unpack(found.data, found.buffers))
