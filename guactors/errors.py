"""Every error guactors raises, in one tree that says first who is to blame.

::

    GuactorsError
    ├── UsageError                 the caller's mistake, nothing was sent
    │   ├── NotInitialized         a call before init()
    │   ├── AlreadyInitialized     a second init() (also RuntimeError)
    │   ├── NotSerializable        an argument or result that cannot be pickled (also TypeError)
    │   ├── UnknownOption          an option nobody knows (also ValueError, TypeError)
    │   ├── NameTaken              an actor of that name exists (also ValueError)
    │   ├── NoSuchActor            no live actor has that name (also ValueError)
    │   ├── ProgramNotStarted      a program that does not exist, or cannot be run
    │   ├── ProgramFailed          a program that was to end well did not
    │   ├── NoSuchGroup            no live placement group has that name (also ValueError)
    │   └── NoSuchReservation      no reservation of that name is known (also ValueError)
    ├── TaskError                  the user's own code raised; also an instance of the raised type
    ├── Stopped                    somebody asked for the end of it
    │   ├── TaskCancelled          cancel() reached it first
    │   │   └── TaskKilled         cancel(force=True) ended its worker (also WorkerDied)
    │   ├── PlacementGroupRemoved  the placement group it was to run in is gone
    │   ├── Preempted              it gave way to work of a higher priority (also WorkerDied)
    │   └── ActorKilled            kill(), or its last handle went away (also ActorDied)
    ├── CallTimeout                timeout= of the call passed (also TimeoutError)
    │   └── DeadlineMissed         deadline= of the call passed
    ├── GetTimeout                 timeout= of get() passed; the call goes on (also TimeoutError)
    ├── Suspended                  it stands still for others, and on_suspended="raise"
    ├── PeerLost                   a process or the wire between went away
    │   ├── WorkerDied             the process that ran it ended
    │   │   └── OutOfMemory        for its memory: its own limit, or the machine's
    │   ├── ActorLost              an actor is not there
    │   │   ├── ActorDied          it is gone for good
    │   │   │   └── ActorOutOfMemory  for its memory (also OutOfMemory)
    │   │   └── ActorUnavailable   it restarts; this call was lost (at most once)
    │   ├── ProviderLost           the machine is gone
    │   ├── InstanceLost           the container or virtual machine that ran it is gone
    │   ├── ObjectLost             the memory that held a value is gone
    │   │   └── OwnerDied          the process that held it is gone
    │   ├── HubUnreachable         nobody answers at the hub's address
    │   └── SessionClosed          shutdown() while it was pending
    ├── Refused                    somebody said no
    │   ├── AuthFailed             the other side does not know our key, or is not whom we expect
    │   │   └── PendingApproval    the key is known now and waits for the owner's word
    │   ├── PermissionDenied       known, but not allowed: no grant or the machine's owner says so
    │   ├── ImageRefused           an image whose content, signature or form is not what it must be
    │   ├── VersionMismatch        protocol or Python versions that cannot work together
    │   ├── Unschedulable          no provider could ever run it
    │   │   ├── TaskUnschedulable  a task
    │   │   └── ActorUnschedulable an actor
    │   ├── RuntimeEnvSetupError   what it was to run in could not be set up
    │   ├── RuntimeMissing         a runtime that does not work on this machine
    │   ├── StoreFull              no room for a large value, in memory or on disk
    │   └── MailboxFull            back-pressure: try later
    │       └── TooManyPending     a handle's max_pending_calls are under way
    ├── ProtocolError              what arrived is not ours, too deep, too large, or truncated
    └── InternalError              our bug: please report it

A message says who, where, why, and what to do. Must never: import anything of the package; carry
secrets. Errors pickle, because they travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class GuactorsError(Exception):
    """Base of all errors of this package; never raised itself."""


class UsageError(GuactorsError):
    """The caller's mistake; nothing was sent."""


class NotInitialized(UsageError):
    """An operation that needs a grid came before ``init()`` or after ``shutdown()``."""


class AlreadyInitialized(UsageError, RuntimeError):
    """``init`` while this process is in a grid."""


class NotSerializable(UsageError, TypeError):
    """An argument or result cannot be pickled; the message names the path to the culprit."""


class UnknownOption(UsageError, ValueError, TypeError):
    """An option that does not exist, or has an impossible value; names the nearest match."""


class NameTaken(UsageError, ValueError):
    """A live actor of that name exists in the namespace."""


class NoSuchActor(UsageError, ValueError):
    """No live actor of that name is in the namespace."""


class NoSuchGroup(UsageError, ValueError):
    """No live placement group of that name is in the namespace."""


class NoSuchReservation(UsageError, ValueError):
    """No reservation of that name is to come or stands, or not for who asks."""


class ProgramNotStarted(UsageError):
    """A program does not exist or cannot be run; ``code`` is what a shell would exit with: 127 or
    126."""

    def __init__(self, message: str = "", code: int = 127) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.code)


class ProgramFailed(UsageError):
    """A program that something else depends on (a checkpoint hook) ended with another status than
    0, or not in time. The message has its last words."""


class TaskError(GuactorsError):
    """The user's own code raised on a worker.

    What ``get`` raises is an instance of both this class and the original type where that type can
    be subclassed; ``cause`` is the original exception, ``remote_traceback`` its text.
    """

    cause: BaseException | None = None
    remote_traceback: str = ""


class Stopped(GuactorsError):
    """Somebody asked for the end of it."""


class TaskCancelled(Stopped):
    """``cancel()`` reached the call before it finished."""


class PlacementGroupRemoved(Stopped):
    """The placement group it was to run in was removed, or is unknown to the hub."""


class CallTimeout(GuactorsError, TimeoutError):
    """The ``timeout=`` of the call passed: a queued call never ran, a running one was stopped."""


class DeadlineMissed(CallTimeout):
    """The ``deadline=`` of the call passed. ``late``: seconds since then, when that was seen;
    ``where``: what it waited for or did then, for people."""

    def __init__(self, message: str = "", late: float = 0.0, where: str = "") -> None:
        super().__init__(message)
        self.late = late
        self.where = where

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.late, self.where)


class GetTimeout(GuactorsError, TimeoutError):
    """The ``timeout=`` of ``get`` passed; the call itself goes on."""


class Suspended(GuactorsError):
    """What the call needs stands still for work of a higher priority, and its caller does not want
    to wait (``on_suspended="raise"``). A call to an actor that had not been sent ends so; one that
    has begun goes on later, and ``get`` may be tried again. ``by``: the lease or actor that has its
    room, empty where that is not known; ``since``: epoch seconds; ``reason``: for people."""

    def __init__(
        self, message: str = "", by: str = "", since: float = 0.0, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.by = by
        self.since = since
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.by, self.since, self.reason)


@dataclass(frozen=True)
class Death:
    """How a process ended: the facts the provider saw.

    ``cause`` is one of :data:`DEATH_CAUSES`; ``exit_code`` or ``signal`` is set where the process
    itself was seen to end; ``stderr_tail`` is the last 4096 bytes at most; ``rss_bytes`` the peak
    resident memory, 0 where unknown.
    """

    cause: str
    detail: str = ""
    exit_code: int | None = None
    signal: int | None = None
    stderr_tail: str = ""
    rss_bytes: int = 0
    worker: str = ""
    provider: str = ""

    def describe(self) -> str:
        """One paragraph for a person: cause, status, memory, and the last words."""
        parts = [self.cause]
        if self.signal is not None:
            parts.append(f"signal {self.signal}")
        if self.exit_code is not None:
            parts.append(f"exit status {self.exit_code}")
        if self.rss_bytes:
            parts.append(f"peak memory {self.rss_bytes / 2**20:.0f} MiB")
        if self.worker:
            parts.append(f"worker {self.worker}")
        if self.provider:
            parts.append(f"provider {self.provider}")
        text = ", ".join(parts)
        if self.detail:
            text += f": {self.detail}"
        if self.stderr_tail:
            text += f"\nlast words on stderr:\n{self.stderr_tail}"
        return text


DEATH_CAUSES = frozenset({
    "exited",            # the process ended by itself
    "signal",            # a signal ended it, nobody here sent it
    "out_of_memory",     # the machine's memory: the kernel's OOM killer, or our monitor
    "memory_limit",      # its own memory limit
    "killed",            # kill() or cancel(force=True)
    "released",          # its last handle went away, or its lease was given back
    "session_ended",     # its session is over
    "provider_lost",     # the machine is gone, the process with it
    "unresponsive",      # it no longer answered and was ended
    "start_failed",      # it never came up
    "creation_failed",   # the actor's constructor raised
    "link_lost",         # the wire to it broke, its fate is unknown
    "refused",           # it never began: no grant allows it here, or the machine's owner does not
    "revoked",           # the right to run it was taken back
    "env_failed",        # it never began: its runtime_env could not be set up
    "group_removed",     # its placement group was removed
    "requeued",          # it gave way to work of a higher priority, and begins again
    "checkpointed",      # it gave way to work of a higher priority, and goes on with its state
    "preempted",         # it gave way to work of a higher priority, for good
    "not_lent",          # it never began: its machine's owner has the machine back
    "not_displaced",     # it never began: what it was to displace did not stand still
})  # fmt: skip


MEMORY_CAUSES = frozenset({"out_of_memory", "memory_limit"})
"""Causes of deaths for memory."""


class PeerLost(GuactorsError):
    """A process, or the wire to it, went away; ``death`` holds what is known."""

    def __init__(self, message: str = "", death: Death | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.death = death

    def __str__(self) -> str:
        return f"{self.message}: {self.death.describe()}" if self.death else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.death)


class WorkerDied(PeerLost):
    """The worker process that ran the task ended."""


class OutOfMemory(WorkerDied):
    """The worker was ended for its memory: it took more than its own limit, or the machine had no
    more and this was the one to end. The message says how much, and what to do."""


class Preempted(Stopped, WorkerDied):
    """It was ended for work of a higher priority, as ``preemption=["stop"]`` allows."""


class TaskKilled(TaskCancelled, WorkerDied):
    """``cancel(force=True)`` ended the worker that ran the call."""


class ActorLost(PeerLost):
    """An actor is not there; never raised itself."""


class ActorDied(ActorLost):
    """The actor is gone for good."""


class ActorOutOfMemory(ActorDied, OutOfMemory):
    """The actor is gone for good, for its memory."""


class ActorKilled(Stopped, ActorDied):
    """The actor was ended on purpose."""


class ActorUnavailable(ActorLost):
    """The actor is restarting and this call was lost with the old one; a new call may work."""


class ProviderLost(PeerLost):
    """The provider that ran the work is gone."""


class InstanceLost(PeerLost):
    """The instance of a runtime (a container, a virtual machine) is gone: it was killed, it hangs,
    or what ran it is gone."""


class ObjectLost(PeerLost):
    """The value was lost with the memory, or the machine, that held it."""


class OwnerDied(ObjectLost):
    """The process that owned the value is gone, and the value with it."""


class HubUnreachable(PeerLost):
    """Nobody answers at the hub's address."""


class SessionClosed(PeerLost):
    """The session ended while the call was pending."""


class Refused(GuactorsError):
    """Somebody said no; asking again unchanged will not help."""


class AuthFailed(Refused):
    """The handshake failed: the hub does not know our key, or is not the one we expect."""


class PendingApproval(AuthFailed):
    """The hub has noted the key and waits for its owner to approve it (``gu key approve``)."""


class PermissionDenied(Refused):
    """No grant of the key allows it, or the owner of the machine does not."""


class ImageRefused(Refused):
    """An image's content, signature or form is not what it must be; nothing of it was kept."""


class VersionMismatch(Refused):
    """Two versions that cannot work together; the message names both."""


class Unschedulable(Refused):
    """No provider could ever run it; the message says what was asked and the most there is."""


class TaskUnschedulable(Unschedulable):
    """No provider could ever run the task."""


class ActorUnschedulable(Unschedulable):
    """No provider could ever run the actor."""


class RuntimeEnvSetupError(Refused):
    """The ``runtime_env`` could not be set up on the provider; the message has the last lines that
    the tool said, or what the setup hook raised."""


class RuntimeMissing(Refused):
    """A runtime does not work on this machine; the message says why, and what to do."""


class StoreFull(Refused):
    """A large value found no room, neither in shared memory nor on disk; the message says how much
    there is, who uses it, and how to give more."""


class MailboxFull(Refused):
    """The receiver's mailbox is full."""


class TooManyPending(MailboxFull):
    """So many calls as the actor's ``max_pending_calls`` allows a handle are unanswered."""


class ProtocolError(GuactorsError):
    """What arrived is not ours. ``kind`` is one of :data:`PROTOCOL_FAULTS`."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


PROTOCOL_FAULTS = frozenset({"version", "malformed", "too_large", "too_many_frames", "unexpected"})


class InternalError(GuactorsError):
    """Our bug. Please report it with the message."""
