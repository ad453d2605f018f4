"""The thinking half of a provider: which worker does what, and what the hub is told of it.

Owns: the door to :class:`ProviderCore` and the effects it returns. Must never: do I/O, read a
clock, draw randomness. ``provider_actor`` carries the effects out; ``tests/sim`` does so in
simulated time.
"""

from __future__ import annotations

from guactors.provider_state.core import ProviderCore
from guactors.provider_state.effects import (
    Dial,
    DropHub,
    DropWorker,
    Effect,
    GiveUp,
    KillWorker,
    NeedImage,
    Note,
    PrepareRoot,
    Ready,
    RemoveRoot,
    SendHub,
    SendWorker,
    StartWorker,
    TakeSample,
    TakeStack,
)
from guactors.provider_state.shelf import ImageFacts

__all__ = [
    "Dial",
    "DropHub",
    "DropWorker",
    "Effect",
    "GiveUp",
    "ImageFacts",
    "KillWorker",
    "NeedImage",
    "Note",
    "PrepareRoot",
    "ProviderCore",
    "Ready",
    "RemoveRoot",
    "SendHub",
    "SendWorker",
    "StartWorker",
    "TakeSample",
    "TakeStack",
]
