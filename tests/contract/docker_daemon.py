"""A Docker daemon for tests, and an image to run in it.

Owns: a daemon of its own in one directory, with everything that it starts and mounts. Must never:
touch a daemon that was there before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from guactors.errors import RuntimeMissing
from guactors.images.build import build_image
from guactors.images.store import ImageStore
from guactors.runtimes.docker.client import Client
from guactors.runtimes.docker.socket import find_socket

BUSYBOX = Path("/bin/busybox")
_WITHIN = 60.0


class Daemon:
    """``directory``: a short path, for its socket lies in there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = str(directory / "s")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """It answers when this returns."""
        self._forget_dead_helper()
        words = [
            "dockerd",
            "--data-root", self.directory / "data",
            "--exec-root", self.directory / "exec",
            "--pidfile", self.directory / "pid",
            "--host", f"unix://{self.socket}",
            "--group", str(os.getgid()),
            "--bridge=none", "--iptables=false", "--ip6tables=false",
        ]  # fmt: skip
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + _WITHIN
        while not answers(self.socket):
            assert self._process.poll() is None, (self.directory / "log").read_text()[-4000:]
            assert time.monotonic() < until, "dockerd does not answer"
            time.sleep(0.05)

    def kill(self) -> None:
        """As by ``kill -9``: its containers go on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """As by its service manager: its containers end."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(_WITHIN)

    def remove(self) -> None:
        """It, its helpers, containers, mounts and files."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        for process in self._helpers():
            with suppress(psutil.NoSuchProcess):
                for child in process.children(recursive=True):
                    child.kill()
                process.kill()
        until = time.monotonic() + _WITHIN
        while self._helpers() and time.monotonic() < until:
            time.sleep(0.02)
        for mount in self._mounts():
            subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(self.directory)

    def _forget_dead_helper(self) -> None:
        """A daemon takes its containerd for alive while that is a zombie, which it is for as long
        as the first process of this machine likes."""
        note = self.directory / "exec/containerd/containerd.pid"
        until = time.monotonic() + _WITHIN
        while note.exists():
            try:
                dead = psutil.Process(int(note.read_text())).status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                dead = True
            if dead:
                note.unlink()
            assert time.monotonic() < until, "containerd outlives its daemon"
            time.sleep(0.01)

    def _helpers(self) -> list[psutil.Process]:
        """Whoever has our directory in its command line: containerd, and a shim a container."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if str(self.directory) in line and "containerd" in line:
                found.append(process)
        return found

    def _mounts(self) -> list[str]:
        lines = Path("/proc/self/mounts").read_text().splitlines()
        found = [line.split()[1] for line in lines]
        return sorted((one for one in found if one.startswith(f"{self.directory}/")), reverse=True)


def answers(socket: str) -> bool:
    """Whether a daemon is there."""
    client = Client(socket)
    try:
        client.version()
    except RuntimeMissing:
        return False
    finally:
        client.close()
    return True


def containers(socket: str) -> list[str]:
    """Ids of all that a daemon has."""
    client = Client(socket)
    try:
        found = client.call("GET", "/containers/json", query={"all": "1"}).data
        return sorted(one["Id"] for one in found)
    finally:
        client.close()


def standing_socket() -> str:
    """Of a daemon that is there already, empty if none is."""
    try:
        socket = find_socket()
    except RuntimeMissing:
        return ""
    return socket if answers(socket) else ""


def possible() -> bool:
    """Whether there is a daemon, or could be one."""
    mine = hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("dockerd")
    return bool(mine) or bool(standing_socket())


@contextmanager
def own_daemon(base: Path) -> Iterator[Daemon]:
    """One that is gone after the block."""
    directory = base / f"d{os.urandom(3).hex()}"
    directory.mkdir(mode=0o700)
    daemon = Daemon(directory)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.remove()


def busybox_root(root: Path) -> Path:
    """A directory with a shell and the usual small programs."""
    (root / "bin").mkdir(parents=True)
    for name in ("etc", "proc", "sys", "dev", "usr"):
        (root / name).mkdir()
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    listed = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout
    for name in listed.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\nguest:x:1000:1000::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nguest:x:1000:\n")
    return root


def busybox_image(directory: Path) -> tuple[ImageStore, str]:
    """A store in there, and the id of the image that it has."""
    store = ImageStore(directory / "store", quota=2**30, now=time.time)
    root = busybox_root(directory / "root")
    return store, build_image(root, store, name="busybox", media="tar")
