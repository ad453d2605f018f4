"""What `inf` answers: a machine's facts under the names of the Golem roadmap.

Owns: the topics and their fields. Must never: measure anything (``machine.py`` does).

The roadmap asks for ``cpu {architecture, bit, cores, threads}``, ``mem {gib, total, ...}``,
``storage {gib, ...}`` and ``os {name, ...}``; further fields stand after those, and whether its
owner lends it. Amounts are GiB.
"""

from __future__ import annotations

from collections.abc import Callable

from guactors.messages import MachineInfo

Facts = dict[str, str | int | float | list[int]]


def _cpu(info: MachineInfo) -> Facts:
    return {
        "architecture": info.architecture,
        "bit": list(info.bits),
        "cores": info.cores,
        "threads": info.threads,
        "percent": info.cpu_percent,
        "load1": info.load1,
    }


def _mem(info: MachineInfo) -> Facts:
    return {
        "gib": info.memory_total_gib,
        "total": info.memory_total_gib,
        "available": info.memory_available_gib,
    }


def _storage(info: MachineInfo) -> Facts:
    return {
        "gib": info.storage_total_gib,
        "total": info.storage_total_gib,
        "free": info.storage_free_gib,
    }


def _os(info: MachineInfo) -> Facts:
    return {
        "name": info.os_name,
        "release": info.os_release,
        "host": info.host,
        "limits": info.limits,
    }


def _availability(info: MachineInfo) -> Facts:
    """``until`` in epoch seconds, 0 where nobody knows."""
    word = info.availability
    return {
        "lent": "yes" if word.lent else "no",
        "reason": word.reason,
        "until": word.until,
    }


TOPICS: dict[str, Callable[[MachineInfo], Facts]] = {
    "cpu": _cpu,
    "mem": _mem,
    "storage": _storage,
    "os": _os,
    "availability": _availability,
}


def facts(info: MachineInfo, topic: str) -> Facts:
    """The answer to one topic, a key of :data:`TOPICS`."""
    return TOPICS[topic](info)
