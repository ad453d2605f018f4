"""What is true of containers and of no other instance: daemons that come and go, images that are
loaded, files with owners, and what the daemon would lose or mix up."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guactors.errors import (
    InstanceLost,
    ProgramNotStarted,
    RuntimeMissing,
    UsageError,
)
from guactors.images.build import build_image
from guactors.images.manifest import Config
from guactors.images.store import ImageStore
from guactors.messages import Limits
from guactors.runtimes.base import Command, Exit, Mount, Output
from guactors.runtimes.docker import client as docker_client
from guactors.runtimes.docker import container
from guactors.runtimes.docker.client import Client
from guactors.runtimes.instance import Instance
from guactors.runtimes.life import State
from tests.contract.docker_daemon import Daemon, busybox_root, containers, own_daemon
from tests.contract.runtime_bench import (
    OWNER,
    SIZE,
    WITHIN,
    Bench,
    docker,
    finish,
    outcome,
    output,
    sh,
    tar,
    untar,
)
from tests.contract.test_runtime import living

pytestmark = pytest.mark.needs("dockerd", "busybox")
MIB = 1 << 20
Busybox = tuple[ImageStore, str]


@pytest.fixture
def bench(docker_socket: str, busybox: Busybox, tmp_path: Path) -> Iterator[Bench]:
    made = docker(tmp_path, docker_socket, busybox)
    yield made
    made.close()


def gone(words: str) -> bool:
    """Whether the last process with that command line goes: one that was killed takes a moment."""
    until = time.monotonic() + WITHIN
    while living(words) and time.monotonic() < until:
        time.sleep(0.01)
    return not living(words)


# --- daemons --------------------------------------------------------------------------------------


def test_a_daemon_that_is_not_there(busybox: Busybox, tmp_path: Path) -> None:
    bench = docker(tmp_path, str(tmp_path / "none"), busybox)
    probe = bench.runtime.probe()
    assert not probe.usable
    assert str(tmp_path / "none") in probe.reason
    assert "DOCKER_HOST" in probe.reason
    with pytest.raises(RuntimeMissing, match="none"):
        bench.created()
    with pytest.raises(RuntimeMissing, match="none"):
        bench.runtime.reap("p-1")
    bench.close()


def test_a_daemon_that_is_elsewhere(
    busybox: Busybox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://nowhere:2375")
    bench = docker(tmp_path, "", busybox)
    assert "unix://" in bench.runtime.probe().reason
    with pytest.raises(RuntimeMissing, match="tcp://nowhere"):
        bench.created()
    bench.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 404 x\r\n\r\n",
    ],
)
def test_something_else_that_listens(said: bytes, busybox: Busybox, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                with line:
                    line.recv(4096)
                    line.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        bench = docker(tmp_path, path, busybox)
        assert path in bench.runtime.probe().reason
        bench.close()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_daemon_that_says_nothing(
    busybox: Busybox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_client, "CONNECT", 0.2)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        bench = docker(tmp_path, path, busybox)
        assert "does not answer" in bench.runtime.probe().reason
        bench.close()


def test_what_a_daemon_is_is_told(bench: Bench) -> None:
    probe = bench.runtime.probe()
    assert probe.usable
    assert probe.version
    assert probe.facts["api"] == "1.41"
    assert probe.facts["rootless"] in {"yes", "no"}


@pytest.fixture
def mortal(run_root: Path) -> Iterator[Daemon]:
    """A daemon to end. Shims and containerd outlive it until the end of the fixture."""
    with own_daemon(run_root) as daemon:
        yield daemon


mortals = pytest.mark.needs("root", "dockerd", "busybox")


@mortals
@pytest.mark.timeout(120)
def test_a_daemon_that_is_killed(mortal: Daemon, busybox: Busybox, tmp_path: Path) -> None:
    bench = docker(tmp_path, mortal.socket, busybox)
    instance = bench.started()
    running = sh(instance, "echo go; exec sleep 63.25")
    assert output(running) == b"go\n"
    mortal.kill()
    found = finish(running)[2]
    assert (found.code, found.reason) == (None, "lost")
    assert mortal.socket in found.detail
    assert instance.state is State.ENDED
    with pytest.raises(InstanceLost, match="no Docker daemon answers"):
        sh(instance, "true")
    # Nobody is there who could remove the container; its processes end all the same.
    assert living("sleep 63.25")
    instance.close()
    assert gone("sleep 63.25")
    mortal.start()
    assert len(containers(mortal.socket)) == 1
    assert bench.runtime.reap(OWNER) == [instance.spec.instance]
    assert containers(mortal.socket) == []
    bench.close()


@mortals
@pytest.mark.timeout(120)
def test_a_daemon_that_is_started_again(mortal: Daemon, busybox: Busybox, tmp_path: Path) -> None:
    bench = docker(tmp_path, mortal.socket, busybox)
    quiet, instance = bench.started(), bench.started()
    running = sh(instance, "echo go; exec sleep 64.25")
    assert output(running) == b"go\n"
    mortal.stop()
    mortal.start()
    found = finish(running)[2]
    assert found.reason == "lost"
    assert found.detail
    for one in (quiet, instance):
        with pytest.raises(InstanceLost):
            sh(one, "true")
    assert gone("sleep 64.25")
    assert outcome(bench.started(), "echo again")[0] == b"again\n"
    for one in (quiet, instance):
        one.close()
    assert len(containers(mortal.socket)) == 1
    bench.close()
    assert containers(mortal.socket) == []


def test_a_container_that_somebody_removes(bench: Bench, docker_socket: str) -> None:
    before = containers(docker_socket)
    instance = bench.started()
    running = sh(instance, "echo go; exec sleep 60")
    assert output(running) == b"go\n"
    (mine,) = set(containers(docker_socket)) - set(before)
    client = Client(docker_socket)
    client.call("DELETE", f"/containers/{mine}", query={"force": "1"})
    client.close()
    found = finish(running)[2]
    assert found.reason == "lost"
    assert mine[:12] in found.detail
    with pytest.raises(InstanceLost):
        instance.exec(Command(("/bin/true",)))


def test_a_container_that_somebody_ends(bench: Bench, docker_socket: str) -> None:
    before = containers(docker_socket)
    instance = bench.started()
    (mine,) = set(containers(docker_socket)) - set(before)
    client = Client(docker_socket)
    client.call("POST", f"/containers/{mine}/kill")
    client.close()
    with pytest.raises(InstanceLost, match="somebody ended it"):
        instance.exec(Command(("/bin/true",)))
    assert instance.state is State.ENDED


# --- programs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1_300_000, 2_200_000])
def test_the_last_words_wait_for_a_slow_reader(bench: Bench, size: int) -> None:
    """The daemon itself drops what nobody took two seconds after the program's end."""
    running = sh(bench.started(), f"head -c {size} /dev/zero; echo end >&2")
    first = running.read(WITHIN)
    assert isinstance(first, Output)
    threading.Event().wait(2.7)
    out, err, found = finish(running)
    assert (len(first.data) + len(out), err, found) == (size, b"end\n", Exit(0))


def test_a_program_that_closes_its_streams(bench: Bench) -> None:
    began = time.monotonic()
    found = outcome(bench.started(), "exec >&- 2>&-; sleep 0.7; exit 5")
    assert found == (b"", b"", Exit(5))
    assert time.monotonic() - began > 0.7


def test_a_signal_reaches_all_that_a_program_started(bench: Bench) -> None:
    instance = bench.started()
    running = sh(instance, "sleep 65.25 & sleep 65.25 & echo go; wait")
    other = sh(instance, "echo go; exec sleep 66.25")
    assert output(running) == output(other) == b"go\n"
    running.signal(signal.SIGKILL)
    assert finish(running)[2].signal == signal.SIGKILL
    assert gone("sleep 65.25")
    assert living("sleep 66.25")


def test_orphans_are_reaped(bench: Bench) -> None:
    instance = bench.started()
    outcome(instance, "for i in 1 2 3; do (sleep 0.05 &) ; done; true")
    until = time.monotonic() + WITHIN
    while instance.stats().processes:
        assert time.monotonic() < until
        time.sleep(0.02)
    assert b" Z" not in outcome(instance, "ps -o pid,stat")[0]


@pytest.mark.parametrize(
    ("program", "code"),
    [("nonesuch", 127), ("/bin/nonesuch", 127), ("./plain", 126), ("/etc", 126)],
)
def test_what_cannot_run_in_a_terminal(bench: Bench, program: str, code: int) -> None:
    instance = bench.started()
    instance.put("plain", [b"text"])
    with pytest.raises(ProgramNotStarted, match=program.rpartition("/")[2]) as caught:
        instance.exec(Command((program,), tty=SIZE))
    assert caught.value.code == code


def test_what_the_kernel_does_not_run_in_a_terminal(bench: Bench) -> None:
    instance = bench.started()
    instance.put("script", [b"#!/nonesuch\n"])
    outcome(instance, "chmod +x script")
    with pytest.raises(ProgramNotStarted, match="script") as caught:
        instance.exec(Command(("./script",), tty=SIZE))
    assert caught.value.code == 127


@pytest.mark.parametrize("code", [1, 2, 126, 127, 137])
def test_its_own_status_is_no_failure_to_start(bench: Bench, code: int) -> None:
    instance = bench.started()
    for _ in range(5):
        found = outcome(instance, f"exit {code}")[2]
        assert found == (Exit(None, signal.SIGKILL) if code == 137 else Exit(code))


def test_its_own_words_are_no_failure_to_start(bench: Bench) -> None:
    script = "echo 'exec x: exec format error' >&2; echo more >&2; exit 1"
    assert outcome(bench.started(), script)[2] == Exit(1)


def test_the_environment_of_programs_is_not_ours(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GU_KEY", "secret")
    assert b"secret" not in outcome(bench.started(), "env")[0]


def test_a_program_may_nothing(bench: Bench) -> None:
    said = outcome(bench.started(), "cat /proc/self/status /proc/net/dev; mount -t tmpfs x /tmp")
    status = said[0].decode()
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "eth" not in status
    assert b"denied" in said[1]


def test_the_network_of_the_machine(bench: Bench) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = f":{listener.getsockname()[1]:04X}".encode()
        assert port in outcome(bench.started(network="host"), "cat /proc/net/tcp")[0]
        assert port not in outcome(bench.started(), "cat /proc/net/tcp")[0]


def test_mounts_are_for_reading(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "given"
    source.mkdir()
    (source / "file").write_text("content")
    instance = bench.started(mounts=(Mount(str(source), "/mnt/given"),))
    out, err, _ = outcome(instance, "cat /mnt/given/file; echo x > /mnt/given/file")
    assert out == b"content"
    assert b"Read-only" in err
    with pytest.raises(UsageError, match="missing"):
        bench.started(mounts=(Mount(str(tmp_path / "missing"), "/x"),))


# --- a daemon whose processes cannot be seen from here ------------------------------------------


@pytest.fixture
def blind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(container, "find_sight", lambda *_: None)
    return bench


def test_blind_programs_run_and_end(blind: Bench) -> None:
    instance = blind.started()
    assert outcome(instance, "echo out; exit 3") == (b"out\n", b"", Exit(3))
    assert outcome(instance, "sleep 60 & true")[2] == Exit(0)
    running = sh(instance, "echo go; exec sleep 67.25")
    assert output(running) == b"go\n"
    with pytest.raises(UsageError, match="cannot be seen"):
        running.signal(signal.SIGTERM)
    running.close()
    instance.close()
    assert gone("sleep 67.25")


def test_blind_failures_to_start(blind: Bench) -> None:
    instance = blind.started()
    instance.put("script", [b"#!/nonesuch\n"])
    outcome(instance, "chmod +x script")
    with pytest.raises(ProgramNotStarted, match="script"):
        instance.exec(Command(("./script",)))


def test_blind_figures(blind: Bench) -> None:
    instance = blind.started()
    running = sh(instance, "i=0; while test $i -lt 30000; do i=$((i+1)); done; echo go; sleep 60")
    assert output(running) == b"go\n"
    stats = instance.stats()
    assert stats.cpu_seconds is not None
    assert stats.cpu_seconds > 0
    assert stats.processes is not None
    assert stats.processes >= 1


def test_blind_memory(blind: Bench) -> None:
    instance = blind.started(Limits(memory=48 * MIB))
    found = outcome(instance, "x=0123456789abcdef; while :; do x=$x$x; done")[2]
    assert found.signal == signal.SIGKILL
    if "Podman" in blind.runtime.probe().facts["engine"]:
        assert "may have been for its memory limit of 48.0 MiB" in found.detail
    else:
        assert found.reason == "memory_limit"


def test_blind_stop(blind: Bench) -> None:
    instance = blind.started()
    running = sh(instance, "trap 'echo bye; exit 7' TERM; echo go; while :; do sleep 0.05; done")
    assert output(running) == b"go\n"
    began = time.monotonic()
    instance.stop(grace=15)
    assert time.monotonic() - began < 10


def test_blind_main(blind: Bench) -> None:
    instance = blind.started()
    other = sh(instance, "echo go; exec sleep 60")
    assert output(other) == b"go\n"
    assert finish(sh(instance, "exit 4", main=True))[2] == Exit(4)
    assert finish(other)[2] == Exit(None, signal.SIGKILL)
    with pytest.raises(InstanceLost, match="main program"):
        sh(instance, "true")


def test_a_signal_that_only_the_user_may_send(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a provider that is not root: then it goes by way of the container."""
    instance = bench.started()
    running = sh(instance, "sleep 68.25 & echo go; wait", user="1000:1000")
    assert output(running) == b"go\n"

    def kill(pid: int, number: int) -> None:
        raise PermissionError(1, "not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", kill)
        running.signal(signal.SIGTERM)
        assert finish(running)[2].signal == signal.SIGTERM
    assert gone("sleep 68.25")


# --- files ----------------------------------------------------------------------------------------


def test_owners_and_paths_of_files(docker_socket: str, busybox: Busybox, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store", quota=2**30, now=time.time)
    root = busybox_root(tmp_path / "root")
    (root / "home").mkdir()
    config = Config(workdir="/home", user="1000:1000")
    image = build_image(root, store, name="user", media="tar", config=config)
    bench = docker(tmp_path, docker_socket, (store, image))
    instance = bench.started()
    instance.put("a/b/file", [b"1"])
    instance.put("tree", [tar({"x/y": b"2"})], tar=True)
    instance.put("/tmp/abs", [b"3"])
    said = outcome(instance, "id -u; pwd; stat -c '%u:%g %n' a a/b/file tree tree/x/y /tmp/abs")[0]
    assert said.decode().split("\n")[:-1] == [
        "1000", "/home", *(f"1000:1000 {name}" for name in
                           ("a", "a/b/file", "tree", "tree/x/y", "/tmp/abs")),
    ]  # fmt: skip
    assert outcome(instance, "echo more > a/b/new && cat a/b/new")[0] == b"more\n"
    assert b"".join(instance.get("/home/a/b/new")) == b"more\n"
    bench.close()


def test_links_are_followed_inside(bench: Bench) -> None:
    instance = bench.started()
    outcome(instance, "mkdir d; echo x > d/f; ln -s d/f one; ln -s /d two; ln -s loop loop")
    assert b"".join(instance.get("one")) == b"x\n"
    assert b"".join(instance.get("two/f")) == b"x\n"
    assert untar(instance.get("two", tar=True)) == {"f": b"x\n"}
    instance.put("two/g", [b"y"])
    assert b"".join(instance.get("d/g")) == b"y"
    for path in ("loop", "d", "d/f/x", "nothing/at/all"):
        with pytest.raises(UsageError):
            b"".join(instance.get(path))
    with pytest.raises(UsageError):
        instance.put("d/f/x", [b""])
    with pytest.raises(UsageError):
        instance.put("d", [b""])


def test_one_file_as_tar(bench: Bench) -> None:
    instance = bench.started()
    instance.put("d/file", [b"1"])
    assert untar(instance.get("d/file", tar=True)) == {"file": b"1"}


def test_a_file_appears_whole(bench: Bench) -> None:
    """Nobody in there ever sees a part of it, and only an empty file is left beside it."""
    instance = bench.started()
    instance.put("go", [b""])
    looks = "while test -e go; do stat -c %s d/big; done 2>/dev/null | uniq | sort -n | uniq"
    running = sh(instance, f"echo go; {looks}")
    assert output(running) == b"go\n"
    for size in (24 * MIB, 17 * MIB, 24 * MIB):
        instance.put("d/big", [bytes(MIB)] * (size // MIB))
    assert outcome(instance, "rm go; stat -c '%s %h' d/big .gu-put")[0] == b"25165824 1\n0 1\n"
    sizes = finish(running)[0].split()
    assert b"%d" % (24 * MIB) in sizes
    assert set(sizes) <= {b"%d" % (24 * MIB), b"%d" % (17 * MIB)}


def test_a_file_that_is_refused_takes_no_room(bench: Bench) -> None:
    instance = bench.started()
    outcome(instance, "mkdir d")
    with pytest.raises(UsageError):
        instance.put("d", [bytes(MIB)])
    assert outcome(instance, "stat -c %s .gu-put; rm .gu-put")[0] == b"0\n"


def test_a_file_where_something_else_is_mounted(bench: Bench) -> None:
    """Some daemons write there what a program sees, others what lies below."""
    instance = bench.started()
    instance.put("/dev/shm/file", [b"content"])
    seen = outcome(instance, "cat /dev/shm/file")[0]
    assert (seen or b"".join(instance.get("/dev/shm/file"))) == b"content"


def test_files_before_it_is_started(bench: Bench) -> None:
    instance = bench.created()
    instance.put("file", [b"1"])
    assert b"".join(instance.get("file")) == b"1"
    instance.start()
    assert outcome(instance, "cat file")[0] == b"1"


def test_a_source_that_fails(bench: Bench) -> None:
    def broken() -> Iterator[bytes]:
        yield tar({"x": b"1"})[:700]
        raise ConnectionResetError("of the caller")

    instance = bench.started()
    with pytest.raises(ConnectionResetError, match="of the caller"):
        instance.put("tree", broken(), tar=True)
    assert instance.state is State.RUNNING
    assert outcome(instance, "echo ok")[0] == b"ok\n"


# --- what is left ---------------------------------------------------------------------------------


def test_leftovers_of_the_dead_are_reaped(bench: Bench, docker_socket: str) -> None:
    before = containers(docker_socket)
    mine, other = bench.started(), bench.created()
    running = sh(mine, "echo go; exec sleep 69.25")
    assert output(running) == b"go\n"
    assert bench.runtime.reap("p-somebody") == []
    assert len(containers(docker_socket)) == len(before) + 2
    names = {mine.spec.instance, other.spec.instance}
    assert set(bench.runtime.reap(OWNER)) == names
    assert containers(docker_socket) == before
    assert gone("sleep 69.25")
    assert finish(running)[2].reason == "lost"


def test_nothing_is_left(bench: Bench, docker_socket: str) -> None:
    before = containers(docker_socket), mounts()
    instance = bench.started(Limits(memory=64 * MIB))
    outcome(instance, "head -c 1000000 /dev/zero > big; (sleep 70.25 &)")
    created = bench.created()
    for one in (instance, created):
        directory = Path(one.spec.directory)
        one.close()
        assert list(directory.iterdir()) == []
    assert (containers(docker_socket), mounts()) == before
    assert gone("sleep 70.25")


def mounts() -> list[str]:
    return sorted(line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines())


def test_a_daemon_that_talks_nonsense_in_the_middle(bench: Bench) -> None:
    """A frame that is none: the program is ended, and nobody waits for it."""
    instance: Instance = bench.started()
    running = sh(instance, "echo go; exec sleep 71.25")
    assert output(running) == b"go\n"
    process = running._process
    process._add(b"HTTP/1.1 500")  # type: ignore[attr-defined]
    found = finish(running)[2]
    assert found.reason == "lost"
    assert "where a frame should begin" in found.detail
    assert gone("sleep 71.25")
