"""Files into a container and out of it, as archives.

Owns: where a path of an instance leads, and the archives that the daemon reads and writes. Must
never: pass on an archive as it came: of the caller's every member is checked, and the owner of all
that is written is the instance's own user.

Links are the daemon's to follow: it does so with the container's root as the root, so a link leads
nowhere else. A path that begins with ``/`` begins there, any other in the working directory.

A file that is put appears whole: it is written as :data:`FRESH`, in the root, and then linked to
its name. The daemon can only add and replace, so what was there before goes a moment earlier, and
an empty FRESH stays. Where a daemon mounts something else over the place, no link can lead there,
and the file grows under its own name. Members of a tar appear one by one, as they come.
"""

from __future__ import annotations

import base64
import http.client
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Final, cast

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

import msgspec
from msgspec import Struct

from guactors.errors import ImageRefused, ProtocolError, UsageError
from guactors.images.archive import content_of, read_archive
from guactors.images.members import LIMITS, Budget, Gate, Kind, Member
from guactors.images.tar_writer import END, padding, stream_of
from guactors.images.tree import Tree
from guactors.runtimes.docker.client import Client, DaemonRefused

FRESH: Final = ".gu-put"
_COPY: Final = 2**20
_IN_MEMORY: Final = 2**20
_STAT: Final = "x-docker-container-path-stat"
_GO_DIRECTORY: Final = 1 << 31
_GO_LINK: Final = 1 << 27
_HOPS: Final = 8
_OTHER_DEVICE: Final = "cross-device link"
_TYPES: Final = {
    Kind.FILE: tarfile.REGTYPE,
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.HARDLINK: tarfile.LNKTYPE,
}


class Stat(Struct, frozen=True):
    """Of a file in a container. ``target``: where a link leads, followed to its end."""

    directory: bool
    mode: int
    target: str


class Files:
    """Of one container. ``workdir``: from its root; ``owner``: the numbers of its user."""

    def __init__(
        self, client: Client, container: str, workdir: str, owner: tuple[int, int], spool: str
    ) -> None:
        self._client = client
        self._url = f"/containers/{container}/archive"
        self._workdir = workdir
        self._owner = owner
        self._spool = spool
        self._fresh = threading.Lock()
        """There is one file of that name."""

    def put(self, path: str, data: Iterable[bytes], *, tar: bool) -> None:
        """See Driver."""
        parts = self._parts(path)
        if tar:
            self._put_tar(parts, data, path)
            return
        if not parts or path.endswith("/"):
            raise UsageError(f"{path!r} is the name of no file")
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=self._spool) as file:
            for piece in data:
                file.write(piece)
            self._put_file(parts, cast(IO[bytes], file), path)

    def get(self, path: str, *, tar: bool) -> Iterator[bytes]:
        """See Driver."""
        parts = self._parts(path)
        with self._open(parts, path) as archive:
            if tar:
                yield from _renamed(archive, path)
                return
            member = archive.next()
            if member is None or not member.isreg():
                raise UsageError(f"{path!r} is no file")
            content = archive.extractfile(member)
            assert content is not None
            while piece := content.read(_COPY):
                yield piece

    def stat(self, path: str) -> Stat | None:
        """Of the absolute ``path``, links followed; None when nothing is there."""
        for _ in range(_HOPS):
            try:
                answer = self._client.call("HEAD", self._url, query={"path": path})
            except DaemonRefused as refused:
                if refused.status == 404:
                    return None
                raise
            found = parse_stat(answer.fields.get(_STAT, ""))
            if not found.target:
                return found
            path = found.target
        return None

    # --- in -------------------------------------------------------------------------------------

    def _put_file(self, parts: list[str], file: IO[bytes], path: str) -> None:
        member = Member(tuple(parts), Kind.FILE, size=file.tell())
        try:
            with self._fresh:
                self._send(path, parts[:-1], _linked(member, self._owner, file))
        except UsageError as error:
            with suppress(UsageError):
                self._send(path, [], _emptied(self._owner))  # it takes room for nothing
            if _OTHER_DEVICE not in str(error):
                raise
            self._send(path, [], _one(member, self._owner, file))

    def _put_tar(self, parts: list[str], data: Iterable[bytes], path: str) -> None:
        gate = Gate(Budget(LIMITS), f"the archive for {path!r}")
        try:
            self._send(path, parts, _checked(data, gate, tuple(parts), self._owner))
        except ImageRefused as error:
            raise UsageError(str(error)) from None

    def _send(self, path: str, above: list[str], members: Iterable[bytes]) -> None:
        """An archive whose names begin at the root; ``above``: directories that are made first."""
        missing: list[bytes] = []
        at = list(above)
        while at:
            found = self.stat(_absolute(at) + "/")
            if found is not None and found.directory:
                break
            member = Member(tuple(at), Kind.DIRECTORY, mode=0o755)
            missing.insert(0, _header(member, self._owner))
            at.pop()
        query = {"path": "/", "noOverwriteDirNonDir": "1"}
        pieces = _chained(missing, members)
        try:
            self._client.upload("PUT", self._url, pieces, query=query)
        except DaemonRefused as refused:
            raise self._said(refused, path) from None

    # --- out ------------------------------------------------------------------------------------

    @contextmanager
    def _open(self, parts: list[str], path: str) -> Iterator[tarfile.TarFile]:
        where = _absolute(parts)
        for _ in range(_HOPS):
            try:
                with self._client.download(self._url, query={"path": where}) as answer:
                    found = parse_stat(answer.getheader(_STAT) or "")
                    if not found.target:
                        with _tar(answer) as archive:
                            yield archive
                        return
                    where = found.target
            except DaemonRefused as refused:
                raise self._said(refused, path) from None
        raise UsageError(f"{path!r} goes round in links")

    def _said(self, refused: DaemonRefused, path: str) -> Exception:
        """The caller's fault, unless the container is not there."""
        if refused.status == 404 and "No such container" in refused.words:
            return refused
        why = "there is no such file or directory: " if refused.status == 404 else ""
        return UsageError(
            f"{path!r}: {why}the Docker daemon at {self._client.path} says: {refused.words}"
        )

    def _parts(self, path: str) -> list[str]:
        if "\0" in path:
            raise UsageError(f"{path!r} is no path")
        return place(self._workdir, path)


def place(workdir: str, path: str) -> list[str]:
    """The parts of a path of an instance, from the root. Raises UsageError for one that climbs
    above where it begins."""
    found: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not found:
                raise UsageError(
                    f"{path!r} leads out of the instance, and only what is in the instance may be "
                    "used"
                )
            found.pop()
        elif part not in {"", "."}:
            found.append(part)
    base = "" if path.startswith("/") else workdir
    return [part for part in base.split("/") if part] + found


def parse_stat(text: str) -> Stat:
    """What the daemon says of a path: JSON in base64. Raises ProtocolError."""
    try:
        found = msgspec.json.decode(base64.b64decode(text, validate=True), type=dict[str, Any])
    except (ValueError, msgspec.MsgspecError, RecursionError):
        raise ProtocolError("the daemon says nothing of a file that it has found") from None
    mode, target = found.get("mode"), found.get("linkTarget")
    if not isinstance(mode, int) or not isinstance(target, str):
        raise ProtocolError("the daemon tells no mode of a file that it has found")
    link = bool(mode & _GO_LINK)
    return Stat(bool(mode & _GO_DIRECTORY), mode & 0o777, target if link else "")


def _absolute(parts: list[str]) -> str:
    return "/" + "/".join(parts)


def _checked(
    data: Iterable[bytes], gate: Gate, above: tuple[str, ...], owner: tuple[int, int]
) -> Iterator[bytes]:
    """The archive again, its members below ``above``. Raises ImageRefused."""
    tree = Tree()
    for member, reader in read_archive(stream_of(data), gate):
        if not member.parts:
            continue
        tree.add(member, gate)
        parts, target = (*above, *member.parts), member.target
        if member.kind is Kind.HARDLINK:
            target = "/".join((*above, target))
        yield _header(Member(parts, member.kind, member.mode, 0, 0, member.mtime, member.size,
                             target), owner)  # fmt: skip
        if member.kind is Kind.FILE:
            yield from content_of(member, reader, gate.what)
            yield padding(member.size)
    yield END


def _one(member: Member, owner: tuple[int, int], file: IO[bytes]) -> Iterator[bytes]:
    yield from _content(member, owner, file)
    yield END


def _linked(member: Member, owner: tuple[int, int], file: IO[bytes]) -> Iterator[bytes]:
    """The same by way of FRESH, which is another file afterwards: the content has one name."""
    fresh = Member((FRESH,), Kind.FILE, member.mode, size=member.size)
    yield from _content(fresh, owner, file)
    yield _header(Member(member.parts, Kind.HARDLINK, member.mode, target=FRESH), owner)
    yield from _emptied(owner)


def _emptied(owner: tuple[int, int]) -> Iterator[bytes]:
    yield _header(Member((FRESH,), Kind.FILE), owner)
    yield END


def _content(member: Member, owner: tuple[int, int], file: IO[bytes]) -> Iterator[bytes]:
    yield _header(member, owner)
    file.seek(0)
    while piece := file.read(_COPY):
        yield piece
    yield padding(member.size)


def _chained(first: list[bytes], rest: Iterable[bytes]) -> Iterator[bytes]:
    yield from first
    yield from rest


def _header(member: Member, owner: tuple[int, int]) -> bytes:
    info = tarfile.TarInfo(member.name)
    info.type = _TYPES[member.kind]
    info.size = member.size if member.kind is Kind.FILE else 0
    info.mode, info.linkname, info.mtime = member.mode, member.target, member.mtime
    info.uid, info.gid = owner
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


@contextmanager
def _tar(answer: http.client.HTTPResponse) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(fileobj=answer, mode="r|", bufsize=_COPY) as archive:
            yield archive
    except tarfile.TarError as error:
        raise ProtocolError(f"the daemon sent no archive: {error}") from None


def _renamed(archive: tarfile.TarFile, path: str) -> Iterator[bytes]:
    """The archive without the name of its directory before all others."""
    prefix = ""
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # it would keep all that it has seen
        name = member.name.strip("/")
        if not prefix and member.isdir():
            prefix = f"{name}/"
            continue
        member.name = name.removeprefix(prefix) or name
        if member.islnk():
            member.linkname = member.linkname.strip("/").removeprefix(prefix)
        elif not (member.isreg() or member.isdir() or member.issym()):
            raise UsageError(f"{path!r}: {member.name!r} is neither file, directory nor link")
        member.pax_headers = {}
        yield member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        content = archive.extractfile(member) if member.isreg() else None
        while content is not None and (piece := content.read(_COPY)):
            yield piece
        yield padding(member.size if member.isreg() else 0)
    yield END
