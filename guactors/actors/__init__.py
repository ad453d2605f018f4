"""The actor kit: ``from guactors.actors import Actor, ActorSystem, Priority``.

The door only. Names are loaded when first used, so that a worker process that needs nothing but the
mailbox imports no asyncio.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guactors.actors.actor import Actor, ActorContext, Timer
    from guactors.actors.cell import ActorStatistics
    from guactors.actors.mailbox import MailboxStatistics, Priority, PriorityMailbox
    from guactors.actors.ref import ActorRef
    from guactors.actors.supervision import (
        AllForOne,
        Cause,
        Completed,
        Escalate,
        Escalated,
        Failed,
        Killed,
        Lost,
        Restart,
        Resume,
        StartFailed,
        Stop,
        Stopped,
        SystemShutdown,
        Terminated,
    )
    from guactors.actors.system import ActorSystem, SystemStatistics

_HOMES = {
    "actor": ("Actor", "ActorContext", "Timer"),
    "cell": ("ActorStatistics",),
    "mailbox": ("MailboxStatistics", "Priority", "PriorityMailbox"),
    "ref": ("ActorRef",),
    "supervision": (
        "AllForOne", "Cause", "Completed", "Escalate", "Escalated", "Failed", "Killed", "Lost",
        "Restart", "Resume", "StartFailed", "Stop", "Stopped", "SystemShutdown", "Terminated",
    ),
    "system": ("ActorSystem", "SystemStatistics"),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Actor",
    "ActorContext",
    "ActorRef",
    "ActorStatistics",
    "ActorSystem",
    "AllForOne",
    "Cause",
    "Completed",
    "Escalate",
    "Escalated",
    "Failed",
    "Killed",
    "Lost",
    "MailboxStatistics",
    "Priority",
    "PriorityMailbox",
    "Restart",
    "Resume",
    "StartFailed",
    "Stop",
    "Stopped",
    "SystemShutdown",
    "SystemStatistics",
    "Terminated",
    "Timer",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
