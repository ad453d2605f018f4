"""Resources that are counted one by one, as GPUs are: their kinds, and how a process is told which
of them it may use.

Owns: the table of kinds. Pure; must never: look at a machine, or choose a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

VISIBLE = {
    "GPU": "CUDA_VISIBLE_DEVICES",
    "HPU": "HABANA_VISIBLE_MODULES",
    "NPU": "ASCEND_RT_VISIBLE_DEVICES",
    "TPU": "TPU_VISIBLE_CHIPS",
    "neuron_cores": "NEURON_RT_VISIBLE_CORES",
}
"""The environment variable by which the libraries of each kind are told."""
OWN = "GU_VISIBLE_"
"""Begins the variable of a kind that no library knows."""


def variable_of(kind: str) -> str:
    """The environment variable that lists the visible devices of a kind."""
    letters = "".join(c if c.isascii() and c.isalnum() else "_" for c in kind.upper())
    return VISIBLE.get(kind, OWN + letters)


def devices_of(
    resources: Mapping[str, float], named: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """The ids of a provider's devices by kind: as they are ``named``, else counted from 0."""
    found = {
        kind: list(ids)[: ceil(resources[kind])]
        for kind, ids in named.items()
        if resources.get(kind)
    }
    for kind in VISIBLE:
        if resources.get(kind) and kind not in found:
            found[kind] = [str(number) for number in range(ceil(resources[kind]))]
    return found


def environment(devices: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """What a process must have in its environment so that it sees just these."""
    return {variable_of(kind): ",".join(ids) for kind, ids in devices.items()}
