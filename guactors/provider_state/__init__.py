"""The thinking half of a provider: which worker does what, and what the hub is told of it.

Owns: the door to :class:`ProviderCore` and the effects it returns. Must never: do I/O, read a
clock, draw randomness. ``provider_actor`` carries the effects out; ``tests/sim`` does so in
simulated time.
"""

from __future__ import annotations

from guactors.provider_state.core import ProviderCore
from guactors.provider_state.effects import (
    BuildPart,
    Dial,
    DropHub,
    DropWorker,
    Effect,
    GiveUp,
    HaltWorker,
    KillWorker,
    LimitWorker,
    MeasureMemory,
    NeedImage,
    Note,
    Part,
    PrepareRoot,
    ReadIdle,
    Ready,
    RemovePart,
    RemoveRoot,
    SendHub,
    SendWorker,
    StartWorker,
    TakeSample,
    TakeStack,
)
from guactors.provider_state.memory_watch import Memory
from guactors.provider_state.shelf import ImageFacts

__all__ = [
    "BuildPart",
    "Dial",
    "DropHub",
    "DropWorker",
    "Effect",
    "GiveUp",
    "HaltWorker",
    "ImageFacts",
    "KillWorker",
    "LimitWorker",
    "MeasureMemory",
    "Memory",
    "NeedImage",
    "Note",
    "Part",
    "PrepareRoot",
    "ProviderCore",
    "ReadIdle",
    "Ready",
    "RemovePart",
    "RemoveRoot",
    "SendHub",
    "SendWorker",
    "StartWorker",
    "TakeSample",
    "TakeStack",
]
