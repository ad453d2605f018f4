"""``python -m guactors.web``: the HTTP door as a process of its own.

Owns: how it hears its settings and tells how it fares. Must never: be imported; ``runtimes.web``
starts it. It reads a length-prefixed msgpack ``WebConfig`` from standard input, which then stays
open: its end is this process's. Reports are JSON lines on standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any

import msgspec

from guactors.runtimes.entry import LENGTH_BYTES, read_exactly
from guactors.web.server import run_web_process
from guactors.web.settings import WebConfig


def main() -> int:
    """Read the settings, serve."""
    length = int.from_bytes(read_exactly(0, LENGTH_BYTES), "big")
    config = msgspec.msgpack.decode(read_exactly(0, length), type=WebConfig)
    threading.Thread(target=_end_with_starter, daemon=True).start()
    return run_web_process(config, _report)


def _end_with_starter() -> None:
    while os.read(0, 1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def _report(event: dict[str, Any]) -> None:
    try:
        os.write(1, json.dumps(event).encode() + b"\n")
    except BrokenPipeError:
        return  # whoever started us is gone, and we are about to be


if __name__ == "__main__":
    sys.exit(main())
