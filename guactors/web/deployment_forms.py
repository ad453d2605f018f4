"""The JSON of deployments, with Golem Unlimited's names.

Owns: names, types and limits of fields, and what they mean to the grid. Must never: hold behaviour
beyond reading and writing them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from guactors.errors import UsageError
from guactors.options import TASK, check_options
from guactors.runtimes.choice import NATIVE
from guactors.security.words import is_image_id
from guactors.web.forms import Form

RUNTIMES: Final = {"hd": NATIVE, "vm": "qemu"}
"""Golem's words for ours; any other names a runtime."""
STATES: Final = {"ended": "destroying", "created": "created", "paused": "running"}
_HASH: Final = re.compile(r"(?:sha3-256|sha3):([0-9a-f]{64})", re.ASCII | re.IGNORECASE)


class Camel(Form):
    """What clients send, its names in camelCase."""

    model_config = ConfigDict(
        extra="forbid", strict=True, hide_input_in_errors=True, populate_by_name=True
    )


class ImageForm(Camel):
    """``hash``: the id of an image that was uploaded; ``url`` is not fetched."""

    url: str = Field("", max_length=2048)
    hash: str = Field("", max_length=256)


class LimitsForm(Camel):
    """The most that all programs together may take: bytes, processors, processes, seconds."""

    mem: int = Field(0, ge=0)
    cpus: float = Field(0.0, ge=0, allow_inf_nan=False)
    pids: int = Field(0, ge=0)
    disk: int = Field(0, ge=0)
    wall: float = Field(0.0, ge=0, allow_inf_nan=False)


class OptionsForm(Camel):
    """Of the image's runtime; ``autostart`` is what happens in any case."""

    autostart: bool = True


def _possible(name: str) -> AfterValidator:
    """As the option of that name of a remote function."""
    return AfterValidator(lambda value: check_options({name: value}, TASK)[name])


class DeploymentForm(Camel):
    """``envType``: hd, docker, vm, or the name of a runtime. ``cpus``, ``memory`` (bytes): what is
    set aside for it. ``preemption``: how it may be made to give way, in this order; ``minRuntime``,
    ``maxSuspended``, ``grace``: seconds. ``seconds``: for how long its beginning is waited for."""

    env_type: str = Field(alias="envType", min_length=1, max_length=64)
    image: ImageForm
    name: str = Field(max_length=256)
    tags: list[str] = Field(max_length=64)
    note: str | None = Field(None, max_length=1024)
    options: OptionsForm | None = None
    env: dict[str, str] = Field(default_factory=dict)
    limits: LimitsForm | None = None
    cpus: float = Field(1.0, ge=0, allow_inf_nan=False)
    memory: float = Field(0.0, ge=0, allow_inf_nan=False)
    priority: Annotated[int, _possible("priority")] = 0
    preemption: Annotated[list[str], _possible("preemption")] = Field([], max_length=8)
    min_runtime: Annotated[float, _possible("min_runtime")] = Field(0.0, alias="minRuntime")
    max_suspended: Annotated[float, _possible("max_suspended")] = Field(0.0, alias="maxSuspended")
    grace: Annotated[float, _possible("grace")] = 0.0
    seconds: float = Field(600.0, gt=0, le=3600, allow_inf_nan=False)

    def runtime(self) -> str:
        """In our words."""
        return RUNTIMES.get(self.env_type, self.env_type)

    def image_id(self) -> str:
        """Raises UsageError for what names no image by its hash."""
        found = _HASH.fullmatch(self.image.hash)
        image = f"sha3-256:{found[1].lower()}" if found else ""
        if not is_image_id(image):
            raise UsageError(
                "images are named by their id, sha3-256: and 64 hex digits, and no URL is fetched: "
                "upload the image with gu image push, or POST /images, and give its id as hash"
            )
        return image

    def shape(self, image: str) -> dict[str, Any]:
        """As options of an actor."""
        return {
            "runtime": self.runtime(), "image": image, "num_cpus": self.cpus,
            "memory": self.memory, "priority": self.priority, "preemption": self.preemption,
            "min_runtime": self.min_runtime, "max_suspended": self.max_suspended,
            "grace": self.grace,
        }  # fmt: skip

    def given(self) -> dict[str, Any]:
        """What the instance is made with."""
        named = {"mem": "memory", "cpus": "cpu"}
        asked = self.limits.model_dump() if self.limits is not None else {}
        limits = {named.get(name, name): amount for name, amount in asked.items() if amount}
        return {"limits": limits, "env": self.env, "name": self.name, "tags": self.tags}


class Deployment(BaseModel):
    """``status``: created, running (a program does), configured (one did), destroying; null
    processes have ended. ``note``: as it was given."""

    id: str
    name: str
    status: str
    tags: list[str]
    note: str | None
    processes: dict[str, dict[str, list[str]]]


def shown(id: str, note: str, facts: Any, programs: dict[int, Any]) -> Deployment:
    """What a deployment is at."""
    status = STATES.get(facts.state, "")
    if not status or facts.state == "paused":
        status = "running" if facts.running else "configured" if facts.ran else "created"
    lives = {str(number): {"tags": list[str]()} for number, end in programs.items() if end is None}
    return Deployment(
        id=id,
        name=facts.name,
        status=status,
        tags=facts.tags,
        note=note or None,
        processes=lives,
    )
