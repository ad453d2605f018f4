"""Programs of this machine that are asked something, and answer soon.

Owns: their processes, one at a time, from start to end. Must never: let one run on, or read its
standard input; nor give it a secret.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from guactors.idle.base import Ran
from guactors.runtimes.command import without_secrets

WITHIN: Final = 5.0
"""Seconds for one."""
MOST: Final = 65536
"""Characters of its output that are kept."""


class Brief:
    """``within``: seconds that each has."""

    def __init__(self, within: float = WITHIN) -> None:
        self._within = within
        self._process: subprocess.Popen[str] | None = None
        self._closed = False

    def run(self, argv: Sequence[str]) -> Ran:
        """As ``idle.base.Run``; from one thread."""
        process = self._process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=without_secrets(os.environ), text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
        if self._closed:
            _end(process)
        with process:
            try:
                output, _ = process.communicate(timeout=self._within)
            except subprocess.TimeoutExpired:
                _end(process)
                raise TimeoutError(f"it took more than {self._within:g} s") from None
        return Ran(process.returncode, output[:MOST])

    def close(self) -> None:
        """From any thread: whatever runs ends now, and whatever would is ended at once."""
        self._closed = True
        if self._process is not None:
            _end(self._process)


def _end(process: subprocess.Popen[str]) -> None:
    """With all that it has started."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
