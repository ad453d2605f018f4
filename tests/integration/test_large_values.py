"""Large values on a real embedded grid: one copy in shared memory, seen by every process of the
machine, kept while anybody needs it and no longer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import guactors as gu
from guactors import errors
from guactors.objects.place import own_place
from guactors.objects.sweeping import arenas_in
from tests import leaks
from tests.command import eventually

pytestmark = [pytest.mark.usefixtures("grid"), pytest.mark.may_keep(*leaks.KINDS)]

MIB = 1 << 20
COUNT = MIB // 8


def in_use() -> int:
    """Bytes of shared memory that blocks of any process take: what no empty arena has."""
    return sum(entry.stat().st_blocks * 512 for entry in arenas_in(own_place().directory))


@gu.remote
def ones(count: int) -> np.ndarray:
    return np.ones(count)


@gu.remote
def total(array: np.ndarray) -> float:
    return float(array.sum())


@gu.remote
def address(array: np.ndarray) -> tuple[bool, int]:
    """Whether it may be written, and which file it lies in."""
    start = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if low <= start < high:
            return array.flags.writeable, int(line.split()[4])
    return array.flags.writeable, -1


@gu.remote
class Shelf:
    def __init__(self) -> None:
        self.kept: object = None

    def keep(self, value: object) -> int:
        self.kept = value
        return os.getpid()

    def give(self) -> object:
        return self.kept

    def drop(self) -> None:
        self.kept = None


def file_of(array: np.ndarray) -> int:
    return file_at(array.__array_interface__["data"][0])


def file_at(start: int) -> int:
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(part, 16) for part in line.split()[0].split("-"))
        if low <= start < high:
            return int(line.split()[4])
    return -1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_an_argument_is_the_same_memory_in_the_worker() -> None:
    ref = gu.put(np.arange(COUNT))
    mine = gu.get(ref)
    assert file_of(mine) > 0
    assert gu.get(address.remote(ref)) == (False, file_of(mine))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_a_result_is_the_same_memory_in_the_caller_and_in_a_third() -> None:
    ref = ones.remote(COUNT)
    mine = gu.get(ref)
    assert not mine.flags.writeable
    assert gu.get(address.remote(ref)) == (False, file_of(mine))
    assert file_of(mine) > 0


@pytest.mark.parametrize(
    "value",
    [
        b"x" * MIB,
        "ä" * MIB,
        [np.arange(COUNT), {"b": np.ones(COUNT, dtype=np.float32)}],
        np.arange(COUNT).reshape(4, -1).T,
        list(range(100_000)),
        bytearray(b"y" * MIB),
    ],
    ids=["bytes", "text", "container", "transposed", "many small", "bytearray"],
)
def test_values_survive_the_round(value: object) -> None:
    @gu.remote
    def same(value: object) -> object:
        return value

    assert pickle.dumps(gu.get(same.remote(value))) == pickle.dumps(value)
    assert pickle.dumps(gu.get(same.remote(gu.put(value)))) == pickle.dumps(value)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_columns_of_a_table_are_the_same_memory_in_all_processes() -> None:
    @gu.remote
    def made() -> pa.Table:
        texts = [f"text {i}" for i in range(COUNT // 8)]
        return pa.table({"n": np.arange(COUNT // 8), "text": texts})

    @gu.remote
    def files(table: pa.Table) -> list[int]:
        return [file_at(buffer.address) for buffer in buffers_of(table)]

    ref = made.remote()
    table = gu.get(ref)
    assert table.column("text")[COUNT // 8 - 1].as_py() == f"text {COUNT // 8 - 1}"
    mine = [file_at(buffer.address) for buffer in buffers_of(table)]
    assert len(mine) == 3
    assert len(set(mine)) == 1
    assert mine[0] > 0
    assert gu.get(files.remote(ref)) == mine
    assert gu.get(gu.put(table)).equals(table)


def buffers_of(table: pa.Table) -> list[pa.Buffer]:
    chunks = [chunk for column in table.columns for chunk in column.chunks]
    return [buffer for chunk in chunks for buffer in chunk.buffers() if buffer is not None]


def test_the_caller_may_change_what_it_gave() -> None:
    array = np.zeros(COUNT)
    ref = gu.put(array)
    task = total.remote(array)
    array[:] = 7
    assert gu.get(ref).sum() == 0
    assert gu.get(task) == 0


def test_an_actor_keeps_and_gives_what_it_got() -> None:
    shelf = Shelf.remote()
    array = np.arange(COUNT, dtype=np.float64)
    gu.get(shelf.keep.remote(array))
    expected = array.sum()
    del array
    for _ in range(3):
        assert gu.get(shelf.give.remote()).sum() == expected
    gu.get(shelf.drop.remote())
    gu.kill(shelf)


def test_memory_is_used_again() -> None:
    """A thousand values of 1 MiB do not take a thousand MiB."""
    for _ in range(20):
        gu.get([total.remote(np.ones(COUNT)) for _ in range(10)])
        gu.get([ones.remote(COUNT) for _ in range(10)])
    assert in_use() < 100 * MIB


def test_results_come_back_a_few_at_a_time() -> None:
    """They are not told of one by one, and still the same few MiB are written to."""
    places = set()
    for _ in range(60):
        array = gu.get(ones.remote(COUNT))
        places.add(array.__array_interface__["data"][0])
        del array
    assert 2 < len(places) < 15


def test_memory_goes_back_to_the_system() -> None:
    big = gu.put(np.zeros(20 * COUNT))
    assert in_use() >= 20 * MIB
    del big
    eventually(lambda: in_use() == 0, "memory goes back")


def test_a_view_outlives_the_worker_that_made_it() -> None:
    shelf = Shelf.remote()
    pid = gu.get(shelf.keep.remote(np.arange(COUNT)))
    array = gu.get(shelf.give.remote())
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(errors.GuactorsError):
        gu.get(shelf.give.remote())
    assert array.sum() == COUNT * (COUNT - 1) // 2


def test_results_of_a_killed_worker_stay_with_who_got_them() -> None:
    @gu.remote
    def made() -> tuple[int, np.ndarray]:
        return os.getpid(), np.arange(COUNT)

    ref = made.remote()
    gu.wait([ref])
    with contextlib.suppress(ProcessLookupError):
        os.kill(gu.get(ref)[0], signal.SIGKILL)
    assert gu.get(ref)[1].sum() == COUNT * (COUNT - 1) // 2
    assert gu.get(total.remote(gu.get(ref)[1])) == COUNT * (COUNT - 1) // 2


def test_streams_and_async_actors() -> None:
    @gu.remote
    def stream() -> Iterator[np.ndarray]:
        for i in range(5):
            yield np.full(COUNT, i)

    @gu.remote
    class Asker:
        async def ask(self, value: np.ndarray) -> np.ndarray:
            await asyncio.sleep(0)
            return value + 1

    assert [gu.get(ref)[0] for ref in stream.remote()] == [0, 1, 2, 3, 4]
    asker = Asker.remote()
    assert gu.get(asker.ask.remote(np.zeros(COUNT)))[-1] == 1
    gu.kill(asker)


def test_nested_references_to_large_values() -> None:
    @gu.remote
    def inner(box: list[gu.ObjectRef]) -> float:
        return float(sum(gu.get(ref).sum() for ref in box))

    refs = [gu.put(np.ones(COUNT)), ones.remote(COUNT)]
    assert gu.get(inner.remote(refs)) == 2 * COUNT

    @gu.remote
    def outer() -> list[gu.ObjectRef]:
        return [gu.put(np.ones(COUNT)), ones.remote(COUNT)]

    assert [gu.get(ref).sum() for ref in gu.get(outer.remote())] == [COUNT, COUNT]


def test_a_large_error_comes_back_whole() -> None:
    @gu.remote
    def fail() -> None:
        raise ValueError("x" * MIB)

    with pytest.raises(ValueError, match="xxx") as caught:
        gu.get(fail.remote())
    assert caught.value.args[0] == "x" * MIB


SMALL = """
import os, sys
import numpy as np
import guactors as gu
from guactors import errors
gu.init(num_cpus=1)
{body}
gu.shutdown()
"""


def run(body: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SMALL.format(body=body)],
        env={**os.environ, "GU_HOME": str(home), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def nothing_left(home: Path) -> bool:
    from guactors.objects import place

    there = place._place_of(home)
    return not there.directory.exists() and not there.disk.exists()


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Runs a program on a grid of its own and checks that it leaves nothing."""

    def go(body: str, **env: str) -> str:
        done = run(body, tmp_path / "home", **env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    yield go
    eventually(lambda: nothing_left(tmp_path / "home"), "nothing is left")


def test_more_than_memory_goes_to_disk_and_comes_back(own_home: Callable[..., str]) -> None:
    out = own_home(
        """
refs = [gu.put(np.full(1 << 20, i, dtype=np.uint8)) for i in range(40)]
print(bool(os.listdir(os.environ["GU_HOME"] + "/spilled")))
print(sum(int(gu.get(ref)[-1]) for ref in refs))
""",
        GU_OBJECT_MEMORY=str(10 * MIB),
    )
    assert out.split() == ["True", str(sum(range(40)))]


def test_larger_than_the_store_is_an_error_and_the_rest_goes_on(
    own_home: Callable[..., str],
) -> None:
    out = own_home(
        """
kept = gu.put(np.ones(1 << 17))
try:
    gu.put(np.ones(40 << 17))
except errors.StoreFull as error:
    print("put", "GU_OBJECT_MEMORY" in str(error))
@gu.remote
def big(): return np.ones(40 << 17)
try:
    gu.get(big.remote())
except errors.StoreFull as error:
    print("get", "GU_OBJECT_MEMORY" in str(error))
print(gu.get(kept).sum() == 1 << 17)
""",
        GU_OBJECT_MEMORY=str(10 * MIB),
        GU_OBJECT_DISK=str(10 * MIB),
    )
    assert out.split() == ["put", "True", "get", "True", "True"]


def test_init_bounds_the_store_of_its_grid(own_home: Callable[..., str]) -> None:
    out = own_home(
        """
gu.shutdown()
with gu.init(num_cpus=1, object_store_memory=10 << 20):
    try:
        gu.put(np.ones(40 << 17))
    except errors.StoreFull as error:
        print("put", f"{10 << 20:,}" in str(error))
    @gu.remote
    def big(): return np.ones(40 << 17)
    try:
        gu.get(big.remote())
    except errors.StoreFull:
        print("get")
print(os.environ.get("GU_OBJECT_MEMORY"))
with gu.init(num_cpus=1):
    print(gu.get(gu.put(np.ones(40 << 17))).sum() == 40 << 17)
for wrong in (0, 10.5, "1GB"):
    try:
        gu.init(object_store_memory=wrong)
    except errors.UsageError as error:
        print(repr(wrong) in str(error))
""",
        GU_OBJECT_DISK=str(10 * MIB),
    )
    assert out.split() == ["put", "True", "get", "None", "True", "True", "True", "True"]


@pytest.fixture
def short() -> Iterator[Path]:
    """For the sockets of a grid that cannot remove them."""
    with tempfile.TemporaryDirectory(prefix="gt-") as path:
        yield Path(path)


def test_a_killed_driver_leaves_no_memory(tmp_path: Path, short: Path) -> None:
    home = tmp_path / "home"
    body = """
refs = [gu.put(np.ones(1 << 20)) for _ in range(4)]
@gu.remote
def made(): return np.ones(1 << 20)
results = gu.get([made.remote() for _ in range(4)])
print("there", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", SMALL.format(body=body)],
        env={**os.environ, "GU_HOME": str(home), "TMPDIR": str(short)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
    finally:
        process.kill()
        process.communicate()
    eventually(lambda: nothing_left(home), "nothing is left")
