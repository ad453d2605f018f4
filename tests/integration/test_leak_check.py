"""The leak check sees each kind of leak; otherwise its silence would mean nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests import leaks

pytestmark = pytest.mark.needs("linux")


def descriptor() -> Callable[[], object]:
    return open(os.devnull).close


def thread() -> Callable[[], object]:
    leave = threading.Event()
    threading.Thread(target=leave.wait, daemon=True).start()
    return leave.set


def child() -> Callable[[], object]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    return lambda: process.communicate(b"\n")


def stranger() -> Callable[[], object]:
    """A process that is no descendant of ours any more, as ``gu up`` leaves one."""
    script = "setsid sleep 60 >/dev/null 2>&1 & echo $!"
    pid = int(subprocess.check_output(["sh", "-c", script]))
    return psutil.Process(pid).kill


def directory() -> Callable[[], object]:
    path = tempfile.mkdtemp(prefix="gu-")
    return lambda: os.rmdir(path)


@pytest.mark.parametrize(
    ("kind", "leak"),
    [
        ("fds", descriptor),
        ("threads", thread),
        ("processes", child),
        ("processes", stranger),
        ("dirs", directory),
    ],
)
def test_it_sees(
    kind: str, leak: Callable[[], Callable[[], object]], gu_home: Path, run_root: Path
) -> None:
    before = leaks.take(gu_home, run_root)
    mend = leak()
    try:
        found = leaks.take(gu_home, run_root).since(before, leaks.KINDS)
        assert any(line.startswith(f"{kind}: ") for line in found), found
    finally:
        mend()
    assert leaks.settle(before, gu_home, run_root, leaks.KINDS) == []


LOCK = """
import multiprocessing, sys
lock = multiprocessing.get_context("spawn").Lock()
print(lock._semlock.name, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ours", [True, False])
def test_only_semaphores_of_our_own_count(
    ours: bool, gu_home: Path, run_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another Python on this machine may have some, for as long as it likes."""
    monkeypatch.setattr(leaks, "SETTLE", 0.3)
    before = leaks.take(gu_home, run_root)
    start = '"$0" -c "$1" <&3 3<&- &'  # without <&3 it would have no input
    env = {name: value for name, value in os.environ.items() if name != "GU_HOME"}
    shell = subprocess.Popen(
        ["sh", "-c", f"exec 3<&0; {start}{' wait' if ours else ''}", sys.executable, LOCK],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env,
    )  # fmt: skip
    assert shell.stdin is not None
    assert shell.stdout is not None
    name = shell.stdout.readline().decode().strip()
    assert name.startswith("/mp-")
    if not ours:
        shell.wait()
    found = leaks.settle(before, gu_home, run_root, ("shm",))
    assert [line for line in found if line.endswith(name[1:])] == (
        [f"shm: /dev/shm/sem.{name[1:]}"] if ours else []
    )
    shell.stdin.close()
    shell.stdout.read()  # until all of them have ended
    shell.stdout.close()
    shell.wait()


def test_a_semaphore_that_nobody_has_counts(
    gu_home: Path, run_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaks, "SETTLE", 0.3)
    before = leaks.take(gu_home, run_root)
    left = Path("/dev/shm/sem.mp-left-behind-by-a-test")
    left.touch()
    try:
        assert leaks.settle(before, gu_home, run_root, ("shm",)) == [f"shm: {left}"]
    finally:
        left.unlink()
