"""Limits of cgroups, read from files laid out as the kernel does."""

from __future__ import annotations

from pathlib import Path

import pytest

from guactors.errors import UsageError
from guactors.machine import (
    Gpu,
    Machine,
    cpu_quota,
    detect_resources,
    find_gpus,
    find_labels,
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


# --- GPUs ----------------------------------------------------------------------------------------

A100 = "NVIDIA A100-SXM4-80GB"


def with_gpus(root: Path, *models: str, present: int = 99) -> tuple[str, str]:
    """The files of a driver that knows these; the first ``present`` have a device file."""
    (root / "dev").mkdir()
    (root / "gpus").mkdir()
    for number, model in enumerate(models):
        folder = root / "gpus" / f"0000:{number:02x}:00.0"
        folder.mkdir()
        text = f"Model: \t\t {model}\nIRQ:   \t\t 11\nDevice Minor: \t {number}\n"
        (folder / "information").write_text(text)
        if number < present:
            (root / "dev" / f"nvidia{number}").touch()
    return str(root / "gpus"), str(root / "dev")


def test_gpus_are_read_from_the_driver_s_files(tmp_path: Path) -> None:
    where = with_gpus(tmp_path, A100, A100)
    assert find_gpus(*where, {}) == [Gpu("0", A100), Gpu("1", A100)]
    assert find_gpus(str(tmp_path / "none"), str(tmp_path), {}) == []


def test_a_gpu_without_a_device_file_is_not_ours(tmp_path: Path) -> None:
    assert len(find_gpus(*with_gpus(tmp_path, A100, A100, A100, present=2), {})) == 2


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        ("1,0", ["1", "0"]), ("", []), ("-1", []), ("0,7,1", ["0"]),
        ("GPU-8a,GPU-8b", ["GPU-8a", "GPU-8b"]),
    ],
)  # fmt: skip
def test_what_may_be_seen_is_chosen_as_cuda_does(
    tmp_path: Path, visible: str, ids: list[str]
) -> None:
    where = with_gpus(tmp_path, A100, A100)
    assert [gpu.id for gpu in find_gpus(*where, {"CUDA_VISIBLE_DEVICES": visible})] == ids


@pytest.mark.parametrize(
    ("models", "label"),
    [
        ([A100, A100], "A100"), (["Tesla V100-SXM2-16GB"], "V100"), (["NVIDIA H100 PCIe"], "H100"),
        (["NVIDIA GeForce RTX 4090"], "GeForce-RTX-4090"), ([A100, "Tesla T4"], ""), ([""], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_the_accelerator_type_is_the_chip_all_have(models: list[str], label: str) -> None:
    gpus = [Gpu(str(number), model) for number, model in enumerate(models)]
    assert find_labels(gpus) == ({"accelerator_type": label} if label else {})
