"""What only guests of QEMU can suffer: a bad QEMU, a bad kernel, a bad agent, a bad image."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from guactors.errors import ImageRefused, InstanceLost, RuntimeMissing, UsageError
from guactors.images.build import add_rootfs, build_image
from guactors.images.unpack import unpack_image
from guactors.messages import Limits
from guactors.runtimes.base import Command, Exit, Mount
from guactors.runtimes.docker.driver import DockerRuntime
from guactors.runtimes.instance import Instance
from guactors.runtimes.native.guardian import Guardian
from guactors.runtimes.qemu import boot as booting
from guactors.runtimes.qemu import probe
from guactors.runtimes.qemu.agent import wire
from guactors.runtimes.qemu.agent.wire import Decoder, frame, pack
from guactors.runtimes.qemu.boot import Keeper, boot
from guactors.runtimes.qemu.driver import QemuInstance
from guactors.runtimes.qemu.found import find_qemu, host_tsc_khz
from guactors.runtimes.qemu.guest import cpio
from guactors.runtimes.qemu.hosts.linux import LinuxHost
from guactors.runtimes.qemu.inside import PATH
from guactors.runtimes.qemu.line import Line
from guactors.runtimes.tools import squash_directory
from tests.contract import guests
from tests.contract.runtime_bench import OWNER, Bench, finish, machines, outcome, output, sh, tar

pytestmark = pytest.mark.needs("linux", "qemu-system-x86_64", "busybox", "mksquashfs")
PROMPTLY = 3.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    try:
        made = machines(tmp_path)
    except RuntimeMissing as error:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(error))
    yield made
    made.close()


def qemu_pid(instance: object) -> int:
    driver = instance._driver  # type: ignore[attr-defined]
    assert isinstance(driver, QemuInstance)
    return driver.guest.vm.pid


# --- QEMU -----------------------------------------------------------------------------------------


def test_qemu_that_is_missing_is_said_by_name() -> None:
    with pytest.raises(RuntimeMissing, match="no-such-qemu is not installed"):
        find_qemu("no-such-qemu")


def test_qemu_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "qemu"
    old.write_text("#!/bin/sh\necho 'QEMU emulator version 5.2.0 (of old)'\n")
    old.chmod(0o755)
    with pytest.raises(RuntimeMissing, match=r"5\.2\.0.*7\.0 or newer"):
        find_qemu(str(old))


def test_it_is_found_out_which_accelerator_works(bench: Bench) -> None:
    found = bench.runtime.probe()
    assert (found.usable, found.reason) == (True, "")
    assert found.facts["accel"] in {"kvm", "tcg"}
    assert found.facts["boot_retries"] == "0"
    if found.facts["accel"] == "tcg":
        assert "/dev/kvm" in found.facts["kvm"]
        assert "10 to 50 times slower" in found.facts["speed"]
    began = time.monotonic()
    assert bench.runtime.probe() == found
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    "fault", ["QEMU ended by signal 6; its last words: failed to set MSR 0x10a", "no answer in 5 s"]
)
def test_a_kvm_that_opens_but_cannot_boot(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    tried = []

    def try_boot(*words: object) -> tuple[float, str]:
        tried.append(words[3])
        return (0.0, fault) if words[3] == "kvm" else (2.5, "")

    monkeypatch.setattr(probe, "try_boot", try_boot)
    kvm = tmp_path / "kvm"
    kvm.touch()
    guardian = Guardian()
    host = LinuxHost(kvm)
    chosen = [probe.choose(find_qemu(), guests.guest(), tmp_path, guardian, host) for _ in range(2)]
    assert tried == ["kvm", "q35"]
    assert chosen[0] == chosen[1]
    assert (chosen[0].name, chosen[0].usable) == ("tcg", True)
    assert chosen[0].reason == f"{kvm} opens but cannot boot: {fault}"
    assert bench.runtime.probe().usable


def test_one_that_is_closed_while_it_boots_leaves_nothing(bench: Bench) -> None:
    instance = bench.created(options={"warm": False})
    driver = instance._driver
    assert isinstance(driver, QemuInstance)
    ended: list[BaseException] = []

    def start() -> None:
        with pytest.raises(InstanceLost) as raised:
            driver.start()
        ended.append(raised.value)

    thread = threading.Thread(target=start)
    thread.start()
    until = time.monotonic() + PROMPTLY
    while driver._keeper._vm is None and time.monotonic() < until:
        threading.Event().wait(0.01)
    began = time.monotonic()
    driver.close()
    thread.join(PROMPTLY)
    assert ended
    assert time.monotonic() - began < PROMPTLY


def test_one_that_is_killed_is_lost_for_everybody_at_once(bench: Bench) -> None:
    instance = bench.started()
    running = [sh(instance, "echo go; sleep 60") for _ in range(3)]
    for one in running:
        assert output(one) == b"go\n"
    threading.Timer(0.1, os.kill, (qemu_pid(instance), signal.SIGKILL)).start()
    began = time.monotonic()
    ends = [finish(one)[2] for one in running]
    assert time.monotonic() - began < PROMPTLY
    assert {end.reason for end in ends} == {"lost"}
    assert "by signal 9" in ends[0].detail
    with pytest.raises(InstanceLost, match="by signal 9"):
        sh(instance, "true")


def test_a_guest_that_shuts_itself_down_is_lost(bench: Bench) -> None:
    instance = bench.started()
    running = sh(instance, "echo b > /proc/sysrq-trigger; sleep 60")
    assert finish(running)[2].reason == "lost"


def test_it_ends_with_its_keeper(bench: Bench) -> None:
    script = """
import sys, time
from pathlib import Path
from tests.contract import guests
guests.ground.cache_clear()
guests.ground = lambda: Path(sys.argv[1])
from guactors.runtimes.base import Spec
runtime = guests.runtime()
driver = runtime.create(Spec("i-keeper", "p-keeper", sys.argv[2], sys.argv[3]))
driver.start()
print(driver.guest.vm.pid, flush=True)
time.sleep(60)
"""
    directory = bench.directory / "kept"
    directory.mkdir()
    root = str(Path(__file__).resolve().parents[2])
    keeper = subprocess.Popen(
        [sys.executable, "-c", script, str(guests.ground()), str(directory), bench.image],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert keeper.stdout is not None
    qemu = psutil.Process(int(keeper.stdout.readline()))
    keeper.kill()
    keeper.wait()
    keeper.stdout.close()
    qemu.wait(10)


def test_what_a_dead_owner_left_is_ended(bench: Bench) -> None:
    instance = bench.started()
    pid = qemu_pid(instance)
    assert bench.runtime.reap("p-somebody-else") == []
    assert bench.runtime.reap(OWNER) == [instance.spec.instance]
    qemu = psutil.Process(pid) if psutil.pid_exists(pid) else None
    if qemu is not None and qemu.status() != psutil.STATUS_ZOMBIE:
        assert qemu.wait(PROMPTLY) in {None, -signal.SIGKILL}, "None where a thread was faster"


# --- booting --------------------------------------------------------------------------------------


def test_a_kernel_that_never_says_hello(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    initrd = tmp_path / "initrd"
    busybox = Path("/bin/busybox").read_bytes()
    script = b"#!/busybox sh\necho it hangs on purpose\nwhile :; do /busybox sleep 9; done\n"
    initrd.write_bytes(
        cpio.archive(
            [
                cpio.file("busybox", busybox, executable=True),
                cpio.file("init", script, executable=True),
                cpio.directory("dev"),
                cpio.character_device("dev/console", 5, 1),
            ]
        )
    )
    broken = msgspec.structs.replace(guests.guest(), initrd=initrd)
    runtime = guests.runtime()
    runtime.probe()
    spec = bench.spec(options={"boot_within": 4.0, "warm": False})
    driver = runtime.create(spec)
    ground = driver._ground
    machine = msgspec.structs.replace(ground.plan.machine, initrd=str(broken.initrd))
    ground = msgspec.structs.replace(
        ground, plan=msgspec.structs.replace(ground.plan, machine=machine)
    )
    # Only the last try has the time in which it would come up, and says how far it came.
    patience = iter([0.3, 0.3])
    welcome = booting._welcome
    monkeypatch.setattr(
        booting, "_welcome", lambda guest, within: welcome(guest, next(patience, within))
    )
    tries = r"(?s)3 tries.*within 0\.3 s.*within 0\.3 s.*within 4 s.*hangs on purpose"
    with pytest.raises(InstanceLost, match=tries):
        boot(ground, runtime.guardian, Keeper())
    driver.close()
    runtime.close()


def test_a_machine_that_boots_by_itself_each_time(bench: Bench) -> None:
    instance = bench.started(options={"warm": False, "tb_size": 16})
    assert outcome(instance, "nproc")[0] == b"1\n"


def test_a_microvm_boots_where_its_clock_is_known(bench: Bench) -> None:
    if not host_tsc_khz():
        with pytest.raises(UsageError, match="q35"):
            bench.started(options={"machine": "microvm"})
        return
    assert outcome(bench.started(options={"machine": "microvm"}), "echo hi")[0] == b"hi\n"


@pytest.mark.parametrize(
    "options", [{"machine": "vax"}, {"memory": 16}, {"speed": 9}, {"warm": 1}, {"tb_size": -1}]
)
def test_options_that_cannot_be(bench: Bench, options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        bench.created(options=options)


# --- images ---------------------------------------------------------------------------------------


def test_an_image_for_another_machine(bench: Bench) -> None:
    store = guests.store()
    blob = store.get(bench.image).manifest.blob("rootfs")
    other = add_rootfs(store, blob, name="other", arch="aarch64")
    with pytest.raises(ImageRefused, match="aarch64"):
        bench.runtime.create(msgspec.structs.replace(bench.spec(), image=other))


def test_an_image_that_is_damaged_inside(bench: Bench) -> None:
    store = guests.store()
    with store.open_blob(bench.image, "rootfs") as file:
        data = file.read()
    damaged = data[:96] + bytes(len(data) - 96)
    blob = store.ingest([damaged], role="rootfs", media="squashfs")
    image = add_rootfs(store, blob, name="damaged")
    spec = msgspec.structs.replace(bench.spec(), image=image)
    driver = bench.runtime.create(spec)
    with pytest.raises(ImageRefused, match="root file system"):
        driver.start()
    driver.close()


# --- directories of the machine -------------------------------------------------------------------


@pytest.fixture
def given(tmp_path: Path) -> Mount:
    directory = tmp_path / "given"
    directory.mkdir()
    (directory / "file").write_text("content")
    return Mount(str(directory), "/mnt/given")


def saved_with(bench: Bench, given: Mount, path: Path) -> None:
    """A guest that reads a file of the mount again and again, in the file ``path``."""
    instance = bench.started(mounts=(given,))
    step = "cat /mnt/given/file > new; mv new seen; sleep 0.05"
    script = f"exec 3</mnt/given/file; while :; do {step}; done"
    outcome(instance, f"({script}) >/dev/null 2>&1 </dev/null &")
    instance.save(str(path))
    instance.close()


def test_a_mount_goes_on_with_its_guest(bench: Bench, given: Mount, tmp_path: Path) -> None:
    saved_with(bench, given, tmp_path / "saved")
    spec = bench.spec(mounts=(given,))
    driver = bench.runtime.restore(spec, str(tmp_path / "saved"))
    again = bench.keep(Instance(spec, driver, running=True))
    assert outcome(again, "rm -f seen; while ! test -s seen; do sleep 0.05; done; cat seen")[0] == (
        b"content"
    )
    assert outcome(again, "cat /mnt/given/file; echo x > /mnt/given/file")[0] == b"content"


def test_what_was_mounted_must_be_there_as_it_was(
    bench: Bench, given: Mount, tmp_path: Path
) -> None:
    path = str(tmp_path / "saved")
    saved_with(bench, given, tmp_path / "saved")
    file = Path(given.source, "file")
    with pytest.raises(ImageRefused, match="number of mounts"):
        bench.runtime.restore(bench.spec(), path)
    with pytest.raises(ImageRefused, match="something else at /mnt/other"):
        bench.runtime.restore(bench.spec(mounts=(Mount(given.source, "/mnt/other"),)), path)
    file.write_text("CONTENT")
    with pytest.raises(ImageRefused, match="something else at /mnt/given"):
        bench.runtime.restore(bench.spec(mounts=(given,)), path)
    file.unlink()
    file.parent.rmdir()
    with pytest.raises(UsageError, match="does not exist"):
        bench.runtime.restore(bench.spec(mounts=(given,)), path)


def test_guests_of_one_snapshot_have_other_disks(
    bench: Bench, given: Mount, tmp_path: Path
) -> None:
    """Of other sizes, so that a kernel that remembers the first one's could not read it."""
    for size in (10, 3_000_000, 50):
        Path(given.source, "file").write_bytes(b"x" * size)
        instance = bench.started(mounts=(given,))
        assert outcome(instance, "wc -c < /mnt/given/file")[0].split() == [b"%d" % size]
    boots = bench.started(mounts=(given,), options={"warm": False})
    assert outcome(boots, "wc -c < /mnt/given/file")[0].strip() == b"50"


def test_a_squashfs_file_is_mounted_as_it_is(bench: Bench, given: Mount, tmp_path: Path) -> None:
    file = tmp_path / "own.squashfs"
    squash_directory(Path(given.source), file, "a test")
    instance = bench.started(mounts=(Mount(str(file), "/mnt/given"),))
    assert outcome(instance, "cat /mnt/given/file")[0] == b"content"
    file.write_bytes(file.read_bytes()[:96] + bytes(file.stat().st_size - 96))
    with pytest.raises(UsageError, match=r"/mnt/given: .*mount"):
        bench.started(mounts=(Mount(str(file), "/mnt/given"),))


def test_a_mount_in_the_place_of_a_file(bench: Bench, given: Mount) -> None:
    with pytest.raises(UsageError, match=r"cannot mount /bin/sh: .*File exists"):
        bench.started(mounts=(Mount(given.source, "/bin/sh"),))
    assert outcome(bench.started(mounts=(given,)), "cat /mnt/given/file")[0] == b"content"


def test_a_link_of_the_image_leads_no_mount_out_of_it(bench: Bench, given: Mount) -> None:
    """``/usr`` of the guest is the agent's; that of the image is its own."""
    root = guests.ground() / "linked"
    (root / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin" / "sh")
    (root / "usr").mkdir()
    (root / "out").symlink_to("/usr")
    image = build_image(root, guests.store(), name="linked", media="squashfs")
    bench.image = image
    instance = bench.started(mounts=(Mount(given.source, "/out/given"),))
    assert outcome(instance, "read x < /usr/given/file; echo $x")[0] == b"content\n"


# --- files ----------------------------------------------------------------------------------------


def test_large_files_go_over_the_mailbox(bench: Bench) -> None:
    instance = bench.started()
    data = os.urandom(1 << 20) * 9 + b"and a little more"
    instance.put("big", [data])
    assert b"".join(instance.get("big")) == data
    threads = [
        threading.Thread(target=instance.put, args=(f"big{number}", [data])) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert b"".join(instance.get(f"big{number}")) == data


def test_a_transfer_that_is_given_up_leaves_nothing(bench: Bench) -> None:
    instance = bench.started()

    def breaks() -> Iterator[bytes]:
        yield bytes(5 << 20)
        raise KeyError("the source broke")

    with pytest.raises(KeyError):
        instance.put("broken", breaks())
    assert b"part" not in outcome(instance, "ls -a")[0]
    instance.put("whole", [bytes(6 << 20)])
    pieces = instance.get("whole")
    assert len(next(iter(pieces))) > 0
    pieces.close()  # type: ignore[attr-defined]
    assert len(b"".join(instance.get("whole"))) == 6 << 20
    with pytest.raises(UsageError):
        instance.put("bin/sh/below", [bytes(6 << 20)])
    instance.put("tree", [tar({f"{number}": bytes(5000) for number in range(500)})], tar=True)
    assert outcome(instance, "ls tree | wc -l")[0].strip() == b"500"


def test_clock_and_randomness_are_new_after_a_restore(bench: Bench) -> None:
    bench.started().close()
    script = "dd if=/dev/urandom bs=16 count=1 2>/dev/null"
    drawn = {outcome(bench.started(), script)[0] for _ in range(2)}
    assert len(drawn) == 2
    instance = bench.started()
    told = int(outcome(instance, "date +%s")[0])
    assert abs(told - time.time()) < 5


# --- the agent ------------------------------------------------------------------------------------


class BadAgent:
    """Answers HELLO as an agent does, and then what a test wants."""

    def __init__(self, *answers: bytes) -> None:
        ours, self._sock = socket.socketpair()
        self.line = Line(ours)
        self._answers = answers
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        decoder = Decoder()
        answers = iter(self._answers)
        while data := self._sock.recv(65536):
            for channel, _, _ in decoder.feed(data):
                answer = next(answers, None)
                if answer is not None:
                    self._sock.sendall(answer.replace(b"CHAN", struct.pack("<I", channel)))

    def close(self) -> None:
        self.line.close()
        self._thread.join()
        self._sock.close()


@pytest.fixture
def bad() -> Iterator[list[BadAgent]]:
    made: list[BadAgent] = []
    yield made
    for one in made:
        one.close()


def test_an_agent_that_never_answers(bad: list[BadAgent]) -> None:
    bad.append(BadAgent())
    with pytest.raises(InstanceLost, match=r"did not answer within 0\.2 s"):
        bad[0].line.ask(wire.HELLO, 0.2)


def test_the_time_of_an_answer_stands_still_with_the_guest(bad: list[BadAgent]) -> None:
    bad.append(BadAgent())
    line, told = bad[0].line, threading.Event()

    def ask() -> None:
        with pytest.raises(InstanceLost, match=r"did not answer within 0\.2 s"):
            line.ask(wire.HELLO, 0.2)
        told.set()

    line.pause()
    asking = threading.Thread(target=ask)
    asking.start()
    assert not told.wait(0.4)
    line.resume()
    assert told.wait(PROMPTLY)
    asking.join()


@pytest.mark.parametrize(
    "answer",
    [
        struct.pack("<I", 0xFFFFFFFF) + bytes(20),
        struct.pack("<I", 0) + bytes(20),
        struct.pack("<I", 4) + bytes(20),
        frame(0, wire.WELCOME, b"d\xff\xff\xff\xff")[:4] + b"CHAN" + b"\x41" + b"d\xff\xff\xff\xff",
    ],
    ids=["huge", "nothing", "too short", "a value that lies"],
)
def test_an_agent_that_lies_about_lengths(bad: list[BadAgent], answer: bytes) -> None:
    bad.append(BadAgent(answer))
    with pytest.raises(InstanceLost, match="its agent sent"):
        bad[0].line.ask(wire.HELLO, PROMPTLY)


def test_an_agent_that_floods_is_given_up(bad: list[BadAgent]) -> None:
    started = frame(0, wire.STARTED, pack({}))[:4] + b"CHAN" + b"\x42" + pack({})
    flood = (frame(0, wire.OUTPUT, bytes(wire.PIECE))[:4] + b"CHAN" + b"\x43") + bytes(wire.PIECE)
    bad.append(BadAgent(started + flood * 6))
    channel, remote = bad[0].line.begin(wire.SPAWN)
    assert bad[0].line.wait(lambda: False, PROMPTLY)
    assert "room for" in bad[0].line.over
    assert sum(len(one.data) for one in remote.said) <= wire.WINDOW
    with pytest.raises(InstanceLost):
        bad[0].line.ask(wire.PING)
    del channel


def test_an_agent_that_ends_ends_all_waits(bad: list[BadAgent]) -> None:
    bad.append(BadAgent())
    threading.Timer(0.1, bad[0]._sock.shutdown, (socket.SHUT_RDWR,)).start()
    began = time.monotonic()
    with pytest.raises(InstanceLost, match="has ended"):
        bad[0].line.ask(wire.HELLO, 30)
    assert time.monotonic() - began < PROMPTLY


def test_the_mark_of_one_that_wanted_too_much_memory_does_not_stick(bench: Bench) -> None:
    instance = bench.started(Limits(memory=24 << 20))
    kept = outcome(instance, "x=0123456789abcdef; while :; do x=$x$x; done")[2]
    assert kept.reason == "memory_limit"
    running = sh(instance, "echo go; exec sleep 60")
    assert output(running) == b"go\n"
    running.signal(signal.SIGKILL)
    assert finish(running)[2] == Exit(None, 9)


# --- Python ---------------------------------------------------------------------------------------


@pytest.fixture
def python(bench: Bench) -> Bench:
    if shutil.which("apt-get") is None:
        pytest.skip("there is no apt-get")
    bench.image = guests.python_image()
    bench.started().close()  # so that there is a warm one
    return bench


def py(instance: Instance, *words: str, **fields: Any) -> tuple[bytes, bytes, Exit]:
    return finish(instance.exec(Command(("python3", *words), **fields)))


LOOK = (
    "import sys, os, __main__; print(sys.argv, sys.path[0], os.environ.get('A'), os.getcwd(), %s)"
)


def test_a_python_that_waited_is_as_one_that_is_new(python: Bench) -> None:
    """Each in two guests alike, once as the first program and once as the second."""
    look = LOOK % ("sorted(vars(__main__)), sys.orig_argv, sys.stdin.read()")
    file = "import os, sys; sys.stdout.write(f'{__file__} {sys.argv} {sys.path[0]} {__name__}')"
    cases: list[tuple[tuple[str, ...], dict[str, Any]]] = [
        (("-c", look, "x", "-y"), {"env": {"A": "a b"}, "cwd": "/tmp"}),
        (("job.py", "z"), {}),
        (("-c", "1/0"), {}),
        (("-c", "def f(:"), {}),
        (("-c", "import sys; sys.exit(7)"), {}),
        (("-c", "import atexit; atexit.register(print, 'late'); raise KeyboardInterrupt"), {}),
        (("missing.py",), {}),
        (("-c", "pass"), {"env": {"PYTHONVERBOSE": ""}}),
    ]
    for words, fields in cases:
        instance = python.started()
        instance.put("job.py", [file.encode()])
        first = py(instance, *words, **fields)
        assert first == py(instance, *words, **fields)
        instance.close()


def test_a_python_that_waited_is_held_and_counted(python: Bench) -> None:
    instance = python.started(Limits(pids=40))
    assert instance.stats().processes == 0
    running = instance.exec(Command(("python3", "-c", "print(input())"), stdin=True))
    assert instance.stats().processes == 1
    running.write(b"hello\n")
    assert finish(running)[0] == b"hello\n"
    assert instance.stats().processes == 0


def test_a_python_that_waits_may_be_killed(python: Bench) -> None:
    instance = python.started()
    find = "busybox grep -l 'ate[x]it' /proc/[0-9]*/cmdline | busybox cut -d/ -f3"
    assert outcome(instance, f"kill -9 $({find})") == (b"", b"", Exit(0))
    assert py(instance, "-c", "print(6 * 7)") == (b"42\n", b"", Exit(0))


@pytest.mark.needs("bwrap")
def test_an_image_of_packages_runs_in_a_sandbox(python: Bench, tmp_path: Path) -> None:
    root = tmp_path / "root"
    unpack_image(guests.store(), python.image, root)
    words = ["bwrap", "--unshare-all", "--bind", str(root), "/", "--proc", "/proc", "--dev", "/dev"]
    words += ["/bin/sh", "-c", "python3 -c 'import sys; print(sys.version_info[0])'"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": PATH})
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr


@pytest.mark.needs("dockerd")
def test_an_image_of_packages_runs_in_a_container(
    python: Bench, docker_socket: str, tmp_path: Path
) -> None:
    runtime = DockerRuntime(guests.store, socket=docker_socket)
    containers = Bench(runtime, tmp_path, python.image)
    try:
        assert py(containers.started(), "-c", "print(6 * 7)")[0] == b"42\n"
    finally:
        containers.close()
