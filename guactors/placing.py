"""From the options of a task or actor to where it may be placed.

Owns: the meaning of ``scheduling_strategy``, ``label_selector``, ``fallback_strategy``,
``accelerator_type``, and of ``labels`` and the affinities to them. Pure. Raises UnknownOption for
what can never be met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from guactors.errors import UnknownOption
from guactors.ids import reservation_id
from guactors.messages import Company, Placing
from guactors.scheduling.selectors import in_order, met
from guactors.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

DEFAULT, SPREAD = "DEFAULT", "SPREAD"
ACCELERATOR = "accelerator_type"
"""The label that says which kind of accelerator a provider has."""
LONGEST = 256
COMPANY = ("labels", "affinity", "anti_affinity", "preferred_affinity", "preferred_anti_affinity")
"""Options that make a Company, in the order of its fields."""
LONGEST_NAME = 48
"""Of a reservation."""
Strategy = (
    PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy | NodeLabelSchedulingStrategy
)


def is_strategy(value: Any) -> bool:
    """Whether ``scheduling_strategy=`` takes it."""
    return (
        value in (None, DEFAULT, SPREAD)
        if isinstance(value, str | None)
        else (isinstance(value, Strategy))
    )


def is_selector(value: Any) -> bool:
    """Whether ``label_selector=`` takes it."""
    return isinstance(value, Mapping) and all(
        isinstance(name, str)
        and isinstance(text, str)
        and 0 < len(name) <= LONGEST
        and 0 < len(text) <= LONGEST
        for name, text in value.items()
    )


def name_of_reservation(value: Any) -> str:
    """Of a name or a handle; empty where it is neither."""
    name = getattr(value, "name", value)
    return name if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME else ""


def is_fallback(value: Any) -> bool:
    """Whether ``fallback_strategy=`` takes it."""
    return value is None or (
        isinstance(value, list | tuple)
        and len(value) <= 64
        and all(
            isinstance(one, Mapping)
            and set(one) == {"label_selector"}
            and is_selector(one["label_selector"])
            for one in value
        )
    )


def is_labels(value: Any) -> bool:
    """Whether ``labels=`` takes it: plain values, for what begins so would be a condition."""
    return is_selector(value) and not any(
        text.startswith(("!", "in(")) or text == "*" for text in value.values()
    )


def company_of(options: Mapping[str, Any]) -> Company | None:
    """What the checked options say about work beside which it may be; None if nothing. Raises
    UnknownOption for what can never be met."""
    found = Company(*(dict(options.get(name) or {}) for name in COMPANY))
    if found == Company():
        return None
    if found.near and found.labels and met(in_order(found.near), found.labels):
        raise UnknownOption(
            f"affinity={found.near} is met by its own labels, so the first would wait for itself: "
            "use preferred_affinity=, or a placement group with strategy='STRICT_PACK'"
        )
    if found.near and found.near == found.apart:
        raise UnknownOption(f"affinity and anti_affinity are both {found.near}: never met")
    return found


class Where(NamedTuple):
    """Parts of a Shape."""

    labels: dict[str, str]
    provider: str
    place: Placing | None


def where(options: Mapping[str, Any], choices: Sequence[Mapping[str, float]]) -> Where:
    """What the checked options say; ``choices``: amounts, of which it asks for one."""
    labels = dict(options.get("label_selector") or {})
    provider = options.get("provider") or ""
    strategy = options.get("scheduling_strategy")
    fallback = [dict(x["label_selector"]) for x in options.get("fallback_strategy") or ()]
    place = Placing(fallback=fallback) if fallback else None
    if options.get("accelerator_type"):
        for selector in (labels, *fallback):
            selector.setdefault(ACCELERATOR, options["accelerator_type"])
    if options.get("reservation") is not None:
        if strategy not in (None, DEFAULT):
            raise UnknownOption("reservation and scheduling_strategy exclude each other")
        name = name_of_reservation(options["reservation"])
        place = Placing(fallback=fallback, group=reservation_id(name))
    elif strategy == SPREAD:
        place = Placing(spread=True, fallback=fallback)
    elif isinstance(strategy, PlacementGroupSchedulingStrategy):
        place = _in_group(strategy, choices, fallback)
    elif isinstance(strategy, NodeAffinitySchedulingStrategy):
        if provider and provider != strategy.node_id:
            raise UnknownOption(f"provider={provider!r} and node {strategy.node_id!r} differ")
        if strategy.soft:
            place = Placing(prefer=strategy.node_id, fallback=fallback)
        else:
            provider = strategy.node_id
    elif isinstance(strategy, NodeLabelSchedulingStrategy):
        labels = _joined(labels, strategy.hard)
        place = Placing(soft=strategy.soft, fallback=fallback) if strategy.soft else place
    return Where(labels, provider, place)


def _joined(labels: dict[str, str], hard: dict[str, str]) -> dict[str, str]:
    twice = [name for name in hard if labels.get(name, hard[name]) != hard[name]]
    if twice:
        raise UnknownOption(f"label_selector and scheduling_strategy both speak of {twice[0]!r}")
    return {**labels, **hard}


def _in_group(
    strategy: PlacementGroupSchedulingStrategy,
    choices: Sequence[Mapping[str, float]],
    fallback: list[dict[str, str]],
) -> Placing:
    group, index = strategy.placement_group, strategy.placement_group_bundle_index
    bundles = list(group.bundle_specs)
    if index >= len(bundles):
        raise UnknownOption(
            f"placement_group_bundle_index={index}: {group.id} has the bundles 0 to "
            f"{len(bundles) - 1}"
        )
    able = bundles if index < 0 else bundles[index : index + 1]
    if not any(_fits(amounts, bundle) for amounts in choices for bundle in able):
        asked = " or ".join(str(dict(amounts)) for amounts in choices)
        raise UnknownOption(f"{asked} fits in no bundle of {group.id}, which has {able}")
    capture = bool(strategy.placement_group_capture_child_tasks)
    return Placing(fallback=fallback, group=str(group.id), bundle=index, capture=capture)


def _fits(amounts: Mapping[str, float], bundle: Mapping[str, float]) -> bool:
    return all(amount <= bundle.get(name, 0.0) for name, amount in amounts.items())
