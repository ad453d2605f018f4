"""The kernel's own OOM killer, in a memory cgroup of 64 MiB: the worker's death is named for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import guactors as gu
from guactors import errors

CONTROLLER = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A cgroup (v1) that lets nobody in it have more than 64 MiB."""
    group = CONTROLLER / f"guactors-test-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(64 << 20))
    yield group
    group.rmdir()


@pytest.mark.needs("root", "memory-cgroup")
def test_a_worker_that_takes_too_much_memory_is_said_to_have_run_out_of_it(
    small_memory: Path,
) -> None:
    @gu.remote(max_retries=0)
    def hog(group: str) -> int:
        import os
        from pathlib import Path

        Path(group, "cgroup.procs").write_text(str(os.getpid()))
        return len(bytearray(os.urandom(1) * (512 << 20)))

    gu.init(num_cpus=1)
    try:
        with pytest.raises(errors.WorkerDied) as caught:
            gu.get(hog.remote(str(small_memory)), timeout=40)
    finally:
        gu.shutdown()
    death = caught.value.death
    assert death is not None
    assert death.cause == "out_of_memory", death.describe()
    assert death.rss_bytes > 32 << 20
