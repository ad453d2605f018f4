"""Limits of cgroups, read from files laid out as the kernel does."""

from __future__ import annotations

from pathlib import Path

import pytest

from guactors.errors import UsageError
from guactors.machine import (
    Machine,
    cpu_quota,
    detect_resources,
    memory_group,
    memory_limit,
    memory_threshold,
)


def laid_out(root: Path, cgroups: str, files: dict[str, str]) -> tuple[str, str]:
    (root / "cgroup").write_text(cgroups)
    for name, text in files.items():
        (root / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fs" / name).write_text(text + "\n")
    return str(root / "cgroup"), str(root / "fs")


def test_version_2_takes_the_strictest_of_a_group_and_its_parents(tmp_path: Path) -> None:
    where = laid_out(
        tmp_path,
        "0::/a/b\n",
        {
            "cpu.max": "max 100000",
            "a/cpu.max": "150000 100000",
            "a/b/cpu.max": "400000 100000",
            "a/memory.max": "max",
            "a/b/memory.max": "1000000",
        },
    )
    assert cpu_quota(*where) == 1.5
    assert memory_limit(*where) == 1_000_000.0
    assert memory_group(*where) == (Path(where[1], "a/b"), 1_000_000)


def test_version_1_has_a_folder_for_each_controller(tmp_path: Path) -> None:
    where = laid_out(
        tmp_path,
        "5:cpuacct,cpu:/job\n4:memory:/job\n0::/\n",
        {
            "cpu/job/cpu.cfs_quota_us": "50000",
            "cpu/job/cpu.cfs_period_us": "100000",
            "memory/job/memory.limit_in_bytes": "2000000",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert cpu_quota(*where) == 0.5
    assert memory_limit(*where) == 2_000_000.0


def test_no_limit_is_no_number(tmp_path: Path) -> None:
    where = laid_out(
        tmp_path,
        "5:cpu:/\n0::/\n",
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000", "cpu.max": "max 100000"},
    )
    assert cpu_quota(*where) is None
    assert memory_limit(*where) is None
    assert memory_group(*where) is None


def test_a_path_of_the_host_that_is_not_mounted_here_falls_back_to_the_root(tmp_path: Path) -> None:
    where = laid_out(tmp_path, "0::/docker/abc\n", {"cpu.max": "200000 100000"})
    assert cpu_quota(*where) == 2.0


def test_without_cgroups_there_is_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(str(tmp_path / "none"), str(tmp_path)) is None


def test_this_machine_has_something_to_offer() -> None:
    resources = detect_resources()
    assert resources["CPU"] >= 1.0
    assert resources["CPU"] == int(resources["CPU"])
    assert resources["memory"] > 2**20


def test_figures_are_fresh_and_sane(tmp_path: Path) -> None:
    info = Machine("here", str(tmp_path)).info()
    assert info.host == "here"
    assert 0 < info.cores <= info.threads
    assert 0 < info.memory_available_gib <= info.memory_total_gib
    assert 0 <= info.storage_free_gib <= info.storage_total_gib
    assert info.storage_total_gib > 0


def test_the_threshold_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GU_MEMORY_THRESHOLD", raising=False)
    assert memory_threshold() == 0.95
    monkeypatch.setenv("GU_MEMORY_THRESHOLD", "0.5")
    assert memory_threshold() == 0.5
    for wrong in ("much", "-1", "95", "nan"):
        monkeypatch.setenv("GU_MEMORY_THRESHOLD", wrong)
        with pytest.raises(UsageError, match="GU_MEMORY_THRESHOLD"):
            memory_threshold()
