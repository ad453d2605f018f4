"""A launcher whose hub and provider bodies only say they are ready and wait. A config whose hub or
provider name holds ``fail`` raises, ``stubborn`` ignores SIGTERM, ``mute`` is never ready. The
provider holds one forked worker, as the real one does."""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

import msgspec

from guactors.config import HubConfig, NodeConfig, ProviderConfig
from guactors.runtimes import open_workers
from guactors.runtimes.entry import LENGTH_BYTES, read_exactly
from guactors.runtimes.node import Node
from guactors.runtimes.workers import OutputLines, Report
from tests.contract.process_watch import config_for


def run_hub(config: HubConfig, report: Report) -> None:
    behave(config.hub)
    chosen = [address.replace(":0", ":4711") for address in config.listen]
    ends = [{"control": one, "data": one, "server_key": "", "host": ""} for one in chosen]
    if "mute" not in config.hub:
        report({"event": "ready", "endpoints": ends, "listen": config.listen})
    select.select([], [], [])


def run_provider(config: ProviderConfig, report: Report) -> None:
    workers = open_workers("tests.contract.stand_in_worker:run_worker", "fork")
    behave(config.name)
    workers.start(config_for("w-family-1", Path(config.run_dir)))
    while True:
        select.select(workers.filenos(), [], [])
        if any(isinstance(event, OutputLines) for event in workers.events()):
            hub = [one.control for one in config.hub]
            report({"event": "ready", "hub": hub, "path": sys.path})


def behave(name: str) -> None:
    if "fail" in name:
        raise OSError(f"{name} has no address")
    if "stubborn" in name:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def main() -> None:
    owner = os.getppid()
    length = int.from_bytes(read_exactly(0, LENGTH_BYTES), "big")
    config = msgspec.msgpack.decode(read_exactly(0, length), type=NodeConfig)
    Node(config, run_hub, run_provider, owner).run()


if __name__ == "__main__":
    main()
