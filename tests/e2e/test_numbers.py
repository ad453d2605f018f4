"""The promised numbers, with room for a busy machine: what gets twice as slow or large is noticed.

``python -m benchmarks.numbers`` measures against the promises themselves.
"""

from __future__ import annotations

import statistics

import pytest

from benchmarks import calls, install, memory, startup, table
from benchmarks.children import Child

pytestmark = [pytest.mark.needs("fork")]
TRIES = 3
TRIALS = "20"


@pytest.fixture(scope="module")
def starts() -> dict[str, float]:
    """The quickest of a few: what else the machine does only ever adds."""
    tries = [startup.fresh_interpreter() for _ in range(TRIES)]
    return {row: min(one[row] for one in tries) for row in tries[0]}


def test_import_time(starts: dict[str, float]) -> None:
    assert starts["import"] < 0.1
    assert starts["import_used"] < 0.25, "the import is quick, but what it puts off is not"


def test_first_result(starts: dict[str, float]) -> None:
    assert starts["first_result"] < 1.0


@pytest.mark.needs("linux")
def test_idle_memory() -> None:
    found = memory.idle()
    roles = {"pss_caller", "pss_launcher", "pss_hub", "pss_provider", "pss_zygote", "pss_workers"}
    assert set(found) == roles | {"idle_pss"}, "some process was not weighed"
    assert found["idle_pss"] < 120


def test_size_of_the_dependencies() -> None:
    found = install.closure()
    assert {"guactors", "pyzmq", "msgspec", "cloudpickle", "psutil", "typer", "rich"} <= set(found)
    assert sum(found.values()) < 60


def test_one_call_at_a_time() -> None:
    found = calls.one_at_a_time()
    assert statistics.median(found["actor_sync"]) > 0.45
    assert statistics.median(found["task_sync"]) > 0.40


def test_many_calls_in_flight() -> None:
    with Child("benchmarks.calls", "ipc") as ipc:
        assert ipc.ask("wire") == "ipc"
        times = ipc.ask("batches")
    assert calls.IN_FLIGHT / (statistics.median(times) / 1e3) > 15_000
    # A batch takes some 15 ms. One that takes as long as a timer lost its wake-up.
    stalls = [round(one) for one in times if one > 250]
    assert not stalls, f"{len(stalls)} of {len(times)} batches stalled, ms: {stalls}"


def test_priority_call_behind_a_queue() -> None:
    with Child("benchmarks.urgency", "urgent_call", TRIALS) as caller:
        assert statistics.median(caller.ask()) < 20


def test_cancellation_behind_a_queue() -> None:
    with Child("benchmarks.urgency", "urgent_control", TRIALS) as caller:
        assert statistics.median(caller.ask()) < 20


def test_a_miss_is_a_miss_and_a_restless_machine_is_seen() -> None:
    verdicts = {one["key"]: one for one in table.judge({
        "import": [0.01, 0.2, 0.3], "import_used": [9.0], "actor_flood": [35_000.0],
        "urgent_call": [1.0] * 98 + [50.0, 60.0],
    })}  # fmt: skip
    assert verdicts["import"]["measured"] == 0.2
    assert verdicts["import"]["passed"] is False
    assert verdicts["import_used"]["passed"] is None
    assert verdicts["actor_flood"]["passed"] is True
    assert verdicts["urgent_call"]["measured"] == 50.0
    assert "MISS" in table.render([verdicts["urgent_call"]])
    assert table.unrest({"raw_echo": [100.0] * 8 + [300.0] * 2}) == 3.0
    assert table.unrest({}) is None
