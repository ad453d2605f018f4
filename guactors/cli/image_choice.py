"""Which image a person means, and what ``gu image`` shows while one is on its way.

Owns: the reading of names and of beginnings of ids. Must never: take a name of a hub or of a
manifest for an image: names mean something on this machine only, and only to these commands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from guactors import image_client
from guactors.cli.console import console, note
from guactors.errors import UsageError
from guactors.grid_client import GridClient
from guactors.home import home
from guactors.images.manifest import ID_PREFIX, parse_image_id
from guactors.images.store import ImageStore
from guactors.security.canonical import shown

NO_LIMIT: Final = 2**60
"""Bytes of the store of a person's own images: nothing is removed unasked."""
LEAST: Final = 8
"""Hex digits from which on a beginning of an id is taken for it."""
HERE: Final = "on this machine"
THERE: Final = "at the hub"

_WHOLE: Final = 64
_HEX: Final = frozenset("0123456789abcdef")
_CANDIDATES: Final = 4
_HINTS: Final = {
    HERE: "gu image list shows those there are",
    THERE: "gu image list --hub shows those that you may use; names mean nothing there",
}


def open_store() -> ImageStore:
    """The images of this user on this machine."""
    return ImageStore(home() / "images", quota=NO_LIMIT, now=time.time)


def local(store: ImageStore, given: str) -> str:
    """The id of the image of this machine that ``given`` means; told if that is something else."""
    return _say(given, resolve(given, {one.id: one.names for one in store.list()}, HERE))


def remote(client: GridClient, given: str) -> str:
    """As ``local``, of an image at the hub. What it is called there was chosen by strangers, so
    only the beginning of an id will do."""
    if _is_whole(given):
        return parse_image_id(given)
    rows = image_client.list_images(client)
    return _say(given, resolve(given, {row.image: () for row in rows}, THERE))


def resolve(given: str, known: Mapping[str, Collection[str]], where: str) -> str:
    """The id of the image that ``given`` means: an id; else a name or the beginning of an id, of
    those in ``known``, which has the names of each. ``where``: HERE or THERE, for errors.

    Raises UsageError where that is none or several."""
    text = given.strip()
    named = [image for image, names in known.items() if text in names]
    if len(named) == 1:
        return named[0]
    if _is_whole(text):
        return parse_image_id(text)
    digits = text.lower().removeprefix(ID_PREFIX)
    if not digits or not _HEX.issuperset(digits):
        digits = ""
    found = sorted(image for image in known if digits and image.startswith(ID_PREFIX + digits))
    if not found:
        raise UsageError(f"there is no image {shown(given)!r} {where}: {_HINTS[where]}")
    if len(digits) < LEAST:
        raise UsageError(f"{shown(given)!r} is too short for an image: give {LEAST} digits or more")
    if len(found) > 1:
        names = ", ".join(found[:_CANDIDATES])
        raise UsageError(
            f"{shown(given)!r} may mean {len(found)} images: {names}: give more digits"
        )
    return found[0]


def _is_whole(given: str) -> bool:
    """Whether it is meant as a whole id, though perhaps mistyped."""
    text = given.strip().lower()
    return text.startswith(ID_PREFIX) and len(text) >= len(ID_PREFIX) + _WHOLE


def _say(given: str, found: str) -> str:
    if found != given:
        note(f"{given} is {found}")
    return found


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, if that is a terminal; to be called with bytes done and bytes in all."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(what), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    terminal = console(stderr=True)
    with Progress(
        *columns, console=terminal, transient=True, disable=not terminal.is_terminal
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
