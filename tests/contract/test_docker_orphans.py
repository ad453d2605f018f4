"""A container whose keeper is killed: nobody has to come and clean up after it."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from guactors.images.store import ImageStore
from guactors.runtimes.docker.client import Client
from guactors.runtimes.docker.images import Images
from guactors.runtimes.docker.words import INSTANCE, KEEPER
from tests.contract.docker_daemon import containers, own_daemon
from tests.contract.process_watch import await_true
from tests.contract.runtime_bench import docker
from tests.contract.test_runtime import living

pytestmark = pytest.mark.needs("dockerd", "busybox")
Busybox = tuple[ImageStore, str]
SOON = 15.0
"""Seconds; alone on a machine it takes one."""


def directories() -> list[Path]:
    """Of programs."""
    return list(Path(tempfile.gettempdir()).glob("gu-run-*"))


@contextmanager
def keeper(socket: str, busybox: Busybox, script: str) -> Iterator[subprocess.Popen[str]]:
    """It says what the script says, and is gone after the block."""
    store, image = busybox
    words = ["-m", "tests.contract.docker_keeper", socket, str(store._root), image, script]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def loaded(docker_socket: str, busybox: Busybox, tmp_path: Path) -> str:
    """The socket of a daemon that has the image."""
    bench = docker(tmp_path, docker_socket, busybox)
    bench.created()
    bench.close()
    return docker_socket


@pytest.mark.parametrize("paused", [False, True])
def test_a_keeper_that_is_killed(paused: bool, loaded: str, busybox: Busybox) -> None:
    before = containers(loaded)
    script = "(exec sleep 73.25) & setsid sleep 73.25 & echo go; exec sleep 73.25"
    with keeper(loaded, busybox, script) as process:
        assert said(process) == "go\n"
        (mine,) = set(containers(loaded)) - set(before)
        assert directories()
        if paused:
            client = Client(loaded)
            client.call("POST", f"/containers/{mine}/pause")
            client.close()
        assert len(living("sleep 73.25")) > 2
        process.send_signal(signal.SIGKILL)
        await_true(lambda: containers(loaded) == before, "an end of the container", SOON)
        await_true(lambda: not living("sleep 73.25"), "an end of its programs", SOON)
        await_true(lambda: not directories(), "no directory", SOON)


def test_a_keeper_that_ends_by_itself(loaded: str, busybox: Busybox) -> None:
    """The watch is over, and nothing was left to do for it."""
    before = containers(loaded)
    with keeper(loaded, busybox, "echo go") as process:
        assert said(process) == "go\n"
        assert process.wait(SOON) == 0
    assert containers(loaded) == before
    assert not directories()


def test_only_the_containers_of_the_dead(loaded: str, busybox: Busybox, tmp_path: Path) -> None:
    bench = docker(tmp_path, loaded, busybox)
    bench.started()
    before = containers(loaded)
    with keeper(loaded, busybox, "echo go; sleep 60") as process:
        assert said(process) == "go\n"
        assert len(containers(loaded)) == len(before) + 1
        process.send_signal(signal.SIGKILL)
        await_true(lambda: containers(loaded) == before, "an end of one container", SOON)
        await_true(lambda: not directories(), "no directory", SOON)
    assert containers(loaded) == before
    bench.close()


# --- what the daemon does too late ----------------------------------------------------------------


def test_a_container_that_is_made_when_its_keeper_is_dead(
    loaded: str, busybox: Busybox, tmp_path: Path
) -> None:
    """It was asked for, and nobody heard the answer."""
    before = containers(loaded)
    code = (
        "import sys\n"
        "from guactors.runtimes.docker.orphans import Watch\n"
        "from guactors.runtimes.native.guardian import Guardian\n"
        "watch = Watch(Guardian(), sys.argv[1])\n"
        "with watch.birth('i-1'):\n"
        "    print(watch.keeper, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    bench = docker(tmp_path, loaded, busybox)
    image = Images(bench.runtime.client(), lambda: busybox[0]).load(busybox[1])  # type: ignore[attr-defined]
    client = Client(loaded)
    with subprocess.Popen(
        [sys.executable, "-c", code, loaded],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        keeper = said(process).strip()
        (guardian,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
        process.wait()
        await_true(guardian.children, "the one who removes it", SOON)
        labels = {KEEPER: keeper, INSTANCE: "i-1"}
        body = {"Image": image.id, "Entrypoint": ["/bin/sleep", "60"], "Labels": labels}
        made = client.call("POST", "/containers/create", body).data["Id"]
        assert made not in before
        await_true(lambda: containers(loaded) == before, "an end of it", SOON)
        psutil.wait_procs([guardian], SOON)
        assert not guardian.is_running()
    client.close()
    bench.close()


@pytest.mark.needs("root")
@pytest.mark.timeout(120)
def test_a_daemon_that_is_not_there(run_root: Path, busybox: Busybox, tmp_path: Path) -> None:
    """It is waited for."""
    with own_daemon(run_root) as daemon:
        with keeper(daemon.socket, busybox, "echo go; exec sleep 74.25") as process:
            assert said(process) == "go\n"
            (guardian,) = (
                one for one in psutil.Process(process.pid).children() if "guardian" in one.cmdline()
            )
            process.send_signal(signal.SIGSTOP)  # it would end the program itself
            daemon.kill()
            process.send_signal(signal.SIGKILL)
            process.wait()
            await_true(guardian.children, "the one who removes it", SOON)
        assert living("sleep 74.25")
        daemon.start()
        await_true(lambda: not containers(daemon.socket), "an end of the container", 30)
        await_true(lambda: not living("sleep 74.25"), "an end of its program", SOON)
        await_true(lambda: not directories(), "no directory", SOON)
