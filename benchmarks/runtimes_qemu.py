"""What a guest of QEMU costs, row by row, beside its target.

    python -m benchmarks.runtimes_qemu [--rows NAME,NAME] [--rounds N] [--json FILE]

Owns: one function a row, and the targets. Guests are made in a directory of the benchmark's own, of
this machine's Debian packages; nothing of the user's is touched. Where KVM does not work the rows
are those of an emulated processor. Prints a table; exits with 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.runtimes import Row, cells, milliseconds, p99
from benchmarks.table import aligned
from guactors.ids import fresh
from guactors.images.debian import build_debian
from guactors.images.store import ImageStore
from guactors.runtimes.base import Command, Exit, Mount, Output, Spec
from guactors.runtimes.instance import Instance
from guactors.runtimes.qemu.driver import QemuInstance, QemuRuntime
from guactors.runtimes.qemu.guest.make import Guest, fetch_packages, make_guest

MIB = 1 << 20
BIG = 64
"""MiB of a large file."""
GIVEN = 200
"""Files of a MiB in a directory that is mounted."""
SMALL = 1000
"""Files of 4 KiB."""
LOOP = "import time\nt = time.perf_counter()\nx = 0\nfor i in range(1_000_000): x += i * i % 7\n"
LOOP += "print(time.perf_counter() - t)"
PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
DOCKER = ("docker.io", "containerd", "runc")


class Ground:
    """One runtime with one image. ``rounds``: how often each is measured. Rates are the best of all
    rounds: what else a machine does makes things slower, never faster."""

    def __init__(self, base: Path, rounds: int) -> None:
        self.base = base
        self.rounds = rounds
        fetch_packages(base / "packages")
        self.files: Guest = make_guest(base / "packages", base / "cache")
        self.runtime = QemuRuntime(
            self.store, packages=base / "packages", cache=base / "cache", guest=self.files
        )
        packages = ["python3-minimal", "busybox-static"]
        self.image = build_debian(packages, self.store(), name="python", media="squashfs")
        self.accel = self.runtime.probe().facts["accel"]

    def store(self) -> ImageStore:
        return ImageStore(self.base / "images", quota=4 << 30, now=time.time)

    def made(self, *mounts: Mount, **options: object) -> Instance:
        """A guest that was not started."""
        name = fresh("instance")
        (self.base / name).mkdir()
        spec = Spec(
            name, "p-benchmark", str(self.base / name), self.image, mounts=mounts, options=options
        )
        return Instance(spec, self.runtime.create(spec))

    def started(self, *mounts: Mount, **options: object) -> Instance:
        instance = self.made(*mounts, **options)
        instance.start()
        return instance


def said(instance: Instance, *argv: str) -> bytes:
    """The output of a program."""
    found = b""
    for one in instance.exec(Command(argv)).output():
        if isinstance(one, Output):
            found += one.data
        elif isinstance(one, Exit):
            assert one.code == 0, (argv, one)
    return found


def first_words(ground: Ground, *argv: str, **options: object) -> list[float]:
    """Seconds from the wish for a guest to the first output of a program in it, sorted."""
    found = []
    for _ in range(ground.rounds):
        began = time.perf_counter()
        with ground.made(**options) as instance:
            instance.start()
            running = instance.exec(Command(argv))
            assert isinstance(running.read(60), Output)
            found.append(time.perf_counter() - began)
    return sorted(found)


def warm_python(ground: Ground) -> Row:
    ground.started().close()
    found = first_words(ground, "python3", "-c", "print(6 * 7)")
    words = f"{ground.accel}, best {found[0]:.2f}, worst {found[-1]:.2f}"
    return Row("warm snapshot to first Python result", statistics.median(found), "s", 0.5, words)


def warm_shell(ground: Ground) -> Row:
    ground.started().close()
    found = first_words(ground, "sh", "-c", "echo hi")
    words = f"{ground.accel}, best {found[0]:.2f}, worst {found[-1]:.2f}"
    return Row("warm snapshot to first shell result", statistics.median(found), "s", 0.5, words)


def cold_python(ground: Ground) -> Row:
    found = first_words(ground, "python3", "-c", "print(6 * 7)", warm=False)
    words = f"boot, no snapshot; best {found[0]:.2f}, worst {found[-1]:.2f}"
    return Row("from nothing to first Python result", statistics.median(found), "s", 5, words)


def anonymous(pid: int, guest: int) -> float:
    """MiB of a QEMU that are nobody else's, but for the guest's own memory of so many bytes."""
    total, its, size = 0, 0, 0
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="ascii").splitlines():
        word, _, rest = line.partition(" ")
        if "-" in word:
            low, high = (int(one, 16) for one in word.split("-"))
            size = high - low
        elif word == "Anonymous:":
            here = int(rest.split()[0]) * 1024
            total += here
            its = max(its, here) if size == guest else its
    return (total - its) / MIB


def memory(ground: Ground, name: str, **options: object) -> Row:
    with ground.started(**options) as instance:
        said(instance, "python3", "-c", "print(6 * 7)")
        driver = instance._driver
        assert isinstance(driver, QemuInstance)
        size = driver._ground.plan.machine.memory * MIB
        beyond = anonymous(driver.guest.vm.pid, size)
    words = "anonymous pages; files that are mapped are shared by all guests"
    return Row(f"QEMU's own memory beyond the guest's, {name}", beyond, "MiB", 70, words)


def memory_cold(ground: Ground) -> Row:
    return memory(ground, "booted", warm=False)


def memory_warm(ground: Ground) -> Row:
    ground.started().close()
    return memory(ground, "from a snapshot")


def large(ground: Ground, *, into: bool) -> Row:
    data = os.urandom(MIB) * BIG
    rates = []
    for _ in range(ground.rounds):
        with ground.started() as instance:
            instance.put("before", [data])
            began = time.perf_counter()
            if into:
                instance.put("big", [data])
            else:
                assert sum(map(len, instance.get("before"))) == len(data)
            rates.append(len(data) / 1e6 / (time.perf_counter() - began))
    words = f"best of {ground.rounds}, median {statistics.median(rates):.0f}; {BIG} MiB"
    name = f"large files {'in' if into else 'out'}"
    return Row(name, max(rates), "MB/s", 300, words, at_least=True)


def archive() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for number in range(SMALL):
            member = tarfile.TarInfo(f"d{number % 10}/f{number}")
            member.size = 4096
            tar.addfile(member, io.BytesIO(os.urandom(4096)))
    return made.getvalue()


def small(ground: Ground, *, into: bool) -> Row:
    data = archive()
    first, later = [], []
    for _ in range(ground.rounds):
        with ground.started() as instance:
            for rates in (first, later):
                began = time.perf_counter()
                instance.put(f"s{id(rates)}", [data], tar=True)
                if not into:
                    began = time.perf_counter()
                    assert sum(map(len, instance.get(f"s{id(rates)}", tar=True))) > SMALL * 4096
                rates.append(SMALL / (time.perf_counter() - began))
    words = f"best of {ground.rounds}, median {statistics.median(later):.0f}; the first in a guest "
    words += f"{max(first):.0f}"
    name = f"1,000 files of 4 KiB {'in' if into else 'out'}"
    return Row(name, max(later), "files/s", 2000, words, at_least=True)


def mounted(ground: Ground) -> Row:
    """A directory of many files, from the wish for a guest until it is mounted there."""
    took = []
    for name, files in (("nearly-empty", 1), ("given", GIVEN)):
        directory = ground.base / name
        directory.mkdir()
        for number in range(files):
            (directory / str(number)).write_bytes(os.urandom(MIB))
        mount = Mount(str(directory), "/mnt/given")
        took = []
        for _ in range(ground.rounds + 1):
            began = time.perf_counter()
            with ground.started(mount):
                took.append(time.perf_counter() - began)
    words = f"a directory of {GIVEN} MiB; the first guest that has it {took[0]:.2f}, when the disk "
    words += f"is made; worst of the others {max(took[1:]):.2f}"
    return Row("warm start with a directory mounted", statistics.median(took[1:]), "s", 0.5, words)


def download(ground: Ground) -> Row:
    """What of a guest a machine has to fetch, packed with xz, as Debian's packages are."""
    files = (ground.files.kernel, ground.files.initrd)
    kernel, initrd = (len(lzma.compress(one.read_bytes())) / 1e6 for one in files)
    qemu, docker = sum(map(package, PACKAGES)), sum(map(package, DOCKER))
    words = f"kernel {kernel:.1f}; with QEMU {kernel + initrd + qemu:.1f} (<= 30); Docker "
    words += f"{docker:.1f}, podman {package('podman'):.1f}, without images"
    return Row("download: kernel, initramfs with agent", kernel + initrd, "MB", 20, words)


def package(name: str) -> float:
    """MB of a Debian package."""
    told = subprocess.run(
        ["apt-cache", "show", "--no-all-versions", name], capture_output=True, text=True, check=True
    )
    return next(
        int(line.split()[1]) / 1e6 for line in told.stdout.splitlines() if line.startswith("Size:")
    )


def compute(ground: Ground) -> Row:
    with ground.started() as instance:
        guest = min(float(said(instance, "python3", "-c", LOOP)) for _ in range(ground.rounds))
    here = ["/usr/bin/python3", "-I", "-c", LOOP]
    native = min(float(subprocess.check_output(here)) for _ in range(ground.rounds))
    words = f"a loop of Python: {guest:.2f} s, native {native:.2f} s"
    return Row("compute, times slower than native", guest / native, "x", float("inf"), words)


def pause(ground: Ground) -> Row:
    took = []
    with ground.started() as instance:
        instance.exec(Command(("sh", "-c", "while :; do :; done")))
        for _ in range(200):
            took += milliseconds(instance.pause, 1)
            instance.resume()
    took.sort()
    words = f"200 times, a busy guest; p50 {statistics.median(took):.2f}"
    return Row("pause, p99", p99(took), "ms", 20, words)


def many(ground: Ground) -> Row:
    """Guests of one snapshot, one after another, while each goes on."""
    ground.started().close()
    count = 8
    guests: list[Instance] = []
    began = time.perf_counter()
    try:
        for _ in range(count):
            guests.append(ground.started())
            assert said(guests[-1], "python3", "-c", "print(1)") == b"1\n"
        took = time.perf_counter() - began
        drawn = {said(one, "python3", "-c", "import os; print(os.urandom(16))") for one in guests}
        assert len(drawn) == count
    finally:
        for one in guests:
            one.close()
    words = f"at the same time, {took / count:.2f} s each; one file of {snapshot(ground):.0f} MB"
    return Row("instances of one warm snapshot", count, "", 8, words, at_least=True)


def snapshot(ground: Ground) -> float:
    """MB that the newest takes."""
    found = max((ground.base / "cache" / "warm").iterdir(), key=lambda one: one.stat().st_mtime)
    return found.stat().st_blocks * 512 / 1e6


ROWS: dict[str, Callable[[Ground], Row]] = {
    "warm_python": warm_python,
    "warm_shell": warm_shell,
    "cold_python": cold_python,
    "memory_cold": memory_cold,
    "memory_warm": memory_warm,
    "large_in": lambda ground: large(ground, into=True),
    "large_out": lambda ground: large(ground, into=False),
    "small_in": lambda ground: small(ground, into=True),
    "small_out": lambda ground: small(ground, into=False),
    "mounted": mounted,
    "download": download,
    "compute": compute,
    "pause": pause,
    "many": many,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="by commas; default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="gb-") as directory:
        ground = Ground(Path(directory), given.rounds)
        try:
            for name in given.rows.split(","):
                print(f"{name} ...", file=sys.stderr, flush=True)
                rows.append(ROWS[name](ground))
        finally:
            ground.runtime.close()
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows]))
    head = ["what", "measured", "target", "met", "in the same run"]
    print(aligned([head, *map(cells, rows)]))
    raise SystemExit(not all(row.met for row in rows))


if __name__ == "__main__":
    main()
