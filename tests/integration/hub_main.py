"""A hub alone in a process: config as msgpack on standard input, reports as lines of JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from guactors.config import HubConfig
from guactors.hub_actor import run_hub_process


def report(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    given = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=HubConfig)
    raise SystemExit(run_hub_process(given, report))
