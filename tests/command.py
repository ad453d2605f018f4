"""Runs ``gu`` as a user does: its own process, its exit status, its two streams."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

GU = [sys.executable, "-m", "guactors.cli.main"]
WITHIN = 30.0
"""Seconds for anything that is expected to happen."""


def gu(*args: str, status: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; its exit status must be ``status``, and a failure one line on stderr."""
    done = subprocess.run(
        [*GU, *args],
        capture_output=True,
        text=True,
        timeout=WITHIN,
        env={**os.environ, **env},
        check=False,
    )
    assert done.returncode == status, f"gu {' '.join(args)}: {done.returncode}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def refused(*args: str, status: int = 1, **env: str) -> str:
    """The one line of a command that fails."""
    done = gu(*args, status=status, **env)
    lines = done.stderr.splitlines()
    assert done.stdout == ""
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("gu: ")
    return lines[0]


@contextmanager
def running(*args: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until the end of the block, where SIGTERM must end it with status 0."""
    process = subprocess.Popen(
        [*GU, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    with process:
        try:
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(WITHIN) == 0, process.stderr and process.stderr.read()
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    """What it prints first, without the line's end."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr and process.stderr.read()
    return line.rstrip("\n")


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for the condition, and fail by its name when it does not come."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def ended(pid: int) -> bool:
    """Whether the process is gone, or dead and only not reaped by whoever has to."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
