"""The end of a container.

Owns: which containers have a label, and asking for the end of one until it is true. Must never:
wait for ever, or take a container for one of ours that does not say so itself.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Final

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

from guactors.errors import InternalError, RuntimeMissing
from guactors.runtimes.docker.client import Client, DaemonRefused

WITHIN: Final = 30.0
_NAP: Final = 0.02


def labelled(client: Client, label: str, value: str) -> list[dict[str, Any]]:
    """What the daemon says of each container that has it, run it or not. Raises RuntimeMissing."""
    query = {"all": "1", "filters": json.dumps({"label": [f"{label}={value}"]})}
    try:
        found = client.call("GET", "/containers/json", query=query).data
    except DaemonRefused as refused:
        raise RuntimeMissing(
            f"the Docker daemon at {client.path} does not tell of its containers: {refused.words}"
        ) from None
    return [
        one
        for one in (found if isinstance(found, list) else [])
        if isinstance(one, dict)
        and isinstance(one.get("Id"), str)
        and (one.get("Labels") or {}).get(label) == value
    ]


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
