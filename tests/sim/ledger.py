"""What was asked for, what ran, what came back; and what must hold between the three.

Owns: the books of one run, and the violations found while it goes. Must never: influence the run.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from guactors.caller.groups import RemoteGroup
from guactors.caller.tasks import Task
from guactors.errors import CallTimeout, GuactorsError
from guactors.messages import Call
from tests.sim.program import UserError, read

if TYPE_CHECKING:
    from tests.sim.worker import SimWorker
    from tests.sim.world import World

MOST_RUNS = 40
"""Retries bound the losses that a call itself may have caused, not those of its neighbours; but
nothing runs for ever."""
LATE = 0.010
"""Seconds by which a timeout may come late: the caller's own clock decides it, nobody else."""


class Violation(AssertionError):
    """Something that must hold does not."""


@dataclass(eq=False)
class Record:
    """One call of the root caller of ``session``. ``value`` is what it has to return, None where it
    is meant to fail or depends on chance; ``items`` those of a stream. ``may_fail`` though nothing
    goes wrong; ``group``: the one it is meant to run in; ``sources`` are calls whose results it is
    given; ``nested``: it calls others."""

    caller: str
    session: str
    id: int
    name: str
    retries: int
    deadline: float
    submitted: float
    value: bytes | None
    items: list[bytes] = field(default_factory=list)
    may_fail: bool = False
    sources: list[Record] = field(default_factory=list)
    nested: bool = False
    cancelled: bool = False
    settled: float | None = None
    outcome: str = ""
    group: RemoteGroup | None = None

    def fallible(self) -> bool:
        """Whether it may fail though nothing goes wrong, by itself or by what it is given."""
        return self.may_fail or any(source.fallible() for source in self.sources)

    def stalls(self) -> bool:
        """Whether it waits for a group that has no room."""
        return self.group is not None and self.group.state in ("pending", "rescheduling")

    def __repr__(self) -> str:
        state = self.outcome or "pending"
        return f"<{self.caller}/{self.id} {self.name} retries={self.retries} {state}>"


class Ledger:
    """The books of ``world``."""

    def __init__(self, world: World) -> None:
        self.records: list[Record] = []
        self.runs = 0
        self._world = world
        self._retries: dict[tuple[str, int], int] = {}
        self._runs: dict[tuple[str, int], list[str]] = {}
        self._crashes: dict[int, int] = {}
        self._latest: dict[tuple[str, str], int] = {}
        self._missed: set[tuple[str, int]] = set()

    # --- events ---------------------------------------------------------------------------------

    def promised(self, caller: str, task: Task, *, again: bool = False) -> None:
        """A call is about to be submitted with these retries; ``again``: it may be made to begin
        anew at no charge."""
        self._retries[caller, task.id] = -1 if again else task.retries

    def asked(self, record: Record) -> None:
        """A root caller made a call that is watched to its end."""
        self.records.append(record)

    def started(self, worker: SimWorker, caller: str, call: Call) -> None:
        """A worker begins to run a call."""
        self.runs += 1
        if self._world.keys is not None:
            self._world.keys.check_start(worker.session_id)
        key = caller, call.id
        self._world.note(f"{worker.id} runs {caller}/{call.id} attempt {call.attempt}")
        runs = self._runs.setdefault(key, [])
        runs.append(worker.id)
        if len(runs) > 1 and self._retries.get(key) == 0:
            raise Violation(f"{caller}/{call.id} has no retries and runs again: on {runs}")
        if len(runs) > MOST_RUNS:
            raise Violation(f"{caller}/{call.id} runs again and again: on {runs}")
        if len(runs) == 1 and worker.spec is not None and worker.spec.max_concurrency <= 1:
            self._in_order(worker, caller, call)

    def missed(self, caller: str, call: Call) -> None:
        """An argument of it was lost with its memory: it comes again, behind others."""
        self._missed.add((caller, call.id))

    def _in_order(self, worker: SimWorker, caller: str, call: Call) -> None:
        """One caller's calls reach one incarnation of an actor in the order they were made."""
        if (caller, call.id) in self._missed:
            return
        key = worker.id, caller
        before = self._latest.get(key, 0)
        if call.id < before:
            raise Violation(f"actor on {worker.id} runs {caller}/{call.id} after {before}")
        self._latest[key] = call.id

    def crashed(self, uid: int) -> int:
        """How often the program has come to the point where it may crash, this time included."""
        self._crashes[uid] = self._crashes.get(uid, 0) + 1
        return self._crashes[uid]

    def settled(self, record: Record, data: bytes | None, error: bool, buffers: object) -> None:
        """A call's result is there."""
        now = self._world.clock.now
        if record.settled is not None:
            raise Violation(f"{record} was settled twice")
        record.settled = now
        if error:
            self._failed(record, data or b"", now)
            return
        record.outcome = "value"
        value = read(data, buffers)  # type: ignore[arg-type]
        if record.value is not None and value != record.value:
            raise Violation(f"{record} returned {value!r}, not {record.value!r}")
        if record.deadline and now > record.deadline + LATE:
            raise Violation(f"{record} came {now - record.deadline:.3f} s after its timeout")

    def _failed(self, record: Record, data: bytes, now: float) -> None:
        error = pickle.loads(data)
        record.outcome = f"{type(error).__name__}: {error}"[:200]
        if not isinstance(error, GuactorsError | UserError):
            raise Violation(f"{record} failed with {error!r}, which is no error of ours")
        if record.deadline and now > record.deadline + LATE:
            raise Violation(f"{record} failed {now - record.deadline:.3f} s after its timeout")
        early = record.deadline - now
        if (
            isinstance(error, CallTimeout)
            and early > LATE
            and not (record.nested or record.sources)
        ):
            raise Violation(f"{record} timed out {early:.3f} s too early")
        keys = self._world.keys
        denied = keys is not None and keys.may_fail(record.session)
        if self._world.peaceful and not (denied or record.fallible()):
            raise Violation(f"{record} failed though nothing went wrong")

    def item(self, record: Record, index: int, value: bytes) -> None:
        """An item of a stream was read."""
        if index >= len(record.items) or record.items[index] != value:
            raise Violation(f"item {index} of {record} is {value!r}")

    def stream_over(self, record: Record, count: int) -> None:
        """A stream ended well."""
        if count != len(record.items):
            raise Violation(f"{record} gave {count} of {len(record.items)} items")

    # --- at the end -----------------------------------------------------------------------------

    def pending(self, living: set[str]) -> list[Record]:
        """Calls of living callers without an outcome."""
        return [r for r in self.records if r.settled is None and r.caller in living]

    def owed(self, living: set[str]) -> list[Record]:
        """As ``pending``, but those that wait for something whose group has no room."""
        return [r for r in self.pending(living) if not r.stalls()]
