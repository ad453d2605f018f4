"""A provider alone in a process: config as msgpack on standard input, reports as lines of JSON.

argv: the entry that its workers run. Standard input stays open for as long as it is to live.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import msgspec

from guactors.config import ProviderConfig
from guactors.provider_actor import run_provider_process


def report(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    given = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=ProviderConfig)
    raise SystemExit(run_provider_process(given, report, entry=sys.argv[1]))
