"""``python -m guactors.node``: a hub and providers on this machine, forked from one process.

Owns: which modules are imported once, before the forks, for all of them. Must never: be imported
by anything; ``guactors.runtimes.launch`` starts it and speaks with it. It reads a length-prefixed
msgpack :class:`~guactors.config.NodeConfig` from standard input, which then stays open as the
lifeline of an embedded node.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys

assert sys.platform != "win32", "forks; on Windows gu hub and gu provider run by themselves"

import msgspec

from guactors.config import HubConfig, NodeConfig, ProviderConfig
from guactors.messages import Endpoint
from guactors.runtimes import open_workers, process
from guactors.runtimes.entry import LENGTH_BYTES, read_exactly
from guactors.runtimes.node import Node
from guactors.runtimes.workers import Report

_COMMON = ("asyncio", "cloudpickle", "guactors.actors.system", "guactors.transport.zmq_link")
"""Imported before the forks: shared pages. What only one kind of process needs it imports itself,
all at the same time."""
_PROVIDER = "guactors.provider_actor"


def main() -> None:
    """Read what to run, import it, run it."""
    # Nothing made while importing is garbage; looking for it would take a tenth of the time.
    gc.disable()
    owner = os.getppid()
    length = int.from_bytes(read_exactly(0, LENGTH_BYTES), "big")
    config = msgspec.msgpack.decode(read_exactly(0, length), type=NodeConfig)
    for module in (*_COMMON, *[_PROVIDER] * (len(config.providers) > 1)):
        importlib.import_module(module)
    Node(config, _hub, _provider, owner, _web).run()


def _hub(config: HubConfig, report: Report) -> object:
    from guactors.hub_actor import run_hub_process

    _settle()
    return run_hub_process(config, report)


def _provider(config: ProviderConfig, report: Report) -> object:
    # The zygote first: it imports what workers need while this process imports what it needs.
    processes = open_workers()
    from guactors.provider_actor import run_provider_process

    _settle()
    return run_provider_process(config, report, processes=processes)


def _web(settings: bytes, hub: list[Endpoint], report: Report) -> object:
    from guactors.web.server import run_web_process
    from guactors.web.settings import WebConfig

    config = msgspec.msgpack.decode(settings, type=WebConfig)
    _settle()
    return run_web_process(msgspec.structs.replace(config, hub=hub), report)


def _settle() -> None:
    process.give_back_memory()
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    main()
