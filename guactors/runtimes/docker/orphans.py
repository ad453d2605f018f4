"""Containers whose keeper was killed.

Owns: what a guardian (``native/guardian.py``) is told of our containers, and the program that it
runs for them. Must never: touch the container of a keeper that lives.

A container is the daemon's child and not ours, and it may stand still: so nothing in it, and no
signal, can be relied upon to end it, but only a word to the daemon. Whoever says it needs Python,
which the guardian starts only when it is time. It goes by a label, for the number of a container is
not known yet while it is made.
"""

from __future__ import annotations

import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

from guactors.errors import InternalError, RuntimeMissing
from guactors.runtimes.command import foreign_module
from guactors.runtimes.docker.client import Client
from guactors.runtimes.docker.removal import labelled, remove_container
from guactors.runtimes.docker.words import INSTANCE, KEEPER
from guactors.runtimes.native.guardian import Guardian

PATIENCE: Final = 60.0
"""Seconds that a daemon is waited for which is not there, or has not ended all."""
_BIRTH: Final = 30.0
"""Seconds in which a container appears that was asked for."""
_NAP: Final = 0.1


class Watch:
    """Over the containers of this process, at the daemon of ``socket``. Threads: any."""

    def __init__(self, guardian: Guardian, socket: str) -> None:
        self._guardian = guardian
        self._socket = socket
        self.keeper = secrets.token_hex(16)
        """What their label says."""
        guardian.watch("command", self._command())

    @contextmanager
    def birth(self, instance: str) -> Iterator[None]:
        """A container is asked for: the daemon makes it, even if nobody hears the answer."""
        unborn, born = self._command(instance), self._command()
        self._guardian.watch("command", unborn)
        # In this order: whoever waits for the one must not find that the other has removed it.
        self._guardian.forget("command", born)
        self._guardian.watch("command", born)
        try:
            yield
        finally:
            self._guardian.forget("command", unborn)

    def _command(self, unborn: str = "") -> str:
        words = [self._socket, self.keeper, *([unborn] if unborn else [])]
        return shlex.join(foreign_module(sys.executable, __name__, *words))


def remove_orphans(client: Client, keeper: str, unborn: str = "") -> None:
    """All that have the label of a keeper that is dead. ``unborn``: an instance whose container may
    be about to be made, and is waited for. Raises RuntimeMissing where the daemon does not come
    back, and InternalError where one does not end: then ``reap`` is what is left."""
    began = time.monotonic()
    while True:
        try:
            found = labelled(client, KEEPER, keeper)
            for one in found:
                remove_container(client, one["Id"])
                if one["Labels"].get(INSTANCE) == unborn:
                    unborn = ""
        except (InternalError, RuntimeMissing):
            if time.monotonic() > began + PATIENCE:
                raise
        else:
            if not found and (not unborn or time.monotonic() > began + _BIRTH):
                return
        time.sleep(_NAP)


def main(words: list[str]) -> None:
    """``SOCKET KEEPER [INSTANCE]``."""
    client = Client(words[0])
    try:
        remove_orphans(client, *words[1:])
    finally:
        client.close()


if __name__ == "__main__":
    main(sys.argv[1:])
