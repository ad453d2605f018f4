"""Names that Ray's users expect, each asked for what it means: errors, the runtime context, the
methods every actor has, exits of actors, streams in ``wait``."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors import exceptions
from tests import leaks

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


@gu.remote
class Guest:
    def __init__(self, path: str = "") -> None:
        self.path = path

    def leave(self) -> None:
        if self.path:
            import atexit

            atexit.register(Path(self.path).write_text, "the exit hook ran")
        gu.actor.exit_actor()

    def nap(self, seconds: float) -> None:
        time.sleep(seconds)

    def where(self) -> dict[str, Any]:
        context = gu.get_runtime_context()
        return {
            "actor": context.get_actor_id(),
            "resources": context.get_assigned_resources(),
            "reconstructed": context.was_current_actor_reconstructed,
            "me": context.current_actor,
        }


# --- errors ---------------------------------------------------------------------------------------


@gu.remote(max_retries=0)
def crash() -> None:
    os.kill(os.getpid(), 9)


@gu.remote
def divide(a: int, b: int) -> float:
    return a / b


@gu.remote
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_a_user_s_error_is_caught_by_ray_s_name_and_by_its_own() -> None:
    with pytest.raises(exceptions.RayTaskError) as caught:
        gu.get(divide.remote(1, 0))
    assert isinstance(caught.value, ZeroDivisionError)
    assert type(caught.value.cause) is ZeroDivisionError
    with pytest.raises(exceptions.RayError):
        gu.get(divide.remote(1, 0))


def test_time_outs_cancellation_and_crashes_are_caught_by_ray_s_names() -> None:
    slow = nap.remote(60)
    with pytest.raises(exceptions.GetTimeoutError) as late:
        gu.get(slow, timeout=0.05)
    assert isinstance(late.value, TimeoutError)
    gu.cancel(slow)
    with pytest.raises(exceptions.TaskCancelledError) as cancelled:
        gu.get(slow, timeout=20)
    assert not isinstance(cancelled.value, exceptions.WorkerCrashedError)
    with pytest.raises(exceptions.WorkerCrashedError):
        gu.get(crash.remote(), timeout=20)


def test_a_forced_cancel_ends_the_worker_and_says_so(tmp_path: Path) -> None:
    @gu.remote
    def stubborn(path: str) -> None:
        Path(path).touch()
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                continue

    started = tmp_path / "started"
    ref = stubborn.remote(str(started))
    until(started.exists)
    gu.cancel(ref, force=True)
    with pytest.raises(exceptions.WorkerCrashedError) as caught:
        gu.get(ref, timeout=20)
    assert isinstance(caught.value, exceptions.TaskCancelledError)
    guest = Guest.remote()
    with pytest.raises(ValueError, match="kill"):
        gu.cancel(guest.nap.remote(0), force=True)


def test_a_dead_actor_is_caught_by_ray_s_names() -> None:
    guest = Guest.remote()
    gu.kill(guest)
    for kind in (exceptions.RayActorError, exceptions.ActorDiedError):
        with pytest.raises(kind):
            gu.get(guest.nap.remote(0), timeout=20)


def test_what_fits_nowhere_is_told_apart_for_tasks_and_actors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from guactors.refs import current_session

    session = current_session()
    assert session is not None
    monkeypatch.setattr(session.core.patience, "seconds", 0.1)
    with pytest.raises(exceptions.TaskUnschedulableError):
        gu.get(nap.options(num_cpus=500).remote(0), timeout=20)
    with pytest.raises(exceptions.ActorUnschedulableError):
        gu.get(Guest.options(num_cpus=500).remote().nap.remote(0), timeout=20)


# --- the runtime context --------------------------------------------------------------------------


def test_a_task_knows_where_it_is_and_what_it_holds() -> None:
    @gu.remote(num_cpus=0.5, num_returns=2, name="scout")
    def look() -> tuple[dict[str, Any], str | None]:
        context = gu.get_runtime_context()
        return {
            "resources": context.get_assigned_resources(),
            "labels": context.get_node_labels(),
            "node": context.get_node_id(),
            "name": context.get_task_name(),
            "actor": context.get_actor_id(),
            "job": context.get_job_id(),
            "hub": context.gcs_address,
            "gpus": gu.get_gpu_ids(),
            "group": context.get_placement_group_id(),
            "env": context.runtime_env,
        }, context.get_task_id()

    seen, task_id = look.remote()
    here = gu.get_runtime_context()
    assert gu.get(seen) == {
        "resources": {"CPU": 0.5},
        "labels": {"room": "attic"},
        "node": here.get_node_id(),
        "name": "scout",
        "actor": None,
        "job": here.get_job_id(),
        "hub": here.gcs_address,
        "gpus": [],
        "group": None,
        "env": {},
    }
    assert here.get_node_id() == gu.nodes()[0]["NodeID"]
    assert gu.get(task_id) == seen.task_id() == task_id.task_id()
    assert task_id.task_id().hex() != task_id.hex()
    assert here.get_task_id() is None
    with pytest.raises(RuntimeError):
        _ = here.current_actor


def test_the_same_worker_under_another_lease_holds_something_else() -> None:
    @gu.remote
    def held() -> dict[str, float]:
        return gu.get_runtime_context().get_assigned_resources()

    assert gu.get(held.options(num_cpus=2).remote()) == {"CPU": 2.0}
    assert gu.get(held.options(num_cpus=0.25).remote()) == {"CPU": 0.25}


def test_an_actor_knows_itself_and_can_hand_itself_on() -> None:
    guest = Guest.options(num_cpus=0.5).remote()
    seen = gu.get(guest.where.remote(), timeout=20)
    assert seen["me"] == guest
    assert seen["actor"] == guest._actor.id
    assert seen["resources"] == {"CPU": 0.5}
    assert seen["reconstructed"] is False
    assert gu.get(seen["me"].__ray_ready__.remote()) is True


def test_an_async_call_is_not_flagged_but_cancelled() -> None:
    @gu.remote
    class Busy:
        async def ask(self) -> bool:
            await asyncio.sleep(0)
            return gu.get_runtime_context().is_canceled()

    with pytest.raises(RuntimeError, match="asyncio"):
        gu.get(Busy.remote().ask.remote(), timeout=20)


# --- actors that end themselves -------------------------------------------------------------------


def test_exit_actor_ends_it_for_good_and_runs_exit_hooks(tmp_path: Path) -> None:
    note = tmp_path / "note"
    guest = Guest.options(max_restarts=-1, max_task_retries=-1).remote(str(note))
    left = guest.leave.remote()
    behind = guest.nap.remote(0)
    for ref in (left, behind):
        with pytest.raises(exceptions.ActorDiedError, match="released"):
            gu.get(ref, timeout=20)
    until(note.exists)
    assert note.read_text() == "the exit hook ran"
    with pytest.raises(exceptions.RayActorError):
        gu.get(guest.nap.remote(0), timeout=20)


def test_threaded_and_async_actors_exit_too() -> None:
    @gu.remote(max_concurrency=2)
    class Threaded:
        def leave(self) -> None:
            gu.actor.exit_actor()

        def nap(self) -> None:
            time.sleep(60)

    @gu.remote
    class Async:
        async def leave(self) -> None:
            gu.actor.exit_actor()

        async def nap(self) -> None:
            await asyncio.sleep(60)

    for cls in (Threaded, Async):
        actor = cls.remote()
        refs = [actor.nap.remote(), actor.leave.remote()]
        for ref in refs:
            with pytest.raises(exceptions.ActorDiedError):
                gu.get(ref, timeout=20)


def test_ray_terminate_comes_after_the_calls_before_it() -> None:
    guest = Guest.remote()
    before = guest.nap.remote(0.1)
    end = guest.__ray_terminate__.remote()
    assert gu.get(before, timeout=20) is None
    with pytest.raises(exceptions.ActorDiedError):
        gu.get(end, timeout=20)


def test_a_function_can_be_run_on_an_actor() -> None:
    guest = Guest.remote("somewhere")
    path = guest.__ray_call__.remote(lambda self, more: self.path + more, "!")
    assert gu.get(path, timeout=20) == "somewhere!"


def test_a_second_init_is_refused_or_ignored() -> None:
    import logging

    with pytest.raises(RuntimeError, match="shutdown"):
        gu.init()
    logger = logging.getLogger("guactors")
    before = logger.level
    context = gu.init(ignore_reinit_error=True, logging_level="ERROR")
    assert logger.level == logging.ERROR
    logger.setLevel(before)
    assert context["gcs_address"] == gu.get_runtime_context().gcs_address


def test_exit_actor_is_for_actors() -> None:
    @gu.remote
    def leave() -> None:
        gu.actor.exit_actor()

    with pytest.raises(TypeError, match="no actor"):
        gu.get(leave.remote())
    with pytest.raises(TypeError, match="no actor"):
        gu.actor.exit_actor()


# --- references and streams -----------------------------------------------------------------------


def test_a_ref_gives_a_future() -> None:
    assert divide.remote(6, 3).future().result(20) == 2.0
    with pytest.raises(ZeroDivisionError):
        divide.remote(6, 0).future().result(20)


def test_wait_takes_streams_whose_next_item_is_there(tmp_path: Path) -> None:
    @gu.remote
    def trickle(path: str) -> Iterator[str]:
        yield "first"
        until(Path(path).exists)
        yield "second"

    gate = tmp_path / "gate"
    stream = trickle.remote(str(gate))
    slow = nap.remote(60)
    ready, rest = gu.wait([slow, stream], timeout=20)
    assert ready == [stream]
    assert rest == [slow]
    assert gu.get(next(stream)) == "first"
    assert gu.wait([stream], timeout=0.05) == ([], [stream])
    gate.touch()
    assert gu.wait([stream], timeout=20) == ([stream], [])
    assert gu.get(next(stream)) == "second"
    gu.cancel(slow)


def until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_the_door_opens_ray_s_modules_without_loading_them_first() -> None:
    import subprocess

    program = (
        "import sys, guactors as ray\n"
        "assert not any(m.startswith('guactors.') for m in sys.modules), sys.modules\n"
        "assert ray.exceptions.RayActorError and ray.actor.exit_actor and ray.ObjectRef\n"
        "from guactors.exceptions import GetTimeoutError\n"
        "assert issubclass(GetTimeoutError, TimeoutError)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)
