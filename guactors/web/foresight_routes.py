"""Why something waits, and what would run where, over HTTP.

Owns: these routes and their forms. Must never: ask by the door's own rights, which show everything.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from guactors.alternatives import MOST_ALTERNATIVES
from guactors.errors import UnknownOption
from guactors.foresight import MOST_PLANNED, ask_plan, ask_why, shape_for
from guactors.web.answers import Refused
from guactors.web.deputy import Deputies
from guactors.web.forms import Form
from guactors.web.guard import Refusal
from guactors.web.hub_client import Hub
from guactors.web.session_routes import SessionPath, ask_in

Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=256)]
Subject = Annotated[str, Query(max_length=64)]


class AmountsForm(Form):
    """What would be held; ``memory`` in bytes."""

    cpus: Amount = 1.0
    gpus: Amount = 0.0
    memory: Amount = 0.0
    resources: Annotated[dict[Name, Amount], Field(max_length=100)] = Field(default_factory=dict)

    def amounts(self) -> dict[str, object]:
        """As options of a remote function."""
        return {
            "num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory,
            "resources": self.resources,
        }  # fmt: skip


class PlanForm(AmountsForm):
    """What would be asked for, ``count`` times. As the options of a remote function;
    ``alternatives``: what would do as well, in this order."""

    priority: int = 0
    labels: Annotated[dict[Name, Name], Field(max_length=100)] = Field(default_factory=dict)
    provider: Name | None = None
    runtime: Name | None = None
    image: Name | None = None
    alternatives: Annotated[list[AmountsForm], Field(max_length=MOST_ALTERNATIVES)] = Field(
        default_factory=list
    )
    count: int = Field(1, ge=1, le=MOST_PLANNED)

    def options(self) -> dict[str, object]:
        """Of a remote function."""
        return {
            **self.amounts(), "priority": self.priority, "label_selector": self.labels,
            "provider": self.provider, "runtime": self.runtime, "image": self.image,
            "alternatives": [one.amounts() for one in self.alternatives] or None,
        }  # fmt: skip


class ExplanationRow(BaseModel):
    """Why one provider does not take one demand; ``reason`` and ``preemption`` are single values.
    ``asked``, ``free``, ``still`` (held by what stands still): of the resources that are short;
    ``counts_as``: the priority, with what it has gained by waiting."""

    demand_id: str
    kind: str
    job_id: str | None
    priority: int
    waiting: int
    node_id: str | None
    node_name: str | None
    reason: str
    preemption: str | None
    detail: str
    asked: dict[str, float]
    free: dict[str, float]
    still: dict[str, float]
    counts_as: int


class Victim(BaseModel):
    """What would give way, and how. ``key`` and ``name`` are empty for what is somebody else's."""

    key: str
    kind: str
    name: str
    mode: str
    priority: int
    frees: dict[str, float]


class Place(BaseModel):
    """Where one would be; ``takes``: what it would hold, where there are alternatives."""

    provider: str
    name: str
    victims: list[Victim]
    takes: dict[str, float]


class Miss(BaseModel):
    """Why a provider takes no more."""

    provider: str
    name: str
    reason: str
    preemption: str
    detail: str
    asked: dict[str, float]
    free: dict[str, float]
    still: dict[str, float]


class PlanAnswer(BaseModel):
    """``missing``: how many would wait, and ``misses`` why; ``never``: why no provider that is
    there could ever do it."""

    places: list[Place]
    missing: int
    misses: list[Miss]
    never: str


def foresight_routes(hub: Hub, deputies: Deputies) -> APIRouter:
    """In one session, with the rights of its key."""
    routes = APIRouter(prefix="/sessions/{session}", tags=["foresight"])

    @routes.get("/explanations")
    async def explanations(
        session: SessionPath, request: Request, subject: Subject = ""
    ) -> list[ExplanationRow]:
        """Why the work of the session waits, or that of one of its demands, leases or actors: a
        row for each provider."""
        found = await ask_in(
            hub, deputies, session, request, lambda asker: ask_why(asker, subject or session)
        )
        return [ExplanationRow.model_validate(row) for row in found.rows]

    @routes.post("/plan")
    async def plan(session: SessionPath, form: PlanForm, request: Request) -> PlanAnswer:
        """What would run where, and who would give way for it. Nothing is started."""
        try:
            shape = shape_for(form.options())
        except UnknownOption as error:
            detail = f"body: {error}"
            raise Refused(Refusal(400, "UsageError", "malformed", detail)) from None
        found = await ask_in(
            hub, deputies, session, request, lambda asker: ask_plan(asker, shape, form.count)
        )
        return PlanAnswer.model_validate(found.record())

    return routes
