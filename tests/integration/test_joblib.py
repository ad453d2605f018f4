"""joblib on the grid, beside joblib's own backends."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors import errors
from tests import leaks

# Here, because its threads stay, and the grid's leak check counts from its start.
np = pytest.importorskip("numpy")
pytestmark = [
    pytest.mark.usefixtures("grid"),
    pytest.mark.may_keep(*leaks.KINDS),
    pytest.mark.needs("module:joblib", "module:numpy"),
]


def eventually(what: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def joblib() -> Iterator[Any]:
    """joblib, in whose calls the grid is the backend."""
    joblib = pytest.importorskip("joblib")
    from guactors.integrations.joblib import register

    register()
    with joblib.parallel_config("guactors"):
        yield joblib


def square(x: int) -> int:
    return x * x


def pid(_: object) -> int:
    return os.getpid()


def invert(x: int) -> float:
    return 1 / x


def test_results_are_joblibs_own(joblib: Any) -> None:
    calls = [joblib.delayed(square)(i) for i in range(500)]
    ours = joblib.Parallel()(calls)
    with joblib.parallel_config("sequential"):
        assert ours == joblib.Parallel()(calls)
    assert joblib.Parallel(n_jobs=2, batch_size=7)(calls) == ours
    assert sorted(joblib.Parallel(return_as="generator_unordered")(calls)) == sorted(ours)
    assert list(joblib.Parallel(return_as="generator")(calls)) == ours
    assert joblib.Parallel()([]) == []


def test_calls_run_on_the_grid(joblib: Any) -> None:
    pids = set(joblib.Parallel(batch_size=1)(joblib.delayed(pid)(i) for i in range(20)))
    assert os.getpid() not in pids
    with joblib.parallel_config("guactors", n_jobs=1):
        assert joblib.Parallel()([joblib.delayed(pid)(0)]) == [os.getpid()]


def test_n_jobs_comes_from_the_grid(joblib: Any) -> None:
    assert joblib.effective_n_jobs() == 2
    assert joblib.effective_n_jobs(-2) == 1
    assert joblib.effective_n_jobs(5) == 5
    with joblib.parallel_config("guactors", num_cpus=2):
        assert joblib.effective_n_jobs() == 1
    with pytest.raises(ValueError, match="n_jobs"):
        joblib.Parallel(n_jobs=0)([joblib.delayed(square)(1)])


def test_n_jobs_is_the_most_that_run_at_a_time(joblib: Any, tmp_path: Path) -> None:
    def count(name: int) -> int:
        mine = Path(tmp_path, str(name))
        mine.touch()
        time.sleep(0.05)
        seen = len(list(tmp_path.iterdir()))
        mine.unlink()
        return seen

    options = {"num_cpus": 0.25}
    with joblib.parallel_config("guactors", n_jobs=3, **options):
        seen = joblib.Parallel(batch_size=1)(joblib.delayed(count)(i) for i in range(12))
    assert max(seen) in {2, 3}


def test_an_error_is_raised_and_ends_the_rest(joblib: Any, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        joblib.Parallel()(joblib.delayed(invert)(i) for i in (1, 2, 0, 3))
    assert isinstance(caught.value.__cause__, errors.TaskError)

    def run_long() -> None:
        Path(tmp_path, "began").touch()
        try:
            time.sleep(60)
        finally:
            Path(tmp_path, "ended").touch()

    def fail_later() -> None:
        eventually(Path(tmp_path, "began").exists)
        raise LookupError("enough")

    with joblib.Parallel(batch_size=1) as parallel:
        with pytest.raises(LookupError, match="enough"):
            parallel([joblib.delayed(run_long)(), joblib.delayed(fail_later)()])
        eventually(Path(tmp_path, "ended").exists)
        assert parallel([joblib.delayed(square)(3)] * 3) == [9] * 3, "not ready for more"


def test_a_timeout(joblib: Any) -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        joblib.Parallel(timeout=0.2)([joblib.delayed(time.sleep)(30)] * 2)


def test_calls_inside_calls_do_not_block_each_other(joblib: Any) -> None:
    """All CPUs are taken by calls that wait for calls of their own, two levels deep."""

    def inner(x: int) -> tuple[int, int]:
        import joblib

        return sum(
            joblib.Parallel(n_jobs=2)(joblib.delayed(square)(i) for i in range(x))
        ), os.getpid()

    def outer(x: int) -> tuple[int, set[int]]:
        import joblib

        found = joblib.Parallel(n_jobs=2, batch_size=1)(joblib.delayed(inner)(x) for _ in range(3))
        return sum(total for total, _ in found), {pid for _, pid in found} - {os.getpid()}

    found = joblib.Parallel(batch_size=1)(joblib.delayed(outer)(x) for x in range(4))
    assert [total for total, _ in found] == [0, 0, 3, 15]
    assert all(pids for _, pids in found), "the calls inside ran in their caller's process"


def test_calls_inside_calls_stay_where_they_are_unless_told(joblib: Any) -> None:
    def outer() -> bool:
        import joblib

        pids = joblib.Parallel()(joblib.delayed(pid)(i) for i in range(4))
        return set(pids) == {os.getpid()}

    assert joblib.Parallel(batch_size=1)([joblib.delayed(outer)()] * 3) == [True] * 3


def test_big_arrays_are_stored_once(joblib: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[Any] = []
    real = gu.put
    monkeypatch.setattr(gu, "put", lambda value: put.append(value) or real(value))
    big, small = np.arange(200_000.0), np.arange(10.0)

    def use(there: Any, i: int, *, more: Any) -> tuple[float, bool]:
        return float(there[i] + more[i]), there.flags.writeable

    found = joblib.Parallel(batch_size=1)(
        joblib.delayed(use)(big, i, more=more) for i in range(8) for more in (big, small)
    )
    assert found == [(2.0 * i, False) for i in range(8) for _ in range(2)]
    assert len(put) == 1
    assert put[0] is big


def test_options_are_those_of_a_task(joblib: Any) -> None:
    with joblib.parallel_config("guactors", num_cpu=1), pytest.raises(errors.UnknownOption):
        joblib.Parallel(n_jobs=2)([joblib.delayed(square)(1)])


def test_rays_name(joblib: Any) -> None:
    from guactors.util.joblib import register_ray

    register_ray()
    with joblib.parallel_backend("ray", n_jobs=2):
        pids = joblib.Parallel()(joblib.delayed(pid)(i) for i in range(4))
    assert os.getpid() not in pids


def test_without_joblib(monkeypatch: pytest.MonkeyPatch) -> None:
    from guactors.integrations.joblib import register

    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(errors.UsageError, match="pip install"):
        register()
