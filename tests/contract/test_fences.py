"""Limits of workers, kept by the system: one suite over both adapters of the worker port, and the
choice of the means on machines that this one is not."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from guactors.messages import Limits
from guactors.runtimes import open_workers
from guactors.runtimes.cgroup_places import Places
from guactors.runtimes.cgroups import CgroupFences, find_cgroups
from guactors.runtimes.fences import NoFences, RlimitFences, find_fences
from tests.contract.process_watch import Watch, await_true, config_for, gone, read_pid

ENTRY = "tests.contract.stand_in_worker:run_worker"
cgroups = pytest.mark.needs("root", "memory-cgroup")


def groups() -> list[str]:
    """Those of this process that there are."""
    found = Path("/sys/fs/cgroup").glob(f"**/guactors-{os.getpid()}-*")
    return [str(path) for path in found]


@pytest.fixture(params=["fork", "spawn"])
def watch(request: pytest.FixtureRequest) -> Iterator[Watch]:
    workers = open_workers(ENTRY, method=request.param)
    yield Watch(workers)
    workers.close()
    assert groups() == []


def limited(watch: Watch, body: str, limits: Limits, place: Path) -> str:
    """A worker that is held to them and told to go."""
    worker = f"w-{body}-1"
    watch.workers.start(config_for(worker, place))
    watch.started(worker)
    watch.printed(worker, "ready")
    watch.workers.limit(worker, limits)
    (place / "go").touch()
    return worker


@cgroups
def test_more_memory_than_the_limit_ends_it_by_name(watch: Watch, tmp_path: Path) -> None:
    assert watch.workers.fences.startswith("cgroup")
    worker = limited(watch, "hog", Limits(memory=64 << 20), tmp_path)
    death = watch.ended(worker).death
    assert (death.cause, death.signal) == ("memory_limit", signal.SIGKILL)
    assert "memory limit of 64.0 MiB, of which it had taken 6" in death.detail
    assert groups() == []


@cgroups
def test_processor_time_is_held_for_all_its_processes(watch: Watch, tmp_path: Path) -> None:
    worker = limited(watch, "spin", Limits(cpu=0.5), tmp_path)
    # On a machine that is busy with other things nobody gets so much anyway: the kernel's word.
    (group,) = map(Path, groups())
    if watch.workers.fences == "cgroup-v1":
        assert (group / "cpu.cfs_quota_us").read_text() == "50000\n"
    else:
        assert (group / "cpu.max").read_text() == "50000 100000\n"
    assert watch.ended(worker).death.cause == "exited"
    (said,) = [line for line in watch.lines(worker, 1) if line.startswith("used")]
    assert 0.05 < float(said.split()[1]) < 0.62


@cgroups
def test_without_limits_it_takes_what_there_is(watch: Watch, tmp_path: Path) -> None:
    worker = "w-hog-1"
    watch.workers.start(config_for(worker, tmp_path))
    (tmp_path / "go").touch()
    watch.printed(worker, "got 512 MiB")
    assert watch.ended(worker).death.cause == "exited"


@cgroups
def test_nothing_that_it_started_outlives_it(watch: Watch, tmp_path: Path) -> None:
    worker = limited(watch, "escape", Limits(cpu=1.0, memory=1 << 30), tmp_path)
    watch.ended(worker)
    child = read_pid(tmp_path / f"{worker}.child")
    await_true(lambda: gone(child), "the child that left the group ends")


@cgroups
def test_a_killed_one_was_not_ended_for_its_memory(watch: Watch, tmp_path: Path) -> None:
    worker = "w-deaf-1"
    watch.workers.start(config_for(worker, tmp_path))
    watch.started(worker)
    watch.workers.limit(worker, Limits(memory=1 << 30))
    assert len(groups()) == 1
    watch.workers.kill(worker)
    assert watch.ended(worker).death.cause == "killed"


@cgroups
def test_closing_leaves_no_group(tmp_path: Path) -> None:
    workers = open_workers(ENTRY)
    watch = Watch(workers)
    workers.start(config_for("w-deaf-1", tmp_path))
    watch.started("w-deaf-1")
    workers.limit("w-deaf-1", Limits(1.0, 1 << 30))
    assert len(groups()) == 2
    workers.close()
    assert groups() == []


def test_a_worker_that_is_gone_is_not_limited(watch: Watch, tmp_path: Path) -> None:
    watch.workers.limit("w-none-1", Limits(1.0, 1 << 30))
    watch.workers.start(config_for("w-exit-1", tmp_path))
    watch.ended("w-exit-1")
    watch.workers.limit("w-exit-1", Limits(1.0, 1 << 30))


@pytest.mark.needs("linux")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_without_cgroups_memory_is_refused_to_it(
    monkeypatch: pytest.MonkeyPatch, method: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("GU_LIMITS", "rlimit")
    workers = open_workers(ENTRY, method=method)
    try:
        watch = Watch(workers)
        assert workers.fences == "rlimit"
        worker = limited(watch, "hog", Limits(0.5, 256 << 20), tmp_path)
        death = watch.ended(worker).death
        assert death.cause == "exited"
        assert "MemoryError" in death.stderr_tail
    finally:
        workers.close()


# --- machines that this one is not ----------------------------------------------------------------


def v2(tmp_path: Path, own: str, delegated: bool) -> tuple[Path, Path]:
    """What the kernel shows under version 2, as files."""
    mount, cgroups = tmp_path / "mount", tmp_path / "cgroup"
    here = mount / own.lstrip("/")
    here.mkdir(parents=True)
    (mount / "cgroup.controllers").write_text("cpu memory")
    (here / "cgroup.subtree_control").write_text("cpu memory pids" if delegated else "pids")
    if not delegated:
        # A directory in its place refuses the write, as the kernel does.
        (here / "cgroup.subtree_control").unlink()
        (here / "cgroup.subtree_control").mkdir()
    cgroups.write_text(f"0::{own}\n")
    return mount, cgroups


def test_version_2(tmp_path: Path) -> None:
    mount, cgroups = v2(tmp_path, "/unit", True)
    found = find_cgroups(mount, cgroups)
    assert found is not None
    assert found.guarantee == "cgroup-v2"


def test_version_2_where_nothing_is_delegated(tmp_path: Path) -> None:
    assert find_cgroups(*v2(tmp_path, "/unit", False)) is None


def test_version_2_writes_what_the_kernel_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("cpu.max", "memory.max", "memory.swap.max", "memory.oom.group", "cgroup.procs")
    make = Path.mkdir

    def mkdir(path: Path, *args: int, **options: bool) -> None:
        make(path, *args, **options)
        for name in names:
            (path / name).write_text("")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    fences = CgroupFences(Places(dict.fromkeys(("cpu", "memory"), tmp_path), unified=True))
    fences.put("w-1", 4_000_000, Limits(0.5, 1 << 26))
    (group,) = tmp_path.glob("guactors-*")
    written = {name: (group / name).read_text() for name in names}
    assert written == {
        "cpu.max": "50000 100000", "memory.max": str(1 << 26), "memory.swap.max": "0",
        "memory.oom.group": "1", "cgroup.procs": "4000000",
    }  # fmt: skip
    assert fences.broken_by("w-1") == ""
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert "limit of 64.0 MiB" in fences.broken_by("w-1")


def test_what_a_killed_provider_left_is_removed(tmp_path: Path) -> None:
    mount, cgroups = v2(tmp_path, "/unit", True)
    left = mount / "unit" / "guactors-4194305-w-1"
    alive = mount / "unit" / f"guactors-{os.getpid()}-w-1"
    left.mkdir()
    alive.mkdir()
    find_cgroups(mount, cgroups)
    assert not left.exists()
    assert alive.exists()


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GU_LIMITS", "none")
    assert isinstance(find_fences(), NoFences)
    monkeypatch.setenv("GU_LIMITS", "rlimit")
    assert isinstance(find_fences(), RlimitFences)
