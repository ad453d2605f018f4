"""Placement groups, strategies and devices on a real embedded grid, through the public names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import guactors as gu
from guactors import errors
from guactors.assigned import assigned
from guactors.util import get_current_placement_group, get_placement_group, placement_group_table
from guactors.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from guactors.util.scheduling_strategies import (
    Exists,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)
from tests import leaks
from tests.command import eventually

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]


@pytest.fixture(scope="module")
def grid(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Four CPUs, two GPUs that nobody has, and ten of something."""
    home = tmp_path_factory.mktemp("placement-home")
    before = leaks.take(home, run_root)
    gu.init(num_cpus=4, num_gpus=2, resources={"custom": 10.0})
    yield
    gu.shutdown()
    found = leaks.settle(before, home, run_root, leaks.KINDS)
    if found:
        pytest.fail("the grid left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    """Each test gives back what it took."""
    yield
    eventually(lambda: gu.available_resources() == gu.cluster_resources(), "all is given back")


def inside(group: PlacementGroup, index: int = -1, *, capture: bool = False) -> dict[str, object]:
    return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, index, capture)}


@gu.remote
def seen() -> tuple[str | None, str, int]:
    return os.environ.get("CUDA_VISIBLE_DEVICES"), assigned().group, os.getpid()


@gu.remote
def group_here() -> str | None:
    group = get_current_placement_group()
    return None if group is None else group.id


@gu.remote
class Holder:
    def __init__(self, seconds: float = 0.0) -> None:
        time.sleep(seconds)

    def seen(self) -> tuple[str | None, str]:
        return os.environ.get("CUDA_VISIBLE_DEVICES"), assigned().group

    def child(self) -> str | None:
        return gu.get(group_here.remote())

    def stranger(self) -> str | None:
        return gu.get(group_here.options(scheduling_strategy="DEFAULT").remote())


# --- groups -----------------------------------------------------------------------------------


def test_ready_gives_the_group_and_its_room_is_gone_for_others() -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 2, "custom": 1}])
    got = gu.get(group.ready(), timeout=20)
    assert got == group
    assert got.bundle_specs == [{"CPU": 1.0}, {"CPU": 2.0, "custom": 1.0}]
    assert group.bundle_count == 2
    assert gu.available_resources()["CPU"] == 1.0
    remove_placement_group(group)


def test_wait_is_false_while_there_is_no_room() -> None:
    first = placement_group([{"custom": 8}])
    assert first.wait(20)
    second = placement_group([{"custom": 8}])
    assert second.wait(0.1) is False
    remove_placement_group(first)
    assert second.wait(20) is True
    remove_placement_group(second)
    assert second.wait(1) is False


def test_tasks_and_actors_run_inside_and_know_it() -> None:
    group = placement_group([{"CPU": 2}])
    assert gu.get(group_here.options(**inside(group)).remote(), timeout=20) == group.id
    assert gu.get(group_here.remote(), timeout=20) is None
    actor = Holder.options(num_cpus=1, **inside(group, 0)).remote()
    assert gu.get(actor.seen.remote(), timeout=20)[1] == group.id
    remove_placement_group(group)


def test_children_go_along_only_where_the_group_captures_them() -> None:
    group = placement_group([{"CPU": 2}])
    taken = Holder.options(**inside(group, capture=True)).remote()
    assert gu.get(taken.child.remote(), timeout=20) == group.id
    assert gu.get(taken.stranger.remote(), timeout=20) is None
    free = Holder.options(**inside(group)).remote()
    assert gu.get(free.child.remote(), timeout=20) is None
    remove_placement_group(group)


def test_a_bundle_holds_no_more_than_it_has() -> None:
    group = placement_group([{"CPU": 1}])
    one = Holder.options(num_cpus=1, **inside(group)).remote()
    assert gu.get(one.seen.remote(), timeout=20)
    two = Holder.options(num_cpus=1, **inside(group)).remote()
    call = two.seen.remote()
    ready, _ = gu.wait([call], timeout=0.3)
    assert not ready
    gu.kill(one)
    assert gu.get(call, timeout=20)
    remove_placement_group(group)


def test_removal_ends_tasks_and_actors_with_a_typed_error() -> None:
    group = placement_group([{"CPU": 2}])
    nap = gu.remote(time.sleep).options(max_retries=3, **inside(group)).remote(60)
    actor = Holder.options(max_restarts=-1, **inside(group)).remote()
    assert gu.get(actor.seen.remote(), timeout=20)
    waits = gu.remote(time.sleep).options(num_cpus=2, **inside(group)).remote(60)
    remove_placement_group(group)
    for ref in (nap, waits):
        with pytest.raises(errors.PlacementGroupRemoved, match=group.id):
            gu.get(ref, timeout=20)
    with pytest.raises(errors.ActorDied, match=group.id):
        gu.get(actor.seen.remote(), timeout=20)
    with pytest.raises(errors.PlacementGroupRemoved):
        gu.get(seen.options(**inside(group)).remote(), timeout=20)
    with pytest.raises(errors.PlacementGroupRemoved):
        gu.get(group.ready(), timeout=20)


def test_a_group_that_fits_nowhere_says_why() -> None:
    group = placement_group([{"custom": 6}, {"custom": 6}], strategy="STRICT_PACK")
    eventually(lambda: "STRICT_PACK" in placement_group_table(group)["reason"], "a reason")
    assert placement_group_table(group)["state"] == "PENDING"
    remove_placement_group(group)


def test_names_and_the_table() -> None:
    group = placement_group([{"CPU": 1}], name="lab", strategy="SPREAD", lifetime="detached")
    assert get_placement_group("lab") == group
    with pytest.raises(ValueError, match="lab"):
        placement_group([{"CPU": 1}], name="lab")
    assert group.wait(20)
    row = placement_group_table()[group.id]
    assert (row["name"], row["strategy"], row["state"]) == ("lab", "SPREAD", "CREATED")
    assert row["bundles_to_node_id"] == {0: gu.nodes()[0]["NodeID"]}
    remove_placement_group(get_placement_group("lab"))
    with pytest.raises(ValueError, match="lab"):
        get_placement_group("lab")
    assert placement_group_table(group)["state"] == "REMOVED"


def test_a_group_travels_and_another_process_removes_it() -> None:
    @gu.remote
    def end(group: PlacementGroup) -> tuple[bool, int]:
        there = group.wait(20)
        remove_placement_group(group)
        return there, group.bundle_count

    group = placement_group([{"CPU": 1}])
    assert gu.get(end.remote(group), timeout=20) == (True, 1)
    with pytest.raises(errors.PlacementGroupRemoved):
        gu.get(group.ready(), timeout=20)


def test_a_task_that_waits_for_a_child_in_its_own_bundle_does_not_starve_it() -> None:
    @gu.remote
    def parent() -> str | None:
        return gu.get(group_here.remote())

    group = placement_group([{"CPU": 1}])
    assert gu.get(parent.options(**inside(group, capture=True)).remote(), timeout=20) == group.id
    remove_placement_group(group)


# --- strategies ---------------------------------------------------------------------------------


def test_affinity_and_labels_are_asked_of_the_hub() -> None:
    node = gu.nodes()[0]["NodeID"]
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    assert gu.get(seen.options(scheduling_strategy=here).remote(), timeout=20)
    gone = NodeAffinitySchedulingStrategy("p-gone", soft=True)
    assert gu.get(seen.options(scheduling_strategy=gone).remote(), timeout=20)
    assert gu.get(seen.options(scheduling_strategy="SPREAD").remote(), timeout=20)
    soft = NodeLabelSchedulingStrategy({}, soft={"gold": Exists()})
    assert gu.get(seen.options(scheduling_strategy=soft).remote(), timeout=20)
    fallback = [{"label_selector": {"gold": "!*"}}]
    first = {"label_selector": {"gold": "yes"}, "fallback_strategy": fallback}
    assert gu.get(seen.options(**first).remote(), timeout=20)


# --- alternatives ---------------------------------------------------------------------------------


@gu.remote(num_gpus=1, max_calls=0, alternatives=[{"num_cpus": 2}])
def meet(place: str, others: int) -> tuple[dict[str, float], str | None]:
    """What it holds, once so many run at a time."""
    Path(place, str(os.getpid())).touch()
    eventually(lambda: len(os.listdir(place)) >= others, "all are there")
    held = gu.get_runtime_context().get_assigned_resources()
    return held, os.environ.get("CUDA_VISIBLE_DEVICES")


def test_who_finds_no_gpu_takes_processors_and_is_told_so(tmp_path: Path) -> None:
    found = gu.get([meet.remote(str(tmp_path), 3) for _ in range(3)], timeout=30)
    gpu, cpus = {"CPU": 1.0, "GPU": 1.0}, {"CPU": 2.0}
    assert sorted(found, key=str) == [(gpu, "0"), (gpu, "1"), (cpus, "")]


def test_an_actor_takes_what_there_is() -> None:
    both = Holder.options(num_gpus=2).remote()
    gu.get(both.seen.remote(), timeout=20)
    other = Holder.options(num_gpus=1, alternatives=[{"num_cpus": 3}]).remote()
    assert gu.get(other.seen.remote(), timeout=20)[0] == ""
    assert gu.available_resources()["CPU"] == 1.0


# --- apart and near -------------------------------------------------------------------------------


def test_a_second_replica_waits_until_the_first_has_ended() -> None:
    replica = Holder.options(labels={"app": "db"}, anti_affinity={"app": "db"})
    beside = seen.options(affinity={"app": "db"}).remote()
    first = replica.remote()
    assert gu.get([first.seen.remote(), beside], timeout=20)
    second = replica.remote()
    answer = second.seen.remote()
    assert gu.wait([answer], timeout=0.2)[0] == []
    told = gu.explain(second)
    assert [row["reason"] for row in told] == ["apart"]
    gu.kill(first)
    assert gu.get(answer, timeout=20)


# --- devices ------------------------------------------------------------------------------------


def test_whole_gpus_are_exclusive_and_fractions_share_one() -> None:
    actors = [Holder.options(num_gpus=share).remote() for share in (0.5, 1, 0.5)]
    ids = [gu.get(actor.seen.remote(), timeout=20)[0] for actor in actors]
    assert sorted(set(filter(None, ids))) == ["0", "1"]
    assert ids[0] == ids[2] != ids[1]
    assert gu.get(seen.remote(), timeout=20)[0] == ""
    for actor in actors:
        gu.kill(actor)


def test_modules_see_the_devices_when_they_are_imported(tmp_path: Path) -> None:
    (tmp_path / "peeks.py").write_text("import os\nSAW = os.environ.get('CUDA_VISIBLE_DEVICES')\n")

    @gu.remote(num_gpus=2)
    def peek(path: str) -> str | None:
        import sys

        sys.path.insert(0, path)
        import peeks  # type: ignore[import-not-found]

        return peeks.SAW

    assert gu.get(peek.remote(str(tmp_path)), timeout=20) == "0,1"


def test_a_worker_that_had_a_gpu_is_not_used_again() -> None:
    pids = []
    for _ in range(2):
        _, _, pid = gu.get(seen.options(num_gpus=2).remote(), timeout=20)
        pids.append(pid)
        eventually(lambda: gu.available_resources().get("GPU") == 2.0, "both GPUs are free")
    assert pids[0] != pids[1]


def test_a_task_that_waits_gives_back_its_cpus_and_keeps_its_gpu() -> None:
    @gu.remote(num_cpus=4, num_gpus=2)
    def parent() -> tuple[float, float]:
        def there() -> tuple[float, float]:
            free = gu.available_resources()
            return free.get("CPU", 0.0), free.get("GPU", 0.0)

        look = gu.remote(there).options(num_cpus=1)
        return gu.get(look.remote())

    # The child has one of the four CPUs that its parent gave back, and no GPU came back.
    assert gu.get(parent.remote(), timeout=20) == (3.0, 0.0)


def test_gpus_of_a_group_are_given_out_inside_it() -> None:
    group = placement_group([{"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}])
    ids = [
        gu.get(seen.options(num_gpus=1, **inside(group, index)).remote(), timeout=20)[0]
        for index in (0, 1)
    ]
    assert set(ids) <= {"0", "1"}
    assert gu.available_resources().get("GPU", 0.0) == 0.0
    remove_placement_group(group)
