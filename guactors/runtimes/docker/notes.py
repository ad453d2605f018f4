"""What we have loaded into daemons, and when it was last used.

Owns: ``docker/`` of the home, one file an image and daemon, whose time is that of the last use; how
much of ours stays with a daemon. Must never: have an image removed that a container uses, to which
somebody gave a name there, or that is in no note: it may be somebody else's.

A note also saves the reading of the whole image, of which the daemon's id of it is made.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

import msgspec
from msgspec import Struct

from guactors.home import home, private_directory, write_private
from guactors.runtimes.docker.client import Client, DaemonRefused

MOST_IMAGES: Final = 32
MOST_BYTES: Final = 32 << 30
"""That we leave with a daemon; layers that images share count for each."""
_UNUSED: Final = 90 * 86400.0
"""Seconds after which the notes on a daemon that nobody asks any more go."""
_HALF: Final = 3600.0
"""Seconds after which a file that is no note is no note in the making."""

log = logging.getLogger("guactors.runtimes")


class Note(Struct, frozen=True):
    """``image``: of the store; ``id``: what the daemon, whose socket is ``daemon``, calls it."""

    image: str
    daemon: str
    id: str


class There(Struct, frozen=True):
    """An image that a daemon has."""

    size: int
    named: bool


class Notes:
    """Of this home, for one daemon. Threads and processes: any."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._directory = private_directory(home() / "docker")

    def find(self, image: str, form: bytes) -> Note | None:
        """On an image in the form in which it is sent."""
        path = self._path(image, form)
        found = _read(path)
        if found is None or (found.image, found.daemon) != (image, self._client.path):
            return None
        with suppress(FileNotFoundError):  # somebody has just taken it for too old
            os.utime(path)
        return found

    def write(self, image: str, form: bytes, known: str) -> None:
        """The daemon has it."""
        note = Note(image, self._client.path, known)
        write_private(self._path(image, form), msgspec.json.encode(note))

    def collect(self, in_store: Callable[[str], bool], keep: str) -> None:
        """Remove images of ours from the daemon: those that the store has no more, and of the
        others those used longest ago, until what stays is within the limits. What cannot be removed
        now is tried again the next time. ``keep``: the id of one that stays. Raises DaemonRefused,
        RuntimeMissing."""
        there = self._there()
        images, room = MOST_IMAGES, MOST_BYTES
        for path, note in self._newest_first():
            found = there.get(note.id)
            stays = found is not None
            if found is not None and note.id != keep:
                unknown = not in_store(note.image)
                if found.named:
                    stays = not unknown
                elif unknown or not images or found.size > room:
                    stays = not self._remove(note.id)
            if not stays:
                path.unlink(missing_ok=True)
            elif found is not None and not found.named:
                images, room = max(0, images - 1), room - found.size

    def _newest_first(self) -> list[tuple[Path, Note]]:
        """Those on our daemon; what is no note, or on a daemon that is no more, goes."""
        found = []
        for path in self._directory.iterdir():
            try:
                age = time.time() - path.stat().st_mtime
            except FileNotFoundError:
                continue
            note = _read(path)
            if note is not None and note.daemon == self._client.path:
                found.append((age, path, note))
            elif age > (_UNUSED if note is not None else _HALF):
                path.unlink(missing_ok=True)
        return [(path, note) for _, path, note in sorted(found, key=lambda one: one[0])]

    def _there(self) -> dict[str, There]:
        listed = self._client.call("GET", "/images/json", query={"all": "1"}).data
        found = {}
        for one in listed if isinstance(listed, list) else []:
            if not isinstance(one, dict) or not isinstance(one.get("Id"), str):
                continue
            size, names = one.get("Size"), one.get("RepoTags")
            named = isinstance(names, list) and any(name != "<none>:<none>" for name in names)
            there = There(size if isinstance(size, int) else 0, named)
            found["sha256:" + one["Id"].removeprefix("sha256:")] = there
        return found

    def _remove(self, known: str) -> bool:
        """Whether it is gone; not while a container is made of it."""
        try:
            self._client.call("DELETE", f"/images/{known}")
        except DaemonRefused as refused:
            if refused.status not in {404, 409}:
                log.warning(
                    "the Docker daemon at %s does not remove the image %s: %s",
                    self._client.path, known, refused.words,
                )  # fmt: skip
            return refused.status == 404
        return True

    def _path(self, image: str, form: bytes) -> Path:
        words = b"\0".join([self._client.path.encode(), image.encode(), form])
        return self._directory / hashlib.sha256(words).hexdigest()[:40]


def _read(path: Path) -> Note | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Note)
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return None
