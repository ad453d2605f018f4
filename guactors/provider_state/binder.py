"""How a worker enters the service of a session: its image is unpacked, the hub learns whose it is,
and it learns whom to admit.

Owns: Bind and what goes before it, the CURVE keys of callers. Must never: pick a worker or judge an
order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from guactors.errors import InternalError
from guactors.messages import (
    Admit,
    AdmitCaller,
    Bind,
    Expel,
    LeaseStarted,
    LoadActor,
    StartLease,
    Vouch,
)
from guactors.provider_state.devices import DeviceBook
from guactors.provider_state.effects import Effect, LimitWorker, PrepareRoot, SendWorker
from guactors.provider_state.hub_line import HubLine
from guactors.provider_state.permits import Permits
from guactors.provider_state.pool import Pool
from guactors.provider_state.workers import (
    Hosting,
    Job,
    Leased,
    Preparing,
    Starting,
    Worker,
    order_key,
)

_ON_THE_MACHINE = ("python", "native")
"""Runtimes that run what is in an image as files of this machine."""
MOST_ACTORS = 1000
"""Actors whose callers are remembered before the actor itself is told of."""


class Binder:
    """See the module."""

    def __init__(self, pool: Pool, line: HubLine, permits: Permits, devices: DeviceBook) -> None:
        self._devices = devices
        self._pool = pool
        self._line = line
        self._permits = permits
        self._callers: dict[str, list[str]] = {}

    def serve(self, now: float) -> list[Effect]:
        """Put free workers to the pending jobs."""
        effects: list[Effect] = []
        for worker, first in self._pool.match(now):
            self._devices.hand_over(order_key(_job(worker).order), worker.worker)
            if isinstance(worker.state, Preparing):
                binding = _job(worker).binding
                unpack = binding.runtime in _ON_THE_MACHINE
                effects.append(PrepareRoot(worker.worker, binding.image, unpack))
            else:
                effects += self._employ(worker, "", now, first=first)
        return effects

    def root_ready(self, worker: Worker, root: str, now: float) -> list[Effect]:
        """Its image is unpacked there: it can begin."""
        self._pool.employ(worker, _job(worker))
        return self._employ(worker, root, now, first=True)

    def _employ(self, worker: Worker, root: str, now: float, *, first: bool) -> list[Effect]:
        job = _job(worker)
        order = job.order
        keys = self._keys(job)
        # Each time: a hub that is new since the last one did not believe it for an idle worker.
        effects = self._vouch([worker], now)
        if first:
            if job.binding.limits is not None and job.binding.runtime == "python":
                effects.append(LimitWorker(worker.worker, job.binding.limits))
            effects.append(SendWorker(worker.worker, _bind(job, keys, root)))
        elif keys:
            effects.append(SendWorker(worker.worker, Admit(keys)))
        if isinstance(order, StartLease):
            started = LeaseStarted(order.lease, worker.worker, worker.endpoints)
            return effects + self._line.tell(started, now)
        load = LoadActor(order.spec, order.incarnation, order.payload, order.signatures)
        return [*effects, SendWorker(worker.worker, load)]

    # --- keys -----------------------------------------------------------------------------------

    def _keys(self, job: Job) -> list[str]:
        order = job.order
        if isinstance(order, StartLease):
            return self._permits.admissible([order.key])
        told = self._callers.pop(order.spec.actor, [])
        return self._permits.admissible(list(dict.fromkeys([*order.keys, *told])))

    def admit_caller(self, message: AdmitCaller) -> list[Effect]:
        """Tell the actor's worker, at its binding if that is still to come."""
        worker = self._pool.find(message.actor)
        if worker is not None and worker.bound:
            keys = self._permits.admissible([message.key])
            return [SendWorker(worker.worker, Admit(keys))] if keys else []
        told = self._callers.setdefault(message.actor, [])
        if message.key not in told:
            told.append(message.key)
        if len(self._callers) > MOST_ACTORS:
            del self._callers[next(iter(self._callers))]
        return []

    def forget_callers(self, actor: str) -> None:
        """The actor has ended."""
        self._callers.pop(actor, None)

    def expel(self, transports: Collection[str]) -> list[Effect]:
        """These keys are shut out everywhere; workers that are not ready yet are not told of them
        in the first place."""
        keys = [key for key in transports if key]
        if not keys:
            return []
        return [
            SendWorker(worker.worker, Expel(keys))
            for worker in self._pool.workers.values()
            if not isinstance(worker.state, Starting)
        ]

    # --- the hub --------------------------------------------------------------------------------

    def vouch_again(self, now: float) -> list[Effect]:
        """On a new line, for every worker of which the Offer told what it does: for others this hub
        may not know yet that their session had work here."""
        busy = (
            worker
            for worker in self._pool.workers.values()
            if isinstance(worker.state, Leased | Hosting) and not worker.dying
        )
        return self._vouch(busy, now)

    def _vouch(self, workers: Iterable[Worker], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for worker in workers:
            if worker.transport:
                vouch = Vouch(worker.worker, worker.transport, worker.session)
                effects += self._line.tell(vouch, now)
        return effects


def _job(worker: Worker) -> Job:
    if worker.job is None:
        raise InternalError(f"worker {worker.worker} begins with nothing")
    return worker.job


def _bind(job: Job, keys: list[str], root: str) -> Bind:
    order, binding = job.order, job.binding
    lease, namespace, shape = (
        (order.lease, order.namespace, order.shape)
        if isinstance(order, StartLease)
        else ("", order.spec.namespace, order.spec.shape)
    )
    signers = None if binding.signers is None else list(binding.signers)
    runtime = "" if binding.runtime == "python" else binding.runtime
    devices = {kind: list(ids) for kind, ids in binding.devices}
    return Bind(
        binding.session, namespace, lease, keys, signers, root, runtime, job.env, devices,
        binding.group, binding.capture, binding.image,
        binding.limits if runtime else None, shape.terms,
    )  # fmt: skip
