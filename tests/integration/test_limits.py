"""``limits=`` on a real embedded grid: what is said when memory runs out, and that a hog of
processor time gets what it may and no more."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import guactors as gu
from guactors import errors
from tests import leaks

pytestmark = [
    pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS),
    pytest.mark.needs("root", "memory-cgroup"),
]  # fmt: skip
MIB = 1 << 20


def take(amount: int) -> int:
    held = bytearray(b"x" * amount)
    return len(held)


@gu.remote
def hog(amount: int) -> int:
    return take(amount)


@gu.remote
def spin(seconds: float) -> float:
    """The share of one processor that eight processes got, which is more than half on a busy
    machine, too."""
    begin = time.monotonic()
    children: list[int] = []
    while len(children) < 7 and (not children or children[-1]):
        children.append(os.fork())
    while time.monotonic() < begin + seconds:
        pass
    if not children[-1]:
        os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    now = os.times()
    return (now.children_user + now.children_system) / (time.monotonic() - begin)


def test_a_task_over_its_memory_limit() -> None:
    small = hog.options(limits={"memory": 100 * MIB}, max_retries=0)
    assert gu.get(small.remote(10 * MIB), timeout=20) == 10 * MIB
    with pytest.raises(errors.OutOfMemory) as caught:
        gu.get(small.remote(300 * MIB), timeout=20)
    text = str(caught.value)
    assert "hog" in text
    assert "memory limit of 100.0 MiB, of which it had taken" in text
    assert caught.value.death is not None
    assert caught.value.death.cause == "memory_limit"
    # Nobody else suffers.
    assert gu.get(hog.remote(300 * MIB), timeout=20) == 300 * MIB


def test_an_actor_over_its_memory_limit() -> None:
    @gu.remote(limits={"memory": 100 * MIB})
    class Hog:
        def take(self, amount: int) -> int:
            return take(amount)

    actor = Hog.remote()
    assert gu.get(actor.take.remote(MIB), timeout=20) == MIB
    with pytest.raises(errors.OutOfMemory, match="memory limit of 100") as caught:
        gu.get(actor.take.remote(300 * MIB), timeout=20)
    assert isinstance(caught.value, errors.ActorDied)


def test_half_a_processor_is_half_a_processor() -> None:
    share = gu.get(spin.options(limits={"cpu": 0.5}).remote(1.5), timeout=30)
    assert 0.05 < share < 0.6
    share = gu.get(spin.options(limits={"cpu": 0.2}).remote(1.5), timeout=30)
    assert 0.02 < share < 0.26


def test_groups_go_with_the_workers() -> None:
    @gu.remote(limits={"cpu": 0.5, "memory": 200 * MIB})
    class Still:
        def groups(self) -> list[str]:
            return Path("/proc/self/cgroup").read_text().splitlines()

    actor = Still.remote()
    mine = [line.rpartition("/")[2] for line in gu.get(actor.groups.remote(), timeout=20)]
    (name,) = {one for one in mine if one.startswith("guactors-")}
    root = Path("/sys/fs/cgroup")
    assert list(root.glob(f"**/{name}"))
    gu.kill(actor)
    deadline = time.monotonic() + 10
    while list(root.glob(f"**/{name}")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"cpus": 1}, "did you mean cpu"),
        ({"disk": 1}, "there are cpu and memory"),
        ({"cpu": 0}, "limits="),
        ({"memory": 1000}, "limits="),
        ({"cpu": "half"}, "limits="),
        (0.5, "limits="),
    ],
)
def test_impossible_limits_are_named(limits: object, words: str) -> None:
    with pytest.raises(errors.UnknownOption, match=words):
        hog.options(limits=limits)


def test_none_is_no_limit() -> None:
    assert gu.get(hog.options(limits=None).remote(MIB), timeout=20) == MIB
