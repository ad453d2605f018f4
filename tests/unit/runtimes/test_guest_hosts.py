"""What each host system drives QEMU with: its words, its channels, how it notices an end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from guactors.errors import RuntimeMissing, UsageError
from guactors.messages import Limits
from guactors.runtimes.base import Capability
from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.qemu import probe, storage
from guactors.runtimes.qemu.argv import Disk, Machine, build_argv
from guactors.runtimes.qemu.found import Qemu, find_qemu, qemu_path
from guactors.runtimes.qemu.guest.make import Guest
from guactors.runtimes.qemu.hosts import loopback
from guactors.runtimes.qemu.hosts.base import Accelerator, Host, find_host, profile_of
from guactors.runtimes.qemu.hosts.ending import WaitedEnd
from guactors.runtimes.qemu.hosts.mac import MacHost
from guactors.runtimes.qemu.hosts.windows import WindowsHost
from guactors.runtimes.qemu.plan import make_plan

pytestmark = pytest.mark.needs("linux")
MACHINE = Machine(
    "qemu", "gu:p:i", "k", "i", 11, 12, 13,
    disks=(Disk("root", 14, read_only=True, path=r"C:\a,b\root"),),
)  # fmt: skip
PROMPTLY = 5.0


def hosts() -> list[Host]:
    from guactors.runtimes.qemu.hosts.linux import LinuxHost

    return [LinuxHost(), MacHost(), WindowsHost()]


def words(host: Host, accelerator: Accelerator) -> list[str]:
    fitted = host.fit(msgspec.structs.replace(MACHINE, profile=profile_of(accelerator)))
    return build_argv(fitted)


def program(path: Path, text: str) -> str:
    """A program in Python."""
    path.write_text(f"#!{sys.executable} -S\n{text}")
    path.chmod(0o755)
    return str(path)


# --- the words ------------------------------------------------------------------------------------


def test_what_is_tried_in_which_order() -> None:
    assert [one.accelerators for one in hosts()] == [
        ("kvm", "tcg"), ("hvf", "tcg"), ("whpx", "tcg"),
    ]  # fmt: skip
    assert find_host().name == "Linux"


def test_the_words_of_each_accelerator() -> None:
    linux, mac, windows = hosts()
    assert "-M q35 -accel hvf -cpu host -nodefaults" in " ".join(words(mac, "hvf"))
    assert "-M q35 -accel whpx,kernel-irqchip=off -cpu qemu64," in " ".join(words(windows, "whpx"))
    assert "-accel kvm -cpu host" in " ".join(words(linux, "kvm"))
    for host in (linux, mac, windows):
        said = " ".join(words(host, "tcg"))
        assert "-M q35 -accel tcg,thread=multi" in said
        assert "mitigations=off" in said
        assert "mitigations=off" not in " ".join(words(host, host.accelerators[0]))


def test_linux_is_confined_and_no_other_is_told_to() -> None:
    linux, mac, windows = hosts()
    assert "-sandbox" in words(linux, "tcg")
    assert "-sandbox" not in words(mac, "tcg") + words(windows, "tcg")
    assert [("nothing around QEMU" in one.isolation()) for one in hosts()] == [False, True, True]


def test_channels_and_disks_are_inherited_but_on_windows() -> None:
    for host in hosts()[:2]:
        said = words(host, "tcg")
        assert "socket,id=agent,fd=11" in said
        assert "fd=14,set=1" in said
        assert "C:" not in " ".join(said)
    said = words(WindowsHost(), "tcg")
    assert "socket,id=agent,host=127.0.0.1,server=off,ipv4=on,nodelay=on,port=11" in said
    assert not any(",fd=" in word or "fdset" in word for word in said)
    [disk] = [word for word in said if word.startswith("driver=raw")]
    assert r"file.filename=C:\a,,b\root,read-only=on" in disk
    assert "locking" not in disk


def test_a_machine_of_another_system_is_refused_by_name() -> None:
    fields = {
        "name": "n", "qemu": Qemu("qemu", "7.2"), "guest": Guest(Path("k"), Path("i"), "g", "6"),
        "image": "one", "profile": "q35", "scratch": 0, "tsc_khz": 0, "processors": 4,
        "hardware": ("hvf",),
    }  # fmt: skip
    plan = make_plan({"machine": "hvf"}, Limits(), **fields)  # type: ignore[arg-type]
    assert plan.machine.profile == "hvf"
    with pytest.raises(UsageError, match="there are auto, q35, microvm, hvf"):
        make_plan({"machine": "kvm"}, Limits(), **fields)  # type: ignore[arg-type]


# --- what there is --------------------------------------------------------------------------------


def test_what_only_linux_can_is_not_claimed_elsewhere() -> None:
    linux, mac, windows = (one.can for one in hosts())
    assert linux - mac == {Capability.SAVE}
    assert linux - windows == {Capability.SAVE, Capability.DISK, Capability.MOUNT}
    assert {Capability.PRIVATE, Capability.MEMORY, Capability.PIDS} <= windows


def sysctl(directory: Path, **said: str) -> str:
    lines = " ".join(f"{name}) echo {value};;" for name, value in said.items())
    path = directory / "sysctl"
    path.write_text(f'#!/bin/sh\ncase "${{2##*.}}" in {lines} *) exit 1;; esac\n')
    path.chmod(0o755)
    return str(path)


def test_what_a_look_tells(tmp_path: Path) -> None:
    there = MacHost(sysctl(tmp_path, hv_support="1", brand_string="a"))
    assert (there.why_not("hvf"), there.why_not("tcg")) == ("", "")
    assert there.facts()[1:] == ("a", "1")
    gone = MacHost(sysctl(tmp_path, hv_support="0"))
    assert "kern.hv_support" in gone.why_not("hvf")
    assert "Hypervisor framework" in MacHost(str(tmp_path / "none")).why_not("hvf")
    windows = WindowsHost(tmp_path)
    assert "switch that feature on" in windows.why_not("whpx")
    before = windows.facts()
    (tmp_path / "WinHvPlatform.dll").write_bytes(b"")
    assert windows.why_not("whpx") == ""
    assert windows.facts() != before


def test_there_is_no_guest_for_arm64(tmp_path: Path) -> None:
    translated = MacHost(sysctl(tmp_path, proc_translated="1"))
    with pytest.raises(RuntimeMissing, match=r"no guest for arm64 yet, .* x86_64 only"):
        find_qemu(host=translated)


def test_qemu_is_looked_for_where_a_system_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = WindowsHost()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(host, "places", (str(tmp_path),))
    assert qemu_path(host=host) is None
    with pytest.raises(RuntimeMissing, match="winget install"):
        find_qemu(host=host)
    made = program(tmp_path / "qemu-system-x86_64", "print('QEMU emulator version 9.1.0')")
    assert qemu_path(host=host) == made
    assert find_qemu(host=host).version == "version 9.1.0"


@pytest.mark.parametrize(
    ("faults", "found"),
    [
        ({}, ("hvf", True, "")),
        ({"hvf": "no"}, ("tcg", True, "macOS has its Hypervisor framework but cannot boot: no")),
        ({"hvf": "no", "q35": "bad"}, ("tcg", False, "no guest boots here: bad")),
    ],
)
def test_it_is_found_out_by_booting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: dict[str, str],
    found: tuple[str, bool, str],
) -> None:
    monkeypatch.setattr(probe, "try_boot", lambda *words: (1.5, faults.get(words[3], "")))
    host = MacHost(sysctl(tmp_path, hv_support="1"))
    guest = Guest(Path("k"), Path("i"), "g", "6")
    chosen = probe.choose(Qemu("qemu", "7.2"), guest, tmp_path, Guardian(), host)
    assert (chosen.name, chosen.usable, chosen.reason) == found


LOADS = """
import os, select, signal, socket, sys
import guactors.runtimes.qemu.driver  # so that the library is loaded as this system needs it
for name in [name for name in sys.modules if name.startswith("guactors")]:
    del sys.modules[name]
sys.platform = sys.argv[1]
gone = {os: "O_TMPFILE memfd_create MFD_CLOEXEC pidfd_open fdatasync", select: "epoll",
        signal: "pidfd_send_signal"}
if sys.platform == "win32":
    gone[os] += " pread pwrite O_CLOEXEC O_NOFOLLOW O_NONBLOCK SEEK_DATA SEEK_HOLE fork geteuid"
    gone |= {select: "epoll poll", socket: "AF_UNIX SCM_RIGHTS", signal: "SIGKILL SIGSTOP SIGCONT"}
    sys.modules |= dict.fromkeys(["fcntl", "resource", "pty", "termios", "grp", "pwd"])
for module, names in gone.items():
    for name in names.split():
        delattr(module, name)
from guactors.runtimes.choice import ADAPTERS
from guactors.runtimes.qemu.driver import QemuRuntime
print(QemuRuntime().host.name, ADAPTERS["qemu"].here)
"""


@pytest.mark.parametrize(("system", "name"), [("darwin", "macOS"), ("win32", "Windows")])
def test_it_is_loaded_without_what_other_systems_lack(system: str, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADS, system], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{name} True\n", "")


# --- ends -----------------------------------------------------------------------------------------


def test_an_end_is_noticed_after_the_last_words() -> None:
    code = "import os, time; os.write(2, b'last words'); time.sleep(60)"
    popen = subprocess.Popen([sys.executable, "-S", "-c", code], stderr=subprocess.PIPE, bufsize=0)
    ours, words = socket.socketpair()
    end = WaitedEnd(popen, words)
    with ours:
        ours.settimeout(PROMPTLY)
        assert ours.recv(100) == b"last words"
        with pytest.raises(subprocess.TimeoutExpired):
            end.wait(0.05)
        end.kill()
        end.wait(PROMPTLY)
        assert ours.recv(100) == b""
        assert os.read(end.alive, 1) == b""
        assert popen.returncode == -9
        end.kill()
        end.close()


def test_one_that_talks_to_nobody_still_ends() -> None:
    code = "import os; os.set_blocking(2, True); os.write(2, bytes(4 << 20))"
    popen = subprocess.Popen([sys.executable, "-S", "-c", code], stderr=subprocess.PIPE, bufsize=0)
    ours, words = socket.socketpair()
    with ours:
        end = WaitedEnd(popen, words)
        end.wait(PROMPTLY)
        end.close()
    assert popen.returncode == 0


# --- the loopback ---------------------------------------------------------------------------------

COMES = """
import os, re, socket, sys, time
ports = dict(re.findall(r"id=(\\w+),.*port=(\\d+)", "\\n".join(sys.argv)))
def come(name, said):
    sock = socket.create_connection(("127.0.0.1", int(ports[name])))
    sock.sendall(said)
    return sock
"""


def fake(directory: Path, script: str) -> Machine:
    path = program(directory / "qemu", COMES + script)
    return WindowsHost().fit(msgspec.structs.replace(MACHINE, qemu=path))


def test_strangers_are_sent_away(tmp_path: Path) -> None:
    """They are as fast as they like: they come before QEMU does."""
    script = """
if os.fork() == 0:
    strangers = [come(name, b"a stranger") for name in ports]
    time.sleep(60)
time.sleep(0.3)
mine = [come(name, name.encode()) for name in ports]
os.write(2, b"words")
time.sleep(60)
"""
    started = loopback.start_connecting(fake(tmp_path, script))
    channels = [started.agent, started.monitor, *started.others]
    try:
        for one, said in zip(channels, (b"agent", b"monitor", b"console", b"words"), strict=True):
            one.settimeout(PROMPTLY)
            assert one.recv(100) == said
        assert started.runs()
    finally:
        os.killpg(started.pid, 9)
        started.end.wait(PROMPTLY)
        assert started.how() == "by signal 9"
        started.end.close()
        for one in channels:
            one.close()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("sys.exit('no such accelerator')", r"with status 1 before it came.*no such accelerator"),
        ("os.write(2, b'hm'); time.sleep(60)", r"did not connect to this process.*hm"),
        ("come('monitor', b''); os.abort()", r"by signal 6 before it came"),
    ],
)
def test_one_that_does_not_come(tmp_path: Path, script: str, said: str) -> None:
    began = time.monotonic()
    with pytest.raises(RuntimeMissing, match=said):
        loopback.start_connecting(fake(tmp_path, script), within=0.5)
    assert time.monotonic() - began < PROMPTLY


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(RuntimeMissing, match="cannot be started"):
        loopback.start_connecting(msgspec.structs.replace(MACHINE, qemu="/no/such/qemu"))


def test_whose_a_connection_is() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        sock, peer = listener.accept()
        with sock:
            assert loopback.is_of(os.getpid(), peer, sock.getsockname())
            assert not loopback.is_of(os.getppid(), peer, sock.getsockname())
            assert not loopback.is_of(1 << 30, peer, sock.getsockname())


# --- files ----------------------------------------------------------------------------------------


def test_a_sparse_file_is_copied_where_the_system_tells_no_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, to = (os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in "ab")
    os.ftruncate(source, (1 << 20) + 5)
    os.pwrite(source, b"here", 300_000)
    os.pwrite(source, b"end", (1 << 20) + 2)
    known = list(storage.extents(source))
    assert len(known) == 2
    monkeypatch.delattr(os, "SEEK_DATA")
    found = list(storage.extents(source))
    assert found == [(262144, 65536), (1 << 20, 5)]
    os.ftruncate(to, os.fstat(source).st_size)
    for at, size in found:
        storage.copy(source, at, to, at, size)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with pytest.raises(EOFError):
        storage.copy(source, 1 << 20, to, 0, 100)
    for fd in (source, to):
        os.close(fd)
