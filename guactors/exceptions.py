"""Ray's names for our errors, for ``except ray.exceptions.RayActorError`` and the like.

Owns: the translation, one line for each name. Each Ray name is the class, or a base of the classes,
that is raised here where Ray raises that name. All of :mod:`guactors.errors` is here too.
"""

from __future__ import annotations

from guactors.errors import (
    ActorDied,
    ActorKilled,
    ActorLost,
    ActorOutOfMemory,
    ActorUnavailable,
    ActorUnschedulable,
    AlreadyInitialized,
    AuthFailed,
    CallTimeout,
    DeadlineMissed,
    Death,
    GetTimeout,
    GuactorsError,
    HubUnreachable,
    ImageRefused,
    InstanceLost,
    InternalError,
    MailboxFull,
    NameTaken,
    NoSuchActor,
    NoSuchGroup,
    NoSuchReservation,
    NotInitialized,
    NotSerializable,
    ObjectLost,
    OutOfMemory,
    OwnerDied,
    PeerLost,
    PendingApproval,
    PermissionDenied,
    PlacementGroupRemoved,
    Preempted,
    ProgramFailed,
    ProgramNotStarted,
    ProtocolError,
    ProviderLost,
    Refused,
    RuntimeEnvSetupError,
    RuntimeMissing,
    SessionClosed,
    Stopped,
    StoreFull,
    Suspended,
    TaskCancelled,
    TaskError,
    TaskKilled,
    TaskUnschedulable,
    TooManyPending,
    UnknownOption,
    Unschedulable,
    UsageError,
    VersionMismatch,
    WorkerDied,
)

RayError = GuactorsError
RayTaskError = TaskError
TaskCancelledError = TaskCancelled
GetTimeoutError = GetTimeout
WorkerCrashedError = WorkerDied
OutOfMemoryError = OutOfMemory
NodeDiedError = ProviderLost
RayActorError = ActorLost
ActorDiedError = ActorDied
ActorUnavailableError = ActorUnavailable
ActorAlreadyExistsError = NameTaken
ObjectLostError = ObjectLost
OwnerDiedError = OwnerDied
ObjectFetchTimedOutError = ObjectLost
ObjectReconstructionFailedError = ObjectLost
ObjectStoreFullError = StoreFull
OutOfDiskError = StoreFull
TaskUnschedulableError = TaskUnschedulable
ActorUnschedulableError = ActorUnschedulable
PendingCallsLimitExceeded = TooManyPending
AuthenticationError = AuthFailed
RaySystemError = InternalError

__all__ = [
    "ActorAlreadyExistsError", "ActorDied", "ActorDiedError", "ActorKilled", "ActorLost",
    "ActorOutOfMemory", "ActorUnavailable", "ActorUnavailableError", "ActorUnschedulable",
    "ActorUnschedulableError",
    "AlreadyInitialized", "AuthFailed", "AuthenticationError", "CallTimeout",
    "DeadlineMissed", "Death", "GetTimeout", "GetTimeoutError", "GuactorsError",
    "HubUnreachable", "ImageRefused", "InstanceLost", "InternalError", "MailboxFull",
    "NameTaken", "NoSuchActor", "NoSuchGroup", "NoSuchReservation",
    "NodeDiedError", "NotInitialized", "NotSerializable",
    "ObjectFetchTimedOutError", "ObjectLost", "ObjectLostError", "ObjectReconstructionFailedError",
    "ObjectStoreFullError", "OutOfDiskError", "OutOfMemory", "OutOfMemoryError", "OwnerDied",
    "OwnerDiedError", "PeerLost", "PendingApproval", "PendingCallsLimitExceeded",
    "PermissionDenied", "PlacementGroupRemoved", "Preempted", "ProgramFailed",
    "ProgramNotStarted", "ProtocolError", "ProviderLost", "RayActorError", "RayError",
    "RaySystemError", "RayTaskError", "Refused", "RuntimeEnvSetupError",
    "RuntimeMissing", "SessionClosed", "Stopped", "StoreFull",
    "Suspended", "TaskCancelled", "TaskCancelledError", "TaskError", "TaskKilled",
    "TaskUnschedulable",
    "TaskUnschedulableError", "TooManyPending", "UnknownOption", "Unschedulable", "UsageError",
    "VersionMismatch", "WorkerCrashedError", "WorkerDied",
]  # fmt: skip
