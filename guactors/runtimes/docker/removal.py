"""The end of a container.

Owns: asking for it until it is true. Must never: wait for ever.
"""

from __future__ import annotations

import sys
import time
from typing import Final

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

from guactors.errors import InternalError
from guactors.runtimes.docker.client import Client, DaemonRefused

WITHIN: Final = 30.0
_NAP: Final = 0.02


def remove_container(client: Client, container: str) -> None:
    """None of it is left when this returns: processes, files, volumes. Raises RuntimeMissing where
    nobody answers, InternalError where it does not end."""
    until = time.monotonic() + WITHIN
    while True:
        try:
            client.call("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})
            return
        except DaemonRefused as refused:
            if refused.status == 404:
                return
            # 409: it is being removed already; 500: something of it is still busy.
            if time.monotonic() > until:
                raise InternalError(
                    f"the container {container[:12]} does not end: the daemon at {client.path} "
                    f"says {refused.words}"
                ) from None
        time.sleep(_NAP)
