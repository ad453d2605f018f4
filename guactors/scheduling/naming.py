"""What a caller may be told about who else is there.

Owns: the names under which leases and actors appear to a caller. Must never: name to it what is not
its principal's: of others it hears the priority only.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from guactors.scheduling.actors import ActorRecord
from guactors.scheduling.desk import Caller, Desk, sees
from guactors.scheduling.events import WORKER
from guactors.scheduling.standing import Tenant

MOST_NAMED: Final = 3


def sees_all(caller: Caller) -> bool:
    """Whether it may see everybody's. A worker may not: other people's code may run in it."""
    return caller.standing.rights.everything and caller.standing.kind != WORKER


def sees_peer(desk: Desk, caller: Caller, peer: str) -> bool:
    """Whether what the caller ``peer`` has may be seen."""
    if sees_all(caller):
        return True
    other = desk.callers.get(peer)
    return other is not None and other.principal == caller.principal


def may_name(desk: Desk, viewer: Caller, tenant: Tenant) -> bool:
    """Whether the lease or actor may be named to the viewer."""
    if isinstance(tenant, ActorRecord):
        return sees(viewer, tenant)
    return sees_peer(desk, viewer, tenant.caller)


def named(desk: Desk, viewer: Caller, tenant: Tenant) -> str:
    """Its name as the viewer may hear it."""
    if not may_name(desk, viewer, tenant):
        return f"work of priority {tenant.need.priority} of somebody else"
    if isinstance(tenant, ActorRecord):
        return f"{tenant.id} ({tenant.spec.class_name})"
    return tenant.id


def names(desk: Desk, viewer: Caller, tenants: Sequence[Tenant]) -> str:
    """Of several; equal ones once."""
    found = list(dict.fromkeys(named(desk, viewer, tenant) for tenant in tenants))
    more = len(found) - MOST_NAMED
    return ", ".join(found[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def time_text(epoch: float) -> str:
    """A time on the wall, for people."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
