"""The HTTP door beside a hub in the foreground: a process that is started again when it dies.

Owns: that process, and the thread that waits for it. Must never: know what the door does (its
settings are bytes here), or leave it running.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from typing import IO, Any, Final

from guactors.runtimes.command import environment, python_module
from guactors.runtimes.entry import LENGTH_BYTES

MODULE: Final = "guactors.web"

_END_WITHIN: Final = 3.0
_JOIN_WITHIN: Final = 2.0
_RESTART_FIRST: Final = 0.5
_RESTART_MOST: Final = 10.0
_STEADY_AFTER: Final = 30.0


class WebProcess:
    """``told`` gets its reports, on another thread: ``ready`` with ``url``, ``error`` with
    ``text``, and ``ended`` with ``text`` when it died by itself, after which it is started
    again."""

    def __init__(
        self, settings: bytes, told: Callable[[dict[str, Any]], None], module: str = MODULE
    ) -> None:
        self._settings = settings
        self._told = told
        self._module = module
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._popen: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_up, name="web", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        """Of the present process, 0 while there is none."""
        with self._lock:
            return self._popen.pid if self._popen is not None else 0

    def close(self) -> None:
        """End it; idempotent."""
        self._ending.set()
        with self._lock:
            popen = self._popen
            if popen is not None:
                assert popen.stdin is not None
                # It ends with its standard input.
                popen.stdin.close()
        if popen is not None:
            try:
                popen.wait(_END_WITHIN)
            except subprocess.TimeoutExpired:
                popen.kill()
        self._thread.join(_JOIN_WITHIN)

    # --- the thread -----------------------------------------------------------------------------

    def _keep_up(self) -> None:
        delay = _RESTART_FIRST
        while not self._ending.is_set():
            since = time.monotonic()
            status = self._run_once()
            if self._ending.is_set():
                return
            text = f"the HTTP server ended with status {status}, it is started again"
            self._told({"event": "ended", "text": text})
            steady = time.monotonic() - since > _STEADY_AFTER
            delay = _RESTART_FIRST if steady else min(_RESTART_MOST, delay * 2)
            self._ending.wait(delay)

    def _run_once(self) -> int:
        with self._lock:
            if self._ending.is_set():
                return 0
            popen = self._popen = subprocess.Popen(
                python_module(self._module),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
                # A Ctrl-C at the terminal is for the hub, which ends us then.
                start_new_session=True,
            )
            assert popen.stdin is not None
            try:
                popen.stdin.write(len(self._settings).to_bytes(LENGTH_BYTES, "big"))
                popen.stdin.write(self._settings)
                popen.stdin.flush()
            except BrokenPipeError:
                pass  # it is gone already; its status says so
        assert popen.stdout is not None
        self._hear(popen.stdout)
        status = popen.wait()
        with self._lock:
            self._popen = None
            if not popen.stdin.closed:
                popen.stdin.close()
        return status

    def _hear(self, reports: IO[bytes]) -> None:
        with reports:
            for line in reports:
                self._told(json.loads(line))
