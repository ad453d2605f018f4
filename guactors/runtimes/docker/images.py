"""Images of the store in the hands of a daemon.

Owns: which image of the daemon is which of ours, and that it is there. Must never: believe a tag or
a label, which anybody may give: the daemon's id is the hash of a configuration that names the hash
of every layer, and which id an image of ours has is computed here, from its verified content.

Which that was is kept (``notes.py``): it takes the reading of the whole image. When one is loaded,
those that were not used for longest are removed from the daemon, if there are too many of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

import msgspec
from msgspec import Struct

from guactors.errors import ImageRefused, RuntimeMissing
from guactors.runtimes.docker import init
from guactors.runtimes.docker.client import Client, DaemonRefused
from guactors.runtimes.docker.notes import Notes

if TYPE_CHECKING:
    from guactors.images.manifest import Config
    from guactors.images.store import ImageStore
    from guactors.images.tree import Tree

_PIECE: Final = 2**20
_FORM: Final = 1
"""Of what is sent, besides the image: counted up with each change, for it changes the id."""


class Loaded(Struct, frozen=True):
    """An image that the daemon has: its ``id`` there, and what the manifest says of it."""

    id: str
    config: Config


class Images:
    """``open_store``: opens the store, where there is one. Threads: any."""

    def __init__(self, client: Client, open_store: Callable[[], ImageStore] | None) -> None:
        self._client = client
        self._open_store = open_store

    def load(self, image: str) -> Loaded:
        """See that the daemon has it. Raises ImageRefused, and RuntimeMissing where there is
        nowhere to take it from."""
        if self._open_store is None:
            raise RuntimeMissing(f"there is no store of images to take {image} from")
        store = self._open_store()
        manifest = store.get(image).manifest
        program = self._first_process(image, manifest.arch)
        notes, form = Notes(self._client), b"%d " % _FORM + program
        note = notes.find(image, form)
        if note is not None and self._has(note.id):
            return Loaded(note.id, manifest.config)
        known = self._send(store, image, program)
        notes.write(image, form, known)
        notes.collect(store.has, known)
        return Loaded(known, manifest.config)

    def _first_process(self, image: str, arch: str) -> bytes:
        from guactors.images.exporting import docker_arch

        theirs = self._client.version().arch
        if docker_arch(arch) != theirs:
            raise ImageRefused(
                f"the image {image} is for {arch}, and the Docker daemon at {self._client.path} "
                f"runs on {theirs}: take an image for that"
            )
        program = init.program(arch)
        if program is None:
            raise RuntimeMissing(
                f"images for {arch} cannot be run in containers, only those for "
                f"{', '.join(init.LISTINGS)}"
            )
        return program

    def _has(self, known: str) -> bool:
        try:
            found = self._client.call("GET", f"/images/{known}/json").data
        except DaemonRefused as refused:
            if refused.status == 404:
                return False
            raise
        return isinstance(found, dict) and found.get("Id") in {known, known.partition(":")[2]}

    def _send(self, store: ImageStore, image: str, program: bytes) -> str:
        from guactors.images.exporting import docker_archive

        with docker_archive(store, image, over=_layer(program)) as archive:
            if self._has(archive.id):
                return archive.id
            pieces = iter(lambda: archive.stream.read(_PIECE), b"")
            load_archive(self._client, pieces, f"the image {image}")
            if not self._has(archive.id):
                raise ImageRefused(
                    f"the Docker daemon at {self._client.path} has loaded the image {image}, and "
                    f"not as {archive.id}, which its content is: it cannot be used there"
                )
            return archive.id


def load_archive(client: Client, pieces: Iterator[bytes], what: str) -> None:
    """Send an archive of ``docker save``. Raises ImageRefused with the daemon's words, which it
    says with status 200."""
    try:
        answer = client.upload("POST", "/images/load", pieces, query={"quiet": "1"}, timeout=600)
    except DaemonRefused as refused:
        words: str | None = refused.words
    else:
        words = complaint(answer.data)
    if words is not None:
        raise ImageRefused(f"the Docker daemon at {client.path} refuses {what}: {words}")


def complaint(said: Any) -> str | None:
    """The error in what the daemon says while it loads: one document, or several in lines."""
    documents = [said]
    if isinstance(said, bytes):
        documents = []
        for line in said.splitlines():
            with suppress(msgspec.MsgspecError, UnicodeError, RecursionError):
                documents.append(msgspec.json.decode(line))
    for found in documents:
        if isinstance(found, dict) and found.get("error"):
            return str(found["error"])[:1000].strip()
    return None


class _Bytes(Struct, frozen=True):
    """Content of a tree."""

    data: bytes

    def pieces(self) -> Iterator[bytes]:
        yield self.data


def _layer(program: bytes) -> Tree:
    from guactors.images.members import Kind
    from guactors.images.tree import Node, Tree

    tree = Tree()
    tree.root.children[init.NAME] = Node(
        Kind.FILE, mode=0o755, size=len(program), content=_Bytes(program)
    )
    return tree
