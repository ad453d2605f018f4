"""The port for worker processes: start them, signal them, learn how they end.

Owns: the protocol that every adapter implements, and the events it tells in. Must never: start a
process, import an adapter, or decide what a worker is for (``provider_state`` does).

Promises of every adapter, checked by ``tests/contract/test_worker_processes.py``:

* each ``start`` is answered by exactly one ``Ended``, with one ``Started`` before it unless the
  process never came up (cause ``start_failed``); nothing is told of a worker after its ``Ended``;
* all output of a worker that was read is told before its ``Ended``;
* a worker leads a process group of its own; when it ends, for whatever reason, all that is left of
  its group is killed with it;
* nothing outlives the holder: its end, even by SIGKILL, ends every worker and its group.

Threads: one thread uses an object. Nothing here blocks but ``close``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from guactors.config import WorkerConfig
from guactors.errors import Death
from guactors.messages import Limits

Report = Callable[[dict[str, Any]], None]
"""How a hub or provider process tells its launcher: ``{"event": "ready", ...}`` once it serves (a
hub adds ``"endpoints"``: a list of ``{control, data, server_key, host}``), ``{"event": "error",
"text": ...}`` when it cannot start. Values are plain JSON; no secrets."""


class Started(Struct, frozen=True):
    """The process exists; it says itself when it is ready (WorkerReady)."""

    worker: str
    pid: int


class Ended(Struct, frozen=True):
    """The process is gone and reaped. ``death.cause`` is ``exited``, ``signal``, ``killed`` (after
    our ``kill``), ``memory_limit``, ``out_of_memory`` or ``start_failed``; who holds the port may
    know better."""

    worker: str
    death: Death


class OutputLines(Struct, frozen=True):
    """What the worker printed: ``stream`` 1 or 2, ``name`` of what ran there (empty: unknown),
    lines without their ends. ``dropped`` more, around these, were too many and are lost."""

    worker: str
    pid: int
    stream: int
    name: str
    lines: tuple[str, ...]
    dropped: int = 0


ProcessEvent = Started | Ended | OutputLines


class WorkerProcesses(Protocol):
    """All worker processes of one provider."""

    def start(self, config: WorkerConfig) -> None:
        """Ask for a process named ``config.worker``; returns at once, events tell the rest."""

    def signal(self, worker: str, number: int) -> None:
        """Send a signal (SIGSTOP, SIGCONT, ...) to the worker's process group; silently nothing
        when it has ended."""

    def freeze(self, worker: str) -> None:
        """Stop the worker and all that it started, wherever that went; silently nothing when it has
        ended. They can be killed as they stand."""

    def thaw(self, worker: str) -> None:
        """Let all of them go on."""

    def limit(self, worker: str, limits: Limits) -> None:
        """From here on the worker and what it starts are held to the limits, as far as ``fences``
        can; silently nothing when it has ended. One that cannot be held at all is killed."""

    @property
    def fences(self) -> str:
        """How limits are kept, see ``Fences.guarantee``."""

    def kill(self, worker: str) -> None:
        """SIGKILL to the worker's process group; its ``Ended`` follows, cause ``killed``."""

    def events(self) -> list[ProcessEvent]:
        """What happened since the last call, oldest first; never blocks."""

    def filenos(self) -> tuple[int, ...]:
        """Descriptors that turn readable when ``events`` may have news; the same ones for life."""

    def wake_after(self) -> float | None:
        """Seconds after which ``events`` has news even though no descriptor says so (a partial
        line to be told), None when there is nothing to wait for."""

    def close(self) -> None:
        """Kill every worker, reap, close every descriptor, within two seconds; idempotent. No
        event is told afterwards."""
