"""Ray's scheduling strategies under Ray's names: what ``scheduling_strategy=`` takes.

Owns: their arguments and checks. Pure; must never: know how they are carried out (the hub does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guactors.errors import UnknownOption


class In:
    """The label is one of the values."""

    def __init__(self, *values: str) -> None:
        self.values = _texts(values)

    def condition(self) -> str:
        """As the hub reads it."""
        return f"in({','.join(self.values)})"


class NotIn(In):
    """The label is none of the values, or is not there."""

    def condition(self) -> str:
        return f"!{super().condition()}"


class Exists:
    """The label is there."""

    def condition(self) -> str:
        """As the hub reads it."""
        return "*"


class DoesNotExist:
    """The label is not there."""

    def condition(self) -> str:
        """As the hub reads it."""
        return "!*"


def _texts(values: tuple[Any, ...]) -> tuple[str, ...]:
    if not values or not all(isinstance(value, str) for value in values):
        raise UnknownOption(f"In and NotIn take one or more texts, not {values!r}")
    if any(set(value) & set(",()") for value in values):
        raise UnknownOption(f"values of labels have no commas or brackets: {values!r}")
    return values


class PlacementGroupSchedulingStrategy:
    """Inside a placement group, in the bundle of that index, or with -1 in any; with
    ``placement_group_capture_child_tasks`` also what is made in there, unless it says otherwise."""

    def __init__(
        self,
        placement_group: Any,
        placement_group_bundle_index: int = -1,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        if not isinstance(getattr(placement_group, "id", None), str):
            raise UnknownOption(f"{placement_group!r} is no placement group")
        index = placement_group_bundle_index
        if not isinstance(index, int) or isinstance(index, bool) or index < -1:
            raise UnknownOption(f"placement_group_bundle_index={index!r}: it takes -1 or an index")
        self.placement_group = placement_group
        self.placement_group_bundle_index = index
        self.placement_group_capture_child_tasks = placement_group_capture_child_tasks


class NodeAffinitySchedulingStrategy:
    """On the provider of that id. ``soft``: elsewhere if it is gone, or could never do it."""

    def __init__(self, node_id: str, soft: bool) -> None:
        if not isinstance(node_id, str) or not node_id:
            raise UnknownOption(f"node_id={node_id!r}: it takes an id as nodes() lists them")
        self.node_id = node_id
        self.soft = bool(soft)


Conditions = Mapping[str, In | Exists | DoesNotExist]


class NodeLabelSchedulingStrategy:
    """On a provider whose labels meet all of ``hard``, and if there is one with room, of
    ``soft``."""

    def __init__(self, hard: Conditions, *, soft: Conditions | None = None) -> None:
        self.hard = _conditions("hard", hard)
        self.soft = _conditions("soft", soft or {})
        if not self.hard and not self.soft:
            raise UnknownOption("NodeLabelSchedulingStrategy needs a condition, hard or soft")


def _conditions(name: str, given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise UnknownOption(f"{name}={given!r}: it takes a dict of labels and conditions")
    for label, condition in given.items():
        if not isinstance(label, str) or not isinstance(condition, In | Exists | DoesNotExist):
            raise UnknownOption(
                f"{name}: {label!r}: {condition!r} is no condition; there are In(...), NotIn(...), "
                "Exists() and DoesNotExist()"
            )
    return {label: condition.condition() for label, condition in given.items()}


__all__ = [
    "DoesNotExist", "Exists", "In", "NodeAffinitySchedulingStrategy", "NodeLabelSchedulingStrategy",
    "NotIn", "PlacementGroupSchedulingStrategy",
]  # fmt: skip
