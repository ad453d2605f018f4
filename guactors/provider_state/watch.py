"""When a worker is ended: it was told to leave, it lost its line to us, or it says nothing.

Owns: the deadlines of single workers. Must never: decide whom a worker serves, or tell the hub.

A worker's control thread answers pings while its main thread is busy, so silence means a stopped
process, or C code that holds the interpreter lock. The second is legal and may take long: silence
is noted after ``timing.silent_after`` and ends the worker only after ``unresponsive_after``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from guactors.config import Timing
from guactors.messages import Leave, Ping, Quit
from guactors.provider_state.effects import Effect, KillWorker, Note, SendWorker
from guactors.provider_state.pool import START_TIMEOUT, Pool
from guactors.provider_state.workers import Worker, known_cause
from guactors.transport.liveness import Effect as Finding
from guactors.transport.liveness import Liveness, Lost, Recovered, SendPing, Silent

LINK_GRACE = 2.0
"""Seconds a worker may live on after its connection to us broke: usually it is just ending."""

PROBE_AFTER = 0.3
"""Seconds from a broken connection until everybody is asked: mostly a worker just ended, which its
process tells as well, and with actors that come and go some worker always does."""

FAREWELL_PATIENCE = 5.0
"""Seconds from a worker's Goodbye until it must have ended."""


def unresponsive_after(timing: Timing) -> float:
    """Seconds of silence after which a worker is ended."""
    return max(60.0, timing.lost_after)


HAND_OVER_PATIENCE: Final = 60.0
"""Seconds that a worker which is to leave has for others to fetch what it keeps."""


class Watch:
    """Ends workers of ``pool`` that are due."""

    def __init__(self, pool: Pool, timing: Timing) -> None:
        self._pool = pool
        self._timing = msgspec.structs.replace(timing, lost_after=unresponsive_after(timing))
        self._pings = 0
        self._probe_at: float | None = None

    # --- decided ends ---------------------------------------------------------------------------

    def kill(self, worker: Worker, cause: str, detail: str = "") -> list[Effect]:
        """End it now; nothing if a kill is already on its way."""
        if not worker.end(cause, detail):
            return []
        self._pool.unavailable(worker)
        return [KillWorker(worker.worker, cause)]

    def dismiss(
        self, worker: Worker, cause: str, now: float, patience: float, *, graceful: bool
    ) -> list[Effect]:
        """Tell it to leave, and end it when it has not after ``patience`` seconds."""
        if not worker.end(cause, kill_at=now + patience):
            return []
        self._pool.unavailable(worker)
        return [SendWorker(worker.worker, Leave(graceful))]

    def ask_to_end(
        self, worker: Worker, cause: str, detail: str, now: float, grace: float
    ) -> list[Effect]:
        """Have it end what runs there, and end it when it has not after so many seconds."""
        if not worker.end(cause, detail, kill_at=now + grace):
            return []
        self._pool.unavailable(worker)
        return [SendWorker(worker.worker, Quit(grace))]

    def ask_to_leave(self, worker: Worker, now: float, patience: float) -> list[Effect]:
        """As ``dismiss`` for a worker that is idle, unless it keeps what others need."""
        if not worker.end("released", kill_at=now + patience, if_unused=True):
            return []
        self._pool.unavailable(worker)
        return [SendWorker(worker.worker, Leave(graceful=True, if_unused=True))]

    def keeping(self, worker: Worker, *, keeps: bool, now: float) -> None:
        """Others have something of it: it stays if it was only asked to leave, and else has time to
        hand that over. Or nobody has any more."""
        worker.keeps = keeps
        ending = worker.ending
        if not keeps or ending is None or worker.dying:
            return
        if ending.if_unused:
            worker.ending = None
            self._pool.idle_again(worker, now)
        else:
            worker.ending = msgspec.structs.replace(ending, kill_at=now + HAND_OVER_PATIENCE)

    def farewell(self, worker: Worker, reason: str, now: float) -> list[Effect]:
        """It says that it ends by itself: an actor that was told to exit by its own code says
        ``released``, which is not restarted."""
        cause, detail = known_cause(reason or "exited", "exited")
        worker.end(cause, detail, kill_at=now + FAREWELL_PATIENCE)
        self._pool.unavailable(worker)
        return []

    # --- evidence -------------------------------------------------------------------------------

    def hello(self, worker: Worker, now: float) -> None:
        """It has a (new) line to us."""
        worker.link_lost_at = None
        worker.liveness = Liveness(self._timing)
        worker.liveness.on_heard(now)

    def heard(self, worker: Worker, now: float) -> None:
        """It said something."""
        if worker.liveness is not None:
            worker.liveness.on_heard(now)

    def link_lost(self, worker: Worker, now: float) -> None:
        """Its connection broke; its process may live."""
        worker.liveness = None
        if worker.link_lost_at is None:
            worker.link_lost_at = now

    def disturbed(self, now: float) -> None:
        """Some connection broke, nobody knows whose."""
        if self._probe_at is None:
            self._probe_at = now + PROBE_AFTER

    def _probe(self) -> list[Effect]:
        """Ping everybody: sending to a broken connection shows which one it is."""
        self._probe_at = None
        self._pings += 1
        return [
            SendWorker(worker.worker, Ping(self._pings))
            for worker in self._pool.workers.values()
            if worker.liveness is not None and not worker.frozen
        ]

    # --- time -----------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Effect]:
        """Whatever is due for any worker."""
        effects: list[Effect] = []
        for worker in self._pool.start_overdue(now):
            effects += self.kill(worker, "start_failed", f"not ready after {START_TIMEOUT:.0f} s")
        for worker in self._pool.workers.values():
            effects += self._tick_one(worker, now)
        if self._probe_at is not None and now >= self._probe_at:
            effects += self._probe()
        return effects

    def _tick_one(self, worker: Worker, now: float) -> list[Effect]:
        if worker.ending is not None:
            due = worker.ending.kill_at is not None and now >= worker.ending.kill_at
            return self.kill(worker, worker.ending.cause) if due else []
        if worker.frozen:
            return []
        if worker.link_lost_at is not None and now >= worker.link_lost_at + LINK_GRACE:
            return self.kill(worker, "unresponsive", "its connection to the provider broke")
        if worker.liveness is not None:
            return self._judge(worker, worker.liveness.tick(now))
        return []

    def _judge(self, worker: Worker, findings: list[Finding]) -> list[Effect]:
        effects: list[Effect] = []
        for finding in findings:
            match finding:
                case SendPing(number):
                    effects.append(SendWorker(worker.worker, Ping(number)))
                case Silent():
                    effects.append(Note("warning", f"worker {worker.worker} is silent"))
                case Recovered():
                    effects.append(Note("info", f"worker {worker.worker} is heard again"))
                case Lost():
                    detail = f"said nothing for {self._timing.lost_after:.0f} s"
                    effects += self.kill(worker, "unresponsive", detail)
        return effects

    def next_wake(self, now: float) -> float | None:
        """When tick has something to do."""
        times = [self._wake_one(worker, now) for worker in self._pool.workers.values()]
        times.append(self._probe_at)
        return min((time for time in times if time is not None), default=None)

    def _wake_one(self, worker: Worker, now: float) -> float | None:
        if worker.ending is not None:
            return worker.ending.kill_at
        if worker.frozen:
            return None
        if worker.link_lost_at is not None:
            return worker.link_lost_at + LINK_GRACE
        if worker.liveness is not None:
            return worker.liveness.next_wake(now)
        return None
