"""Guests by the adapters of macOS and Windows: real ones, emulated, as far as those run here.

What is run: their channels, how they notice an end, their files. Not run, for want of such a
machine: hvf, whpx, and what macOS and Windows themselves do.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from guactors.errors import RuntimeMissing, UsageError
from guactors.runtimes.base import Capability, Exit, Mount
from guactors.runtimes.qemu.driver import QemuInstance, QemuRuntime
from guactors.runtimes.qemu.hosts.base import Host
from guactors.runtimes.qemu.hosts.mac import MacHost
from guactors.runtimes.qemu.hosts.windows import WindowsHost
from guactors.runtimes.qemu.probe import Chosen
from tests.contract import guests
from tests.contract.runtime_bench import Bench, finish, outcome, output, sh

pytestmark = pytest.mark.needs("linux", "qemu-system-x86_64", "busybox", "mksquashfs")
PROMPTLY = 3.0
Made = Callable[[Host], Bench]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    benches: list[Bench] = []

    def make(host: Host) -> Bench:
        try:
            benches.append(Bench(guests.runtime(host=host), tmp_path, guests.shell_image()))
        except RuntimeMissing as error:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
        return benches[-1]

    yield make
    for one in benches:
        one.close()


def examine(bench: Bench) -> psutil.Process:
    """An instance that does what one does; its QEMU, which was killed."""
    instance = bench.started()
    assert outcome(instance, "echo out; echo err >&2; exit 3") == (b"out\n", b"err\n", Exit(3))
    data = os.urandom(1 << 20) + b"and a little more"
    instance.put("big", [data])
    assert b"".join(instance.get("big")) == data
    instance.pause()
    instance.resume()
    stats = instance.stats()
    assert stats.cpu_seconds
    assert stats.memory
    driver = instance._driver
    assert isinstance(driver, QemuInstance)
    qemu = psutil.Process(driver.guest.vm.pid)
    running = sh(instance, "echo go; sleep 60")
    assert output(running) == b"go\n"
    threading.Timer(0.1, os.kill, (qemu.pid, signal.SIGKILL)).start()
    began = time.monotonic()
    end = finish(running)[2]
    assert time.monotonic() - began < PROMPTLY
    assert (end.reason, "by signal 9" in end.detail) == ("lost", True)
    instance.close()
    return qemu


def test_a_guest_by_the_adapter_of_macos(made: Made) -> None:
    bench = made(MacHost())
    runtime = bench.runtime
    assert isinstance(runtime, QemuRuntime)
    runtime._accelerator = Chosen("tcg", True)  # the other test tries it out
    assert {Capability.DISK, Capability.MOUNT} <= runtime.capabilities
    assert Capability.SAVE not in runtime.capabilities
    qemu = examine(bench)
    assert not qemu.is_running()


def test_a_guest_by_the_adapter_of_windows(made: Made, tmp_path: Path) -> None:
    bench = made(WindowsHost(tmp_path))
    found = bench.runtime.probe()
    assert (found.usable, found.facts["accel"]) == (True, "tcg")
    assert found.facts["scratch"].startswith("memory: ")
    assert "Hypervisor Platform is not there" in found.facts["whpx"]
    assert float(found.facts["boot"].removesuffix(" s")) > 0
    assert found.facts["mounts"] == "none"
    with pytest.raises(UsageError, match="on Windows no guest is shown directories"):
        bench.created(mounts=(Mount(str(tmp_path), "/mnt"),))
    with pytest.raises(UsageError, match="on Windows no guest goes on from a file"):
        bench.runtime.restore(bench.spec(), "saved")
    qemu = examine(bench)
    assert not qemu.is_running()
