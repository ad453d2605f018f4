"""Who may call this worker over TCP, and what becomes of those who may no more.

Owns: the keys at the doors, the key of each link, the links that were cut off. Must never: admit a
key that the provider did not name. Callers on the same machine come by a socket in a directory of
the same user and have no key.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from guactors.context import running
from guactors.refs import present_session
from guactors.transport.base import Listener
from guactors.transport.doors import KeySet
from guactors.worker.intake import Item

if TYPE_CHECKING:
    from guactors.worker.process import Worker


PATIENCE: Final = 1.0
"""Seconds that a handshake waits for the provider's word."""


class Doors(KeySet):
    """A caller hears of this worker from the hub, at about the time at which the provider's word
    that it may come in arrives here, and libzmq never repeats a handshake that was refused. So an
    unknown key waits a moment for that word. It keeps others waiting too, but to get this far one
    must know the listener's key, which only the hub tells."""

    def __init__(self) -> None:
        super().__init__()
        self._news = threading.Condition()

    def admit(self, keys: Iterable[str]) -> None:
        """As in KeySet."""
        with self._news:
            super().admit(keys)
            self._news.notify_all()

    def expel(self, keys: Iterable[str]) -> None:
        """As in KeySet."""
        with self._news:
            super().expel(keys)
            self._news.notify_all()

    def admits(self, key: str) -> bool:
        """As the port says. Only a handshake waits: messages come from keys that were admitted."""
        if key in self._keys:
            return True
        with self._news:
            self._news.wait_for(lambda: key in self._keys or key in self._expelled, PATIENCE)
        return key in self._keys


class Admission:
    """``doors`` are those of the listeners; ``expelled``: links of which nothing is heard, run or
    answered any more."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._users: dict[str, str] = {}
        self.doors = Doors()
        self.expelled: set[str] = set()

    def met(self, link: str, listener: Listener) -> None:
        """A caller introduced itself; who it is was shown in the handshake."""
        user = listener.user_of(link)  # type: ignore[arg-type]
        if user:
            self._users[link] = user

    def forget(self, link: str) -> None:
        """The link is gone."""
        self._users.pop(link, None)

    def expel(self, keys: Iterable[str]) -> None:
        """Nothing of the holders of these keys comes in, waits, or runs from here on. The running
        call of an actor cannot be interrupted; its outcome goes nowhere. The control thread."""
        out = frozenset(keys)
        self.doors.expel(out)
        worker = self._worker
        with worker.lock:  # what was let in before has been noted when we get it
            links = [link for link, user in self._users.items() if user in out]
        session = present_session()
        for link in links:
            # Before its calls are looked for: one that is about to start looks here first.
            self.expelled.add(link)
            with worker.lock:
                calls = worker.runner.calls_of(link)
                for call in calls:
                    worker.runner.cancel(link, call, timeout=False)
            if session is not None:
                for call in calls:
                    session.cancel_children((link, call))
            worker.on_link_gone(link)

    def caller(self) -> str:
        """Whose call runs on the asking thread, for the log: a key, a link of this machine, or who
        made the actor that is being built."""
        item = running.get()
        if isinstance(item, Item):
            return self._users.get(item.link, item.link)
        spec = self._worker.spec
        return spec.owner if spec is not None else ""
