"""Reservations over HTTP: room that is kept for a time.

Owns: these routes and their forms. Must never: reserve by the door's own rights.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field

from guactors.errors import UnknownOption
from guactors.reservations import ask_end, ask_room, ask_rows, spec_of
from guactors.web.answers import Refused
from guactors.web.deputy import Deputies
from guactors.web.forms import Form
from guactors.web.guard import Refusal
from guactors.web.hub_client import Hub
from guactors.web.session_routes import SessionPath, ask_in

Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=256)]
ReservationName = Annotated[str, Field(min_length=1, max_length=48)]
Named = Annotated[str, Path(min_length=1, max_length=48)]


class ReservationForm(Form):
    """What is to be kept, ``seconds`` long, from ``start`` on (epoch seconds; null is now);
    ``memory`` in bytes."""

    name: ReservationName
    seconds: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    start: Annotated[float | None, Field(ge=0, le=1e15, allow_inf_nan=False)] = None
    cpus: Amount = 1.0
    gpus: Amount = 0.0
    memory: Amount = 0.0
    resources: Annotated[dict[Name, Amount], Field(max_length=100)] = Field(default_factory=dict)
    priority: int = 0
    labels: Annotated[dict[Name, Name], Field(max_length=100)] = Field(default_factory=dict)
    provider: Name | None = None
    allow: Annotated[list[Name], Field(max_length=1000)] = Field(default_factory=list)

    def options(self) -> dict[str, object]:
        """Of a remote function."""
        return {
            "num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory,
            "resources": self.resources, "priority": self.priority,
            "label_selector": self.labels, "provider": self.provider,
        }  # fmt: skip


class ReservationRow(BaseModel):
    """One that is to come, looks for room, or stands. Times are epoch seconds."""

    name: str
    state: str
    start: float
    end: float
    required_resources: dict[str, float]
    priority: int
    node_id: str | None
    provider: str | None
    labels: dict[str, str]
    leases: int
    actors: int
    owner: str
    allow: str | None


def reservation_routes(hub: Hub, deputies: Deputies) -> APIRouter:
    """In one session, with the rights of its key."""
    routes = APIRouter(prefix="/sessions/{session}", tags=["reservations"])

    @routes.get("/reservations")
    async def reservations(session: SessionPath, request: Request) -> list[ReservationRow]:
        """Those that the key of the session may use."""
        rows = await ask_in(hub, deputies, session, request, ask_rows)
        return [ReservationRow.model_validate(row) for row in rows]

    @routes.post("/reservations", status_code=201)
    async def reserve(
        session: SessionPath, form: ReservationForm, request: Request
    ) -> ReservationForm:
        """Keep room; for keys that may do everything."""
        try:
            spec = spec_of(form.name, form.start, form.seconds, form.options(), form.allow)
        except UnknownOption as error:
            detail = f"body: {error}"
            raise Refused(Refusal(400, "UsageError", "malformed", detail)) from None
        await ask_in(hub, deputies, session, request, lambda asker: ask_room(asker, spec))
        return form

    @routes.delete("/reservations/{name}", status_code=204)
    async def unreserve(session: SessionPath, name: Named, request: Request) -> None:
        """End it; what runs in it goes on."""
        await ask_in(hub, deputies, session, request, lambda asker: ask_end(asker, name))

    return routes
