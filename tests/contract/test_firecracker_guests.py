"""Our guest in machines of Firecracker, as far as that goes without one.

The agent is real, and a process; the program is the stand-in; the kernel and the initramfs are real
and boot in QEMU. What is not held here: both together on a vsock of a machine.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

if sys.platform != "linux":
    pytest.skip("Firecracker is for Linux", allow_module_level=True)

from guactors.errors import ImageRefused, InstanceLost, RuntimeMissing
from guactors.images.build import add_rootfs
from guactors.images.manifest import Config
from guactors.runtimes.base import Exit, Spec
from guactors.runtimes.choice import ADAPTERS, open_runtime
from guactors.runtimes.firecracker import guests
from guactors.runtimes.firecracker.guests import ARGUMENTS, PORT, GuestAgent, elf_kernel, make_disk
from guactors.runtimes.instance import Instance
from guactors.runtimes.qemu.agent import wire
from guactors.runtimes.qemu.argv import CPU
from guactors.runtimes.qemu.found import host_tsc_khz
from guactors.runtimes.qemu.guest.make import Guest
from guactors.runtimes.qemu.line import Line
from tests.contract import guests as real
from tests.contract.firecracker_server import PORT as STAND_IN_PORT
from tests.contract.firecracker_stub import StubBench, standing_agent
from tests.contract.guest_stub import HOME, agent_words
from tests.contract.runtime_bench import Bench, outcome, output, sh

pytestmark = pytest.mark.needs("bwrap", "mke2fs")
MIB = 1 << 20

Hellos = list[dict[str, Any]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[Any], Bench]]:
    made: list[Bench] = []

    def make(agent: Any = None) -> Bench:
        made.append(StubBench(tmp_path, agent))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def hellos(monkeypatch: pytest.MonkeyPatch) -> Hellos:
    """What each hello told the agent."""
    told: Hellos = []
    ask = Line.ask

    def spied(line: Line, kind: int, within: float = 20.0, **fields: Any) -> dict[str, object]:
        if kind == wire.HELLO:
            told.append(fields)
        return ask(line, kind, within, **fields)

    monkeypatch.setattr(Line, "ask", spied)
    return told


# --- a whole instance -----------------------------------------------------------------------------


def test_it_is_the_one_that_is_opened_by_name(tmp_path: Path) -> None:
    assert PORT == STAND_IN_PORT
    made = open_runtime("firecracker", real.store)
    assert isinstance(made, guests.FirecrackerRuntime)
    assert ADAPTERS["firecracker"].here
    made.close()


def test_it_is_probed_with_its_agent(make: Callable[[Any], Bench]) -> None:
    found = make(None).runtime.probe()
    assert (found.usable, found.reason) == (True, "")
    assert found.facts["kernel"] == "6.1-stub"
    assert found.facts["isolation"] == "a machine of its own"


def test_it_stands_still_and_its_programs_stay_ours(
    make: Callable[[Any], Bench], hellos: Hellos
) -> None:
    instance = make(None).started()
    running = sh(instance, "read line; echo got $line", stdin=True)
    instance.pause()
    instance.resume()
    running.write(b"it\n")
    assert output(running) == b"got it\n"
    assert [one["keep"] for one in hellos] == [False, True]
    assert hellos[1]["clock"] > hellos[0]["clock"]


def test_it_is_saved_and_goes_on_with_another_machine(
    make: Callable[[Any], Bench], tmp_path: Path, hellos: Hellos
) -> None:
    """The agent that lives on is in the place of the memory file."""
    path = str(tmp_path / "saved")
    with standing_agent(tmp_path) as agent:
        bench = make(agent)
        instance = bench.started()
        outcome(instance, "echo kept > file")
        running = sh(instance, "echo go; while :; do echo more; sleep 0.01; done")
        assert output(running).startswith(b"go\n")
        instance.save(path)
        instance.close()
        assert isinstance(running.read(0), Exit) or isinstance(last(running), Exit)
        spec = bench.spec()
        again = bench.keep(Instance(spec, bench.runtime.restore(spec, path), running=True))
        assert outcome(again, "cat file")[0] == b"kept\n"
        processes = again.stats().processes
        assert processes is not None
        assert processes >= 1
        again.stop(grace=0.1)
    clocks = [one["clock"] for one in hellos]
    assert clocks == sorted(clocks)
    assert len({one["seed"] for one in hellos}) == len(hellos) >= 3
    assert not any(one["keep"] for one in hellos)


def last(running: Any) -> object:
    while not isinstance(found := running.read(5), Exit | None):
        continue
    return found


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("the root file system: bad magic", ImageRefused, "cannot be read by the guest"),
        ("insmod vsock: no", InstanceLost, "could not be set up: insmod vsock"),
    ],
)
def test_what_went_wrong_in_the_guest_is_told(
    make: Callable[[Any], Bench], fault: str, kind: type[Exception], says: str
) -> None:
    words = ["/usr/bin/env", f"GU_FAULT={fault}", *agent_words("guest", "listening:{line}")]
    instance = make(words).created()
    with pytest.raises(kind, match=says):
        instance.start()


def test_an_image_for_other_processors(make: Callable[[Any], Bench]) -> None:
    bench = make(None)
    store = bench.runtime._images()  # type: ignore[attr-defined]
    blob = store.ingest([b"hsqs of another"], role="rootfs", media="squashfs")
    bench.image = add_rootfs(store, blob, name="other", arch="riscv64")
    with pytest.raises(ImageRefused, match="is for riscv64"):
        bench.created()


# --- the agent on a line that breaks --------------------------------------------------------------


def test_a_host_that_goes_in_the_middle_of_a_frame_is_followed_by_another(tmp_path: Path) -> None:
    with standing_agent(tmp_path) as agent:
        rude = connected(agent["socket"])
        rude.sendall(struct.pack("<IIB", 1000, 1, wire.HELLO) + b"half of it")
        rude.close()
        first = GuestAgent(connected(agent["socket"]), spec(tmp_path), Config(workdir=HOME), 10)
        flood = sh(first, "while :; do echo flood; done")  # type: ignore[arg-type]
        assert output(flood).startswith(b"flood\n")
        first.close()
        second = GuestAgent(connected(agent["socket"]), spec(tmp_path), Config(workdir=HOME), 10)
        found = outcome(second, "echo here; exit 3")  # type: ignore[arg-type]
        assert found == (b"here\n", b"", Exit(3))
        second.close()


def spec(directory: Path) -> Spec:
    return Spec("i-line", "p-test", str(directory))


def connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    return made


# --- what it boots --------------------------------------------------------------------------------


def test_a_kernel_that_is_unpacked_is_taken_as_it_is(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"\x7fELF and so on")
    assert elf_kernel(Guest(kernel, kernel, "key", "6.1")) == kernel


def test_a_kernel_that_cannot_be_unpacked(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"MZ" + bytes(4000))
    with pytest.raises(RuntimeMissing, match=r"the kernel 6\.1 of .* is packed in a way"):
        elf_kernel(Guest(kernel, kernel, "key", "6.1"))
    assert [one.name for one in tmp_path.iterdir()] == ["kernel"]


def test_a_disk_has_a_file_system_and_no_more_than_was_asked_for(tmp_path: Path) -> None:
    for name, size in (("a", 10 * MIB + 5), ("b", 1)):
        make_disk(tmp_path / "cache", tmp_path / name, size)
        data = (tmp_path / name).read_bytes()
        assert data[0x438:0x43A] == b"\x53\xef"
        assert len(data) == (10 * MIB if name == "a" else 4 * MIB)
    assert (tmp_path / "a").stat().st_blocks * 512 < 2 * MIB


@pytest.mark.needs("qemu-system-x86_64", "busybox")
def test_kernel_and_initramfs_come_up_as_they_would_there(tmp_path: Path) -> None:
    """In QEMU's machine that is most like one of Firecracker: devices on the memory bus, an ELF
    kernel, the words for it. Nobody can reach the agent: that it does not end is what is seen."""
    try:
        guest = real.guest()
    except RuntimeMissing as error:
        pytest.skip(str(error))
    disk = tmp_path / "scratch"
    make_disk(tmp_path, disk, 32 * MIB)
    with real.store().open_blob(real.shell_image(), "rootfs") as blob:
        (tmp_path / "rootfs").write_bytes(blob.read())
    argv = mmio_machine(guest, [f"file={tmp_path / 'rootfs'},readonly=on", f"file={disk}"])
    said = console(argv, until=b"PF_VSOCK", then=3.0)
    assert b"(vdb): mounted filesystem" in said
    assert b"the agent:" not in said
    assert b"Kernel panic" not in said


def mmio_machine(guest: Guest, drives: list[str]) -> list[str]:
    words = ARGUMENTS.replace("quiet loglevel=3", "loglevel=7")
    # Without it an emulated machine that shares its processor cannot tell the time, and hangs.
    words += f" tsc_early_khz={host_tsc_khz() or round(psutil.cpu_freq().current * 1000)}"
    argv = [
        "qemu-system-x86_64", "-M", "microvm,pit=on,pic=on,rtc=on,isa-serial=on", "-accel", "tcg",
        "-cpu", CPU, "-m", "256M", "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
        "-serial", "stdio", "-global", "virtio-mmio.force-legacy=false",
        "-kernel", str(elf_kernel(guest)), "-initrd", str(guest.initrd), "-append", words,
    ]  # fmt: skip
    for number, drive in enumerate(drives):
        argv += ["-drive", f"if=none,id=d{number},format=raw,{drive}"]
        argv += ["-device", f"virtio-blk-device,drive=d{number}"]
    return argv


def console(argv: list[str], *, until: bytes, then: float) -> bytes:
    """What the machine says up to the words, and for so many seconds after them."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as machine:
        assert machine.stdout is not None
        try:
            said = read_for(machine.stdout, 30, until)
            assert until in said, f"it does not come up: {said[-2000:]!r}"
            return said + read_for(machine.stdout, then)
        finally:
            machine.kill()


def read_for(stream: IO[bytes], seconds: float, until: bytes = b"") -> bytes:
    said, limit = b"", time.monotonic() + seconds
    while (left := limit - time.monotonic()) > 0 and (not until or until not in said):
        if select.select([stream], [], [], left)[0]:
            data = os.read(stream.fileno(), 65536)
            assert data, f"the machine ended: {said[-2000:]!r}"
            said += data
    return said
