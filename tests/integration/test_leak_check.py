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
