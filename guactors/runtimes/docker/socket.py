"""Where the daemon is.

Owns: the usual places, and what DOCKER_HOST may say. Must never: speak to it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from guactors.errors import RuntimeMissing


def find_socket(option: str = "") -> str:
    """Where the daemon is: ``option`` or DOCKER_HOST, each a path or ``unix://PATH``, else the
    first of the usual places that is there. Raises RuntimeMissing."""
    given = option or os.environ.get("DOCKER_HOST", "")
    if given:
        scheme, separator, path = given.partition("://")
        if separator and scheme != "unix":
            raise RuntimeMissing(
                f"{given!r}: a daemon is used by its Unix socket only, unix://PATH: one that is "
                "elsewhere belongs to the provider of that machine"
            )
        return path if separator else given
    places = usual_places(os.environ)
    for path in places:
        with suppress(OSError):
            if os.path.exists(path):
                return path
    return places[0]


def usual_places(environ: Mapping[str, str]) -> list[str]:
    """Of sockets, those of Docker first."""
    own = environ.get("XDG_RUNTIME_DIR", "")
    home = environ.get("HOME", "")
    return [
        "/var/run/docker.sock",
        *([f"{own}/docker.sock"] if own else []),
        *([f"{home}/.docker/run/docker.sock"] if home else []),
        *([f"{own}/podman/podman.sock"] if own else []),
        "/run/podman/podman.sock",
    ]
