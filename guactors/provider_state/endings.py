"""What the hub is told of the end of a lease or actor, also of one that never began.

Owns: these reports, the line in the audit log that goes with a refusal, and which actors ended here
lately. Must never: decide that something ends.
"""

from __future__ import annotations

from msgspec.structs import replace

from guactors.messages import (
    ActorEnded,
    DeathReport,
    LeaseEnded,
    Report,
    StartLease,
)
from guactors.provider_state.binder import Binder
from guactors.provider_state.devices import DeviceBook
from guactors.provider_state.effects import Effect
from guactors.provider_state.gate import Refused
from guactors.provider_state.hub_line import HubLine
from guactors.provider_state.latest import Latest
from guactors.provider_state.permits import Permits
from guactors.provider_state.workers import Order, order_key, order_session, order_shape


class Endings:
    """``provider``: its name, as death reports carry it."""

    def __init__(
        self, provider: str, line: HubLine, permits: Permits, devices: DeviceBook, binder: Binder
    ) -> None:
        self._provider = provider
        self._line = line
        self._permits = permits
        self._devices = devices
        self._binder = binder
        self.had = Latest()
        """Actors that ended, with their incarnation."""

    def deny(self, order: Order, refused: Refused, now: float) -> list[Effect]:
        """Refuse it, and have it written into the audit log, but for a mishap."""
        if refused.cause == "env_failed":
            return self.refuse(order, refused.cause, refused.detail, now)
        session = order_session(order)
        who = self._permits.principal(session) or "unknown"
        what = order_shape(order).image or type(order).__name__
        told = Report(who, "submit", what, refused.reason, refused.detail, session)
        return [
            *self._line.tell(told, now),
            *self.refuse(order, refused.cause, refused.detail, now),
        ]

    def refuse(self, order: Order, cause: str, detail: str, now: float) -> list[Effect]:
        """It never began."""
        return self.end(order, DeathReport(cause, detail, provider=self._provider), now)

    def end(self, order: Order, death: DeathReport, now: float) -> list[Effect]:
        """It is over."""
        self._devices.release(order_key(order))
        if isinstance(order, StartLease):
            return self._line.tell(LeaseEnded(order.lease, death), now)
        self.had.add(order.spec.actor, str(order.incarnation), now)
        self._binder.forget_callers(order.spec.actor)
        return self._line.tell(ActorEnded(order.spec.actor, order.incarnation, death), now)

    def no_interpreter(self, told: DeathReport, python: str, failure: str) -> DeathReport:
        """A worker of an environment's own interpreter never came up: it was the environment."""
        detail = (
            f"the runtime_env could not be set up on {self._provider}: its interpreter {python} "
            f"runs no workers: {failure}"
        )
        return replace(told, cause="env_failed", detail=detail)
