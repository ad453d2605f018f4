"""The options of ``@remote(...)`` and ``.options(...)``: names, checks, defaults.

Owns: what each option may be and whom it is for. Pure. Raises UnknownOption that names the option,
the nearest match, or the possible values.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import msgspec

from guactors.alternatives import MOST_ALTERNATIVES
from guactors.errors import UnknownOption
from guactors.messages import Limits, Shape, Terms
from guactors.placing import (
    COMPANY,
    company_of,
    is_fallback,
    is_labels,
    is_selector,
    is_strategy,
    name_of_reservation,
    where,
)
from guactors.runtime_env.options import check_runtime_env
from guactors.security.words import GIVING_WAY, NEVER, RUNTIMES, is_image_id, is_runtime

TASK = "task"
ACTOR = "actor"
METHOD = "method"
ASYNC_CONCURRENCY = 1000
"""Coroutines of an async actor that run at a time, unless it says otherwise."""
TERMS = tuple(Terms.__struct_fields__)
"""Options that a session may give for all its calls."""
_LIMITS = {"cpu": 0.01, "memory": 1 << 20}
"""What can be limited, and to how little."""


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


def _alternatives(value: Any) -> bool:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_ALTERNATIVES:
        return value is None
    for number, amounts in enumerate(value):
        if not isinstance(amounts, Mapping) or not amounts:
            return False
        for name, amount in amounts.items():
            where = f"alternatives[{number}]"
            if name not in _AMOUNTS:
                near = difflib.get_close_matches(str(name), _AMOUNTS, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_AMOUNTS)}"
                raise UnknownOption(f"{where}: {name!r} is no amount; {hint}")
            if not _WHO[name][1](amount):
                raise UnknownOption(
                    f"{where}: {name}={amount!r} is impossible: it takes {_WHO[name][2]}"
                )
    return True


def _reservation(value: Any) -> bool:
    return value is None or bool(name_of_reservation(value))


def _errors(value: Any) -> bool:
    return isinstance(value, bool) or (
        isinstance(value, list | tuple)
        and all(isinstance(e, type) and issubclass(e, BaseException) for e in value)
    )


def _runtime(value: Any) -> bool:
    return value is None or (isinstance(value, str) and is_runtime(value))


def _image(value: Any) -> bool:
    return value is None or (isinstance(value, str) and is_image_id(value))


def _modes(value: Any) -> bool:
    """Each at most once, and ``never`` alone."""
    if not isinstance(value, list | tuple) or not all(isinstance(mode, str) for mode in value):
        return False
    if NEVER in value:
        return len(value) == 1
    return set(value) <= set(GIVING_WAY) and len(set(value)) == len(value)


def _limits(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, Mapping):
        return False
    for name, amount in value.items():
        if name not in _LIMITS:
            near = difflib.get_close_matches(str(name), _LIMITS, 1)
            hint = f"did you mean {near[0]}?" if near else "there are cpu and memory"
            raise UnknownOption(f"{name!r} is no limit; {hint}")
        if amount is not None and (not _amount(amount) or amount < _LIMITS[name]):
            return False
    return True


def _on_suspended(value: Any) -> bool:
    return value in ("wait", "raise")


def _returns(value: Any) -> bool:
    return value in ("streaming", "dynamic") or _whole(0)(value)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _bound(value: Any) -> bool:
    return value == -1 or _whole(1)(value)


def _groups(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and 0 < len(name) <= 256 and _whole(1)(most)
        for name, most in value.items()
    )


_AMOUNTS = ("num_cpus", "num_gpus", "memory", "resources")
"""What an alternative may say."""
_WHO = {
    "num_cpus": ({TASK, ACTOR}, _amount, "a number of CPUs, 0 or more"),
    "num_gpus": ({TASK, ACTOR}, _units, "a number of GPUs, 0 or more, above 1 a whole one"),
    "memory": ({TASK, ACTOR}, _amount, "bytes, 0 or more"),
    "resources": ({TASK, ACTOR}, _resources, "a dict of custom names (not CPU, GPU, memory)"),
    "alternatives": (
        {TASK, ACTOR},
        _alternatives,
        f"a list of 1 to {MOST_ALTERNATIVES} dicts of {', '.join(_AMOUNTS)}",
    ),
    "labels": ({TASK, ACTOR}, is_labels, "a dict of its own labels, without conditions"),
    **{
        name: ({TASK, ACTOR}, is_selector, "a dict of labels of other work and conditions")
        for name in COMPANY[1:]
    },
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
    "reservation": ({TASK, ACTOR}, _reservation, "a reservation, or its name"),
    "runtime": ({TASK, ACTOR}, _runtime, f"{', '.join(RUNTIMES)}, or that of a driver"),
    "image": ({TASK, ACTOR}, _image, "an image id, sha3-256: and 64 hex digits (gu image list)"),
    "limits": ({TASK, ACTOR}, _limits, "a dict of cpu (processors) and memory (bytes), above 0"),
    "runtime_env": ({TASK, ACTOR}, check_runtime_env, "a dict (env_vars, working_dir, pip, ...)"),
    "preemption": (
        {TASK, ACTOR},
        _modes,
        f"a list of {', '.join(GIVING_WAY)}, each at most once, or ['{NEVER}']",
    ),
    "min_runtime": ({TASK, ACTOR}, _amount, "seconds, 0 or more"),
    "max_suspended": ({TASK, ACTOR}, _amount, "seconds, 0 or more, 0 for no limit"),
    "grace": ({TASK, ACTOR}, _amount, "seconds, 0 or more, 0 to end it at once"),
    "timeout": ({TASK, METHOD}, _seconds, "seconds above 0, or None"),
    "count_suspended": ({TASK, METHOD}, _flag, "a bool"),
    "on_suspended": ({TASK, ACTOR, METHOD}, _on_suspended, "'wait' or 'raise'"),
    "deadline": ({TASK, METHOD}, _seconds, "seconds above 0, or None"),
    "num_returns": ({TASK, METHOD}, _returns, "an integer of 0 or more, 'streaming' or 'dynamic'"),
    "max_calls": ({TASK}, _whole(0), "an integer of 0 or more, 0 for no limit"),
    "_generator_backpressure_num_objects": (
        {TASK, METHOD}, _bound, "an integer of 1 or more, or -1 for no limit",
    ),
    "_actor_generator_backpressure_num_objects": (
        {ACTOR}, _bound, "an integer of 1 or more, or -1 for no limit",
    ),
    "_generator_goes_on": ({TASK}, _flag, "a bool"),
    "max_retries": ({TASK}, _whole(-1), "an integer, -1 for no limit"),
    "retry_exceptions": ({TASK, METHOD}, _errors, "a bool or a list of exception types"),
    "max_restarts": ({ACTOR}, _whole(-1), "an integer, -1 for no limit"),
    "max_task_retries": ({ACTOR, METHOD}, _whole(-1), "an integer, -1 for no limit"),
    "max_concurrency": ({ACTOR}, _whole(1), "an integer of 1 or more"),
    "concurrency_groups": ({ACTOR}, _groups, "a dict of group names and limits of 1 or more"),
    "concurrency_group": ({METHOD}, _text, "the name of one of the actor's concurrency groups"),
    "allow_out_of_order_execution": ({ACTOR}, lambda v: v is None or _flag(v), "a bool or None"),
    "max_pending_calls": ({ACTOR}, _bound, "an integer of 1 or more, or -1 for no limit"),
    "enable_task_events": ({TASK, ACTOR, METHOD}, _flag, "a bool"),
    "name": ({TASK, ACTOR, METHOD}, _text, "a text of 1 to 256 characters"),
    "namespace": ({ACTOR}, _text, "a text of 1 to 256 characters"),
    "get_if_exists": ({ACTOR}, _flag, "a bool"),
    "lifetime": ({ACTOR}, lambda v: v in (None, "detached", "non_detached"), "None or 'detached'"),
}  # fmt: skip


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


def window_of(options: Mapping[str, Any], *, streams: bool, whose: str) -> int:
    """Items that a call's reader may leave unread before its producer pauses, 0 for any number.
    Raises UnknownOption where there is no stream that could pause."""
    given = options.get("_generator_backpressure_num_objects", -1)
    if given > 0 and not streams:
        raise UnknownOption(
            f"_generator_backpressure_num_objects={given} is impossible for {whose}: it streams "
            "nothing; make it a generator, or give it num_returns='streaming'"
        )
    return max(0, int(given))


def tighter(one: int, other: int) -> int:
    """The smaller of two windows, of which 0 is the widest."""
    return min(one, other) if one and other else one or other


def max_calls_of(options: Mapping[str, Any]) -> int:
    """Runs of a task's function after which its worker leaves, 0 for no end. What uses a GPU gets
    a process of its own unless it says otherwise: libraries keep a GPU's memory till they end."""
    given = options.get("max_calls")
    if given is not None:
        return int(given)
    choices = (options, *(options.get("alternatives") or ()))
    return 1 if any(choice.get("num_gpus") for choice in choices) else 0


def raises_of(options: Mapping[str, Any]) -> bool | None:
    """Whether who waits is told that a call stands still; None where that is not said."""
    given = options.get("on_suspended")
    return None if given is None else given == "raise"


class Concurrency(NamedTuple):
    """How an actor runs its calls. ``most`` at a time, and in each of ``groups`` as many more.
    ``unordered``: a call may overtake one that waits for its arguments."""

    most: int
    groups: dict[str, int]
    unordered: bool


def concurrency_of(
    options: Mapping[str, Any], *, is_async: bool, used: Mapping[str, str]
) -> Concurrency:
    """What the options of an actor mean; ``used``: the group that each method names. Raises
    UnknownOption where they contradict each other."""
    most = options.get("max_concurrency") or (ASYNC_CONCURRENCY if is_async else 1)
    groups = dict(options.get("concurrency_groups") or {})
    for method, group in used.items():
        if group:
            check_group(group, groups, f"method {method}")
    asked = options.get("allow_out_of_order_execution")
    at_once = is_async or most > 1
    if asked is False and at_once:
        what = "an async actor" if is_async else f"an actor with max_concurrency={most}"
        raise UnknownOption(
            f"allow_out_of_order_execution=False is impossible for {what}: its calls run at the "
            "same time, in no order"
        )
    return Concurrency(most, groups, at_once if asked is None else asked)


def check_group(group: str, groups: Collection[str], whose: str) -> None:
    """Raise UnknownOption where the actor has no such group."""
    if group in groups:
        return
    near = difflib.get_close_matches(group, groups, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(groups) or 'none'}"
    raise UnknownOption(f"concurrency_group={group!r} of {whose} is no group of the actor; {hint}")


def check_terms(*given: Any) -> dict[str, Any]:
    """Values for TERMS, of which None says nothing, as options. Raises UnknownOption."""
    said = zip(TERMS, given, strict=True)
    found = check_options({name: value for name, value in said if value is not None}, TASK)
    if "preemption" in found:
        found["preemption"] = list(found["preemption"])
    return found


def inherited(terms: Terms | None) -> dict[str, Any]:
    """As options, what is said in them."""
    if terms is None:
        return {}
    return {name: value for name in TERMS if (value := getattr(terms, name))}


def shape_in(terms: Mapping[str, Any], options: Mapping[str, Any], default_cpus: float) -> Shape:
    """As ``shape_of``, in a session of these ``terms``: they count where the options say nothing,
    and for what it calls in turn."""
    shape = shape_of({**terms, **options}, default_cpus)
    return msgspec.structs.replace(shape, terms=Terms(**terms)) if terms else shape


def shape_of(options: Mapping[str, Any], default_cpus: float) -> Shape:
    """What a task or actor needs of a provider."""
    choices = (options, *(options.get("alternatives") or ()))
    amounts, *others = [_amounts(choice, default_cpus) for choice in choices]
    labels, provider, place = where(options, (amounts, *others))
    return Shape(
        amounts,
        options.get("priority", 0),
        labels,
        provider,
        options.get("runtime") or "",
        options.get("image") or "",
        list(options.get("preemption", ())),
        limits=limits_of(options.get("limits")),
        place=place,
        min_runtime=float(options.get("min_runtime", 0)),
        max_suspended=float(options.get("max_suspended", 0)),
        grace=float(options.get("grace", 0)),
        alternatives=others,
        company=company_of(options),
    )


def _amounts(options: Mapping[str, Any], default_cpus: float) -> dict[str, float]:
    amounts = {"CPU": float(options.get("num_cpus", default_cpus))}
    amounts["GPU"] = float(options.get("num_gpus", 0))
    amounts["memory"] = float(options.get("memory", 0))
    for name, amount in options.get("resources", {}).items():
        amounts[name] = float(amount)
    return {name: amount for name, amount in amounts.items() if amount}


def limits_of(given: Mapping[str, float] | None) -> Limits | None:
    """On the wire."""
    if not given:
        return None
    return Limits(float(given.get("cpu") or 0), int(given.get("memory") or 0))
