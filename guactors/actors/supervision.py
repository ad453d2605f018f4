"""Why actors end, and what happens to one that failed.

Owns: the typed causes of death, the strategies, the restart budget, the decision. Must never: read
a clock, touch an actor, or carry out what it decides (``life.py`` does).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct, field

from guactors.errors import ActorDied, ActorKilled, Death, UsageError

if TYPE_CHECKING:
    from guactors.actors.ref import ActorRef


# --- causes of death -----------------------------------------------------------------------------


class Completed(Struct, frozen=True):
    """It stopped itself, or was drained: its work is done."""


class Stopped(Struct, frozen=True):
    """Asked to stop after its current message; ``by`` says by whom."""

    by: str = ""


class Killed(Struct, frozen=True):
    """Ended at once, without its ``on_stop``; ``by`` says by whom."""

    by: str = ""


class Failed(Struct, frozen=True):
    """Its own code raised ``error`` and its strategy said stop."""

    error: BaseException


class StartFailed(Struct, frozen=True):
    """Its constructor or ``on_start`` raised ``error`` at the first start."""

    error: BaseException


class Escalated(Struct, frozen=True):
    """A child failed with ``error``, its strategy said escalate, and ours said stop."""

    child: str
    error: BaseException


class SystemShutdown(Struct, frozen=True):
    """Its actor system was shut down."""


class Lost(Struct, frozen=True):
    """The wire to a remote actor broke: its fate is unknown."""

    detail: str = ""


Cause: TypeAlias = (
    Completed | Stopped | Killed | Failed | StartFailed | Escalated | SystemShutdown | Lost
)


class Terminated(Struct, frozen=True):
    """The message a watcher receives, once, when what it watches is gone."""

    ref: ActorRef
    cause: Cause


def describe(cause: Cause) -> str:
    """``cause`` in a few words, for messages and logs."""
    match cause:
        case Completed():
            return "it completed its work"
        case Stopped(by):
            return f"stopped by {by}" if by else "stopped"
        case Killed(by):
            return f"killed by {by}" if by else "killed"
        case Failed(error):
            return f"it failed with {error!r}"
        case StartFailed(error):
            return f"it failed to start with {error!r}"
        case Escalated(child, error):
            return f"its child {child} failed with {error!r}"
        case SystemShutdown():
            return "its actor system was shut down"
        case Lost(detail):
            return f"the link to it was lost ({detail})" if detail else "the link to it was lost"


_DEATHS: dict[type, str] = {
    Completed: "exited",
    Stopped: "released",
    Killed: "killed",
    Failed: "exited",
    StartFailed: "creation_failed",
    Escalated: "exited",
    SystemShutdown: "session_ended",
    Lost: "link_lost",
}


def death_error(who: str, cause: Cause) -> ActorDied:
    """The error that everyone who waits for an answer of the dead actor ``who`` gets."""
    error = ActorKilled if isinstance(cause, Stopped | Killed) else ActorDied
    return error(
        f"actor {who} is gone and cannot answer; spawn it again, or supervise it with Restart",
        Death(_DEATHS[type(cause)], detail=describe(cause)),
    )


# --- strategies ----------------------------------------------------------------------------------


class Restart(Struct, frozen=True):
    """A new instance from the same arguments, with the same mailbox and ref; the message that
    failed is not tried again.

    At most ``max_restarts`` within ``within`` seconds (-1 is endless), then the actor ends with
    Failed, or escalates if ``then_escalate``. The first restart waits ``backoff`` seconds, each
    further one within the window twice as long, at most ``backoff_most``.
    """

    max_restarts: int = 3
    within: float = 60.0
    backoff: float = 0.0
    backoff_most: float = 30.0
    then_escalate: bool = False

    def __post_init__(self) -> None:
        if self.max_restarts < -1:
            raise UsageError(f"max_restarts is -1 (endless) or more, not {self.max_restarts}")
        if self.within <= 0 or self.backoff < 0 or self.backoff_most < 0:
            raise UsageError(f"within must be positive, back-offs not negative: {self}")


class Resume(Struct, frozen=True):
    """Drop the message that failed and go on with the same instance and state."""


class Stop(Struct, frozen=True):
    """End the actor with Failed. The default: nobody runs on in a state nobody thought of."""


class Escalate(Struct, frozen=True):
    """End the actor with Failed, and let its parent fail with it."""


Strategy: TypeAlias = Restart | Resume | Stop | Escalate


class AllForOne(Struct, frozen=True):
    """What ``strategy`` does to the one that failed happens to all of its siblings that were
    spawned with an AllForOne of the same ``group``."""

    strategy: Restart | Stop
    group: str = ""


Supervision: TypeAlias = Strategy | AllForOne
"""What ``spawn(supervision=)`` takes; a bare strategy is one for one."""


# --- decisions -----------------------------------------------------------------------------------


class RestartAfter(Struct, frozen=True):
    """Make a new instance after ``delay`` seconds."""

    delay: float


class GoOn(Struct, frozen=True):
    """Take the next message."""


class End(Struct, frozen=True):
    """The actor ends; its parent fails too if ``escalate``."""

    escalate: bool = False


Decision: TypeAlias = RestartAfter | GoOn | End


_REMEMBERED = 64
# What an endless strategy remembers: enough to double any back-off up to any sensible bound.


class RestartBudget(Struct):
    """When an actor was restarted, as far back as its strategy looks."""

    spent: deque[float] = field(default_factory=deque)

    def spend(self, strategy: Restart, now: float) -> float | None:
        """The delay before one more restart at ``now``; None when there is none left."""
        while self.spent and now - self.spent[0] >= strategy.within:
            self.spent.popleft()
        if strategy.max_restarts >= 0 and len(self.spent) >= strategy.max_restarts:
            return None
        earlier = len(self.spent)
        if strategy.max_restarts < 0 and earlier == _REMEMBERED:
            self.spent.popleft()
        self.spent.append(now)
        return float(
            min(strategy.backoff * 2.0 ** min(earlier, _REMEMBERED), strategy.backoff_most)
        )

    def check(self) -> None:
        """Raise AssertionError where an invariant does not hold."""
        assert list(self.spent) == sorted(self.spent), "restarts out of order"


def one_for_one(supervision: Supervision) -> Strategy:
    """The strategy inside ``supervision``."""
    return supervision.strategy if isinstance(supervision, AllForOne) else supervision


def decide(supervision: Supervision, budget: RestartBudget, now: float) -> Decision:
    """What to do with an actor that failed at ``now``; spends from ``budget``."""
    match one_for_one(supervision):
        case Restart() as strategy:
            delay = budget.spend(strategy, now)
            return End(strategy.then_escalate) if delay is None else RestartAfter(delay)
        case Resume():
            return GoOn()
        case Stop():
            return End()
        case Escalate():
            return End(escalate=True)
