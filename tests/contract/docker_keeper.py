"""A process that keeps one container, to be killed: ``SOCKET STORE IMAGE SCRIPT``.

Owns: running the script as a program of a grid is run. Must never: clean up after itself otherwise.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from guactors.images.store import ImageStore
from guactors.messages import Limits
from guactors.runtimes.base import Command
from guactors.runtimes.docker.driver import DockerRuntime
from guactors.runtimes.program import guardian, run_in
from tests.contract.runtime_bench import DOCKER_OPTIONS


def main(socket: str, store: str, image: str, script: str) -> None:
    """Says what the script says."""
    images = ImageStore(Path(store), quota=2**30, now=time.time)
    runtime = DockerRuntime(lambda: images, guardian(), socket=socket)
    command = Command(("/bin/sh", "-c", script), main=True)
    for _, said in run_in(runtime, command, Limits(), image, DOCKER_OPTIONS):
        print(said.decode() if isinstance(said, bytes) else said, end="", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
