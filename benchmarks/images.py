"""How fast an image gets into the store, by how fast SHA3-256 alone is on this machine.

    python -m benchmarks.images [--rounds N] [--mib N] [--directory DIR]

Owns: three ways through the same data, by turns: ``hash``, one ``hashlib.sha3_256`` over all of it
in memory; ``ingest``, the store with hashing, writing, syncing and sealing; ``two_passes``, what
ingest would be if blobs were named by the plain hash of the whole beside those of the chunks.
Prints one line of JSON: the median of each in MB/s, and of the ratios to the ``hash`` just before.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from guactors.images import disk
from guactors.images.hashing import each_chunk, filler
from guactors.images.manifest import CHUNK
from guactors.images.store import ImageStore

MIB = 256
ROUNDS = 7
PIECE = 2**20
"""As it comes from a network: smaller than a chunk."""
REPEATED = 16 * 2**20


@cache
def data() -> list[bytes]:
    return [os.urandom(PIECE) for _ in range(REPEATED // PIECE)]


def stream(mib: int) -> Iterator[bytes]:
    for number in range(mib):
        yield data()[number % len(data())]


def hash_alone(mib: int) -> None:
    digest = hashlib.sha3_256()
    for piece in stream(mib):
        digest.update(piece)
    digest.hexdigest()


def ingest(mib: int, directory: Path) -> None:
    ImageStore(directory / "store", quota=2**40, now=time.time).ingest(stream(mib))


def two_passes(mib: int, directory: Path) -> None:
    """The whole in this thread, the chunks and the writing in those of ``each_chunk``."""
    whole = hashlib.sha3_256()
    fill = filler(stream(mib))
    fd = os.open(directory / "two", os.O_RDWR | os.O_CREAT, 0o600)

    def both(number: int, view: memoryview) -> int:
        length = fill(number, view)
        whole.update(view[:length])
        return length

    def keep(number: int, view: memoryview) -> str:
        disk.write_at(fd, view, number * CHUNK)
        return hashlib.sha3_256(view).hexdigest()

    try:
        each_chunk(both, keep)
        os.fsync(fd)
    finally:
        os.close(fd)


def speed(mib: int, once: Callable[[], None]) -> float:
    """MB/s, a million bytes each."""
    began = time.perf_counter()
    once()
    return mib * 2**20 / 1e6 / (time.perf_counter() - began)


def one_round(mib: int, parent: str | None) -> dict[str, float]:
    """Each way once, with the hash alone before each of the others."""
    data()
    found: dict[str, float] = {}
    for name, way in (("ingest", ingest), ("two_passes", two_passes)):
        hash_speed = speed(mib, lambda: hash_alone(mib))
        with tempfile.TemporaryDirectory(prefix="gu-images-", dir=parent) as directory:
            found[name] = speed(mib, lambda way=way: way(mib, Path(directory)))  # type: ignore[misc]
        found[f"{name}_ratio"] = found[name] / hash_speed
        found["hash"] = hash_speed
    return found


def measure(
    rounds: int = ROUNDS, mib: int = MIB, parent: str | None = None
) -> dict[str, list[float]]:
    """The samples of all rounds by name; ``parent``: a directory on the disk that is meant."""
    found = [one_round(mib, parent) for _ in range(rounds)]
    return {name: [one[name] for one in found] for name in found[0]}


def stored() -> dict[str, float]:
    """For the table of all numbers: one sample of the ratio and of the speed beside it."""
    found = one_round(MIB, None)
    return {"image_ingest": found["ingest_ratio"], "image_rate": found["ingest"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--mib", type=int, default=MIB)
    parser.add_argument("--directory")
    given = parser.parse_args()
    samples = measure(given.rounds, given.mib, given.directory)
    print(json.dumps({
        name: {"median": round(statistics.median(values), 3),
               "samples": [round(value, 3) for value in values]}
        for name, values in samples.items()
    }))  # fmt: skip


if __name__ == "__main__":
    main()
