"""The options of ``@remote(...)`` and ``.options(...)``: names, checks, defaults.

Owns: what each option may be and whom it is for. Pure. Raises UnknownOption that names the option,
the nearest match, or the possible values.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any

from guactors.errors import UnknownOption
from guactors.messages import Shape
from guactors.placing import is_fallback, is_selector, is_strategy, where
from guactors.security.words import PREEMPTION, RUNTIMES, is_image_id

TASK = "task"
ACTOR = "actor"
METHOD = "method"


def _amount(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and 0 <= value <= 1e15
    )


def _units(value: Any) -> bool:
    return _amount(value) and (value <= 1 or value == int(value))


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**31
    )


def _seconds(value: Any) -> bool:
    return value is None or (_amount(value) and value > 0)


def _text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and 0 < len(value) <= 256)


def _resources(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and all(isinstance(k, str) and k not in ("CPU", "GPU", "memory") for k in value)
        and all(_amount(v) for v in value.values())
    )


def _errors(value: Any) -> bool:
    return isinstance(value, bool) or (
        isinstance(value, list | tuple)
        and all(isinstance(e, type) and issubclass(e, BaseException) for e in value)
    )


def _runtime(value: Any) -> bool:
    return value is None or value in RUNTIMES


def _image(value: Any) -> bool:
    return value is None or (isinstance(value, str) and is_image_id(value))


def _modes(value: Any) -> bool:
    return isinstance(value, list | tuple) and set(value) <= set(PREEMPTION)


def _returns(value: Any) -> bool:
    return value == "streaming" or _whole(0)(value)


_WHO = {
    "num_cpus": ({TASK, ACTOR}, _amount, "a number of CPUs, 0 or more"),
    "num_gpus": ({TASK, ACTOR}, _units, "a number of GPUs, 0 or more, above 1 a whole one"),
    "memory": ({TASK, ACTOR}, _amount, "bytes, 0 or more"),
    "resources": ({TASK, ACTOR}, _resources, "a dict of custom names (not CPU, GPU, memory)"),
    "label_selector": ({TASK, ACTOR}, is_selector, "a dict of provider labels and conditions"),
    "fallback_strategy": ({TASK, ACTOR}, is_fallback, "a list of {'label_selector': {...}}"),
    "scheduling_strategy": (
        {TASK, ACTOR},
        is_strategy,
        "'DEFAULT', 'SPREAD' or one of guactors.util.scheduling_strategies",
    ),
    "accelerator_type": ({TASK, ACTOR}, _text, "a kind of accelerator"),
    "provider": ({TASK, ACTOR}, _text, "a provider's id or name"),
    "priority": ({TASK, ACTOR, METHOD}, _whole(-(2**31)), "an integer, bigger goes first"),
    "runtime": ({TASK, ACTOR}, _runtime, f"one of {', '.join(RUNTIMES)}"),
    "image": ({TASK, ACTOR}, _image, "an image id, sha3-256: and 64 hex digits (gu image list)"),
    "preemption": ({TASK, ACTOR}, _modes, f"a list of {', '.join(PREEMPTION)}"),
    "timeout": ({TASK, METHOD}, _seconds, "seconds above 0, or None"),
    "num_returns": ({TASK, METHOD}, _returns, "an integer of 0 or more, or 'streaming'"),
    "max_retries": ({TASK}, _whole(-1), "an integer, -1 for no limit"),
    "retry_exceptions": ({TASK, METHOD}, _errors, "a bool or a list of exception types"),
    "max_restarts": ({ACTOR}, _whole(-1), "an integer, -1 for no limit"),
    "max_task_retries": ({ACTOR, METHOD}, _whole(-1), "an integer, -1 for no limit"),
    "max_concurrency": ({ACTOR}, _whole(1), "an integer of 1 or more"),
    "name": ({TASK, ACTOR, METHOD}, _text, "a text of 1 to 256 characters"),
    "namespace": ({ACTOR}, _text, "a text of 1 to 256 characters"),
    "get_if_exists": ({ACTOR}, lambda v: isinstance(v, bool), "a bool"),
    "lifetime": ({ACTOR}, lambda v: v in (None, "detached", "non_detached"), "None or 'detached'"),
}


def check_options(given: Mapping[str, Any], who: str) -> dict[str, Any]:
    """``given`` as a dict, each option known, meant for ``who``, and of a possible value."""
    for name, value in given.items():
        known = _WHO.get(name)
        if known is None or who not in known[0]:
            names = [n for n, (whom, _, _) in _WHO.items() if who in whom]
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(names))}"
            raise UnknownOption(f"{name!r} is no option of a remote {who}; {hint}")
        if not known[1](value):
            raise UnknownOption(f"{name}={value!r} is impossible: it takes {known[2]}")
    return dict(given)


def shape_of(options: Mapping[str, Any], default_cpus: float) -> Shape:
    """What a task or actor needs of a provider."""
    amounts = {"CPU": float(options.get("num_cpus", default_cpus))}
    amounts["GPU"] = float(options.get("num_gpus", 0))
    amounts["memory"] = float(options.get("memory", 0))
    for name, amount in options.get("resources", {}).items():
        amounts[name] = float(amount)
    labels, provider, place = where(options, amounts)
    return Shape(
        {name: amount for name, amount in amounts.items() if amount},
        options.get("priority", 0),
        labels,
        provider,
        options.get("runtime") or "",
        options.get("image") or "",
        list(options.get("preemption", ())),
        place,
    )
