"""What a provider tells a hub that it has met again: the leases and actors that live here.

Owns: the reports of an Offer. Must never: change anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from guactors.messages import ActorReport, LeaseReport, StartActor, WarrantWord, WorkerBlocked
from guactors.provider_state.permits import Permits
from guactors.provider_state.pool import Pool
from guactors.provider_state.workers import Hosting, Leased, Order, Preparing, Worker


def lease_reports(pool: Pool) -> list[LeaseReport]:
    """Every lease that has a worker which is not being killed."""
    return [
        LeaseReport(
            worker.state.order.lease,
            worker.state.order.session,
            worker.state.order.caller,
            worker.state.order.shape,
            worker.worker,
            worker.endpoints,
            worker.state.order.principal,
            worker.state.order.seal,
        )
        for worker in pool.workers.values()
        if isinstance(worker.state, Leased) and not worker.dying
    ]


def blocked_leases(pool: Pool) -> list[WorkerBlocked]:
    """Said again after an Offer, which has no word for it."""
    return [
        WorkerBlocked(worker.state.order.lease)
        for worker in pool.workers.values()
        if isinstance(worker.state, Leased) and worker.state.blocked and not worker.dying
    ]


def actor_reports(pool: Pool, waiting: Iterable[Order], permits: Permits) -> list[ActorReport]:
    """Every actor, with no endpoints until its constructor has returned; ``waiting``: orders that
    have no worker yet."""
    reports = []
    for worker in pool.workers.values():
        order = worker.order
        if not isinstance(order, StartActor) or worker.dying:
            continue
        if isinstance(worker.state, Hosting | Preparing):
            alive = isinstance(worker.state, Hosting) and worker.state.alive
            reports.append(_report(order, worker, permits, alive=alive))
    return reports + [
        _report(order, None, permits, alive=False)
        for order in waiting
        if isinstance(order, StartActor)
    ]


def _report(
    order: StartActor, worker: Worker | None, permits: Permits, *, alive: bool
) -> ActorReport:
    warrant: WarrantWord | None = permits.shown(order.spec.session)
    return ActorReport(
        order.spec,
        order.incarnation,
        worker.worker if worker else "",
        worker.endpoints if worker and alive else [],
        order.payload,
        order.signatures,
        warrant,
    )
