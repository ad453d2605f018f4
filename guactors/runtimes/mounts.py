"""What every runtime refuses of a directory that is to be shown to an instance.

Owns: the rules for the two paths. Must never: mount anything.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable

from guactors.errors import UsageError
from guactors.runtimes.base import Mount


def check_paths(mount: Mount) -> None:
    """Raise UsageError for paths that no runtime can mean."""
    for path in (mount.source, mount.target):
        if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise UsageError(f"{path!r} cannot be mounted: name it from the root")
    if not posixpath.normpath(mount.target).strip("/"):
        raise UsageError(f"{mount.source} cannot be mounted in place of all: name a directory")


def check_mounts(mounts: Iterable[Mount]) -> None:
    """The same, and for sources that are not there."""
    for mount in mounts:
        check_paths(mount)
        if not os.path.exists(mount.source):
            raise UsageError(f"{mount.source} cannot be mounted: it does not exist")
