"""Ray's names of errors stand for what is raised here where Ray raises them; parameters of ``init``
that mean nothing are refused by name."""

from __future__ import annotations

import pickle

import pytest

import guactors as gu
from guactors import errors, exceptions

CAUGHT = {
    "RayError": [errors.TaskError, errors.ActorDied, errors.GetTimeout, errors.Unschedulable],
    "RayTaskError": [errors.TaskError],
    "RayActorError": [errors.ActorDied, errors.ActorKilled, errors.ActorUnavailable],
    "ActorDiedError": [errors.ActorDied, errors.ActorKilled],
    "ActorUnavailableError": [errors.ActorUnavailable],
    "WorkerCrashedError": [errors.WorkerDied, errors.TaskKilled],
    "NodeDiedError": [errors.ProviderLost],
    "OutOfMemoryError": [errors.OutOfMemory],
    "ObjectLostError": [errors.OwnerDied],
    "OwnerDiedError": [errors.OwnerDied],
    "ObjectReconstructionFailedError": [errors.ObjectLost],
    "ObjectStoreFullError": [errors.StoreFull],
    "OutOfDiskError": [errors.StoreFull],
    "TaskCancelledError": [errors.TaskCancelled, errors.TaskKilled],
    "GetTimeoutError": [errors.GetTimeout],
    "TaskUnschedulableError": [errors.TaskUnschedulable],
    "ActorUnschedulableError": [errors.ActorUnschedulable],
    "PendingCallsLimitExceeded": [errors.TooManyPending],
    "AuthenticationError": [errors.AuthFailed, errors.PendingApproval],
    "ActorAlreadyExistsError": [errors.NameTaken],
}
NOT_CAUGHT = {
    "RayActorError": [errors.WorkerDied, errors.TaskError, errors.ProviderLost],
    "ActorDiedError": [errors.ActorUnavailable],
    "WorkerCrashedError": [errors.ActorDied, errors.TaskCancelled],
    "TaskUnschedulableError": [errors.ActorUnschedulable],
    "ObjectLostError": [errors.WorkerDied],
    "RayTaskError": [errors.TaskCancelled, errors.GetTimeout],
}


@pytest.mark.parametrize("name", CAUGHT)
def test_ray_s_name_catches_what_is_raised_here(name: str) -> None:
    kind = getattr(gu.exceptions, name)
    assert all(issubclass(one, kind) for one in CAUGHT[name])


@pytest.mark.parametrize("name", NOT_CAUGHT)
def test_ray_s_name_catches_nothing_else(name: str) -> None:
    kind = getattr(gu.exceptions, name)
    assert not any(issubclass(one, kind) for one in NOT_CAUGHT[name])


def test_every_error_of_ours_is_there_too() -> None:
    ours = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.GuactorsError)
    }
    assert ours <= set(exceptions.__all__)
    assert exceptions.__all__ == sorted(exceptions.__all__)


def test_errors_of_several_bases_survive_the_way() -> None:
    killed = errors.TaskKilled("f was cancelled", errors.Death("killed"))
    back = pickle.loads(pickle.dumps(killed))
    assert type(back) is errors.TaskKilled
    assert back.death == killed.death
    assert str(back) == str(killed)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("num_cpu", "did you mean num_cpus"),
        ("object_store_memry", "did you mean object_store_memory"),
        ("x", "there are"),
    ],
)
def test_unknown_parameters_of_init_are_named(name: str, hint: str) -> None:
    with pytest.raises(errors.UnknownOption, match=f"'{name}'.*{hint}"):
        gu.init(**{name: 1})
    assert not gu.is_initialized()


def test_a_second_init_is_an_error_of_both_libraries() -> None:
    assert issubclass(errors.AlreadyInitialized, RuntimeError)
    assert issubclass(errors.AlreadyInitialized, errors.UsageError)


def test_a_dashboard_cannot_be_had() -> None:
    with pytest.raises(ValueError, match="no dashboard"):
        gu.init(include_dashboard=True)
