"""The one store of this process.

Owns: its making at the first large value, and its absence in a process that was forked. Light: many
import this, few ever need the store.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guactors.objects.store import ObjectStore

_making = threading.Lock()
_store: ObjectStore | None = None
_pid = 0


def store() -> ObjectStore:
    """The store, made if there is none."""
    found = present()
    return _made() if found is None or found.closed else found


def present() -> ObjectStore | None:
    """The store, if there is one."""
    return _store if _pid == os.getpid() else None


def _made() -> ObjectStore:
    global _store, _pid
    from guactors.objects.room import own_room
    from guactors.objects.store import ObjectStore

    with _making:
        if _store is None or _store.closed or _pid != os.getpid():
            _store, _pid = ObjectStore(own_room()), os.getpid()
        return _store


def close() -> None:
    """End the store of this process, if there is one."""
    there = present()
    if there is not None:
        there.close()
