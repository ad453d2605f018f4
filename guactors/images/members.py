"""One member of an archive, and the rules that every member must keep.

Owns: what a member is once it was checked, the limits on an archive, and the count of what was
read so far. Must never: read an archive, touch a file system, or believe a size that a header
states: only what went by is counted.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, NoReturn, Protocol

from msgspec import Struct

from guactors.errors import ImageRefused
from guactors.security.canonical import shown

GIB: Final = 2**30
MIB: Final = 2**20
COPY: Final = MIB
"""Bytes that are copied at a time."""
_ID_MOST: Final = 2**32 - 2
_TIME_MOST: Final = 2**32 - 1
"""What a squashfs can store."""


class Limits(Struct, frozen=True, kw_only=True):
    """The most that an archive may hold. ``members``: directories that no member names count too;
    ``total``: bytes of its content with its headers; more than ``ratio`` bytes out of one byte are
    refused once ``ratio_from`` bytes came out; ``name`` and ``component``: bytes of a path and of
    one part of it; ``depth``: parts of a path; ``names``: bytes of all paths and link targets."""

    members: int = 200_000
    total: int = 8 * GIB
    ratio: int = 100
    ratio_from: int = 64 * MIB
    name: int = 4096
    component: int = 255
    depth: int = 128
    names: int = 64 * MIB


LIMITS: Final = Limits()


class Kind(enum.Enum):
    """What a member is; there are no others in an image."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"


class Member(Struct, frozen=True):
    """A checked member. ``parts``: its path, none for the root itself; ``mode``: permissions and
    the sticky bit; ``size``: bytes of a file's content; ``target``: what a symbolic link says, or
    the path of a hard link's other name; ``mtime``: epoch seconds."""

    parts: tuple[str, ...]
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""

    @property
    def name(self) -> str:
        """Its path as text."""
        return "/".join(self.parts) or "."


class Reader(Protocol):
    """Where the content of a member comes from."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


Entries = Iterator[tuple[Member, Reader]]
"""Members in the order of the archive; each reader ends where the next member begins."""


def refuse(what: str, name: str, rule: str) -> NoReturn:
    """Raise ImageRefused: in the archive ``what``, the member ``name`` breaks ``rule``."""
    raise ImageRefused(f"{what}: {shown(name)!r}: {rule}")


class Budget:
    """What was read so far of an image; several layers of one image share it."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.members = 0
        self.names = 0
        self.total = 0

    def count_member(self, what: str, name: str, length: int) -> None:
        """One member more, with ``length`` bytes of names. Refuses one too many."""
        self.members += 1
        self.names += length
        if self.members > self.limits.members:
            refuse(what, name, f"more than {self.limits.members} members")
        if self.names > self.limits.names:
            refuse(what, name, f"more than {self.limits.names} bytes of names")

    def count_bytes(self, what: str, given: int, out: int, taken: int) -> None:
        """``given`` bytes more came out, of ``out`` so far from ``taken`` bytes of this stream."""
        self.total += given
        if self.total > self.limits.total:
            raise ImageRefused(
                f"{what}: more than {self.limits.total} bytes come out of it: nothing so large is "
                "imported"
            )
        if out > self.limits.ratio_from and out > self.limits.ratio * taken:
            raise ImageRefused(
                f"{what}: {taken} bytes give more than {out}, over {self.limits.ratio} to 1: it is "
                "taken for a bomb"
            )


class Gate:
    """Makes checked members of what an archive says. One for each archive or layer."""

    def __init__(self, budget: Budget, what: str) -> None:
        self.budget = budget
        self.what = what

    def member(
        self,
        name: str,
        kind: Kind,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 0,
        size: int = 0,
        target: str = "",
    ) -> Member:
        """The member, or ImageRefused with its name and the rule that it breaks."""
        self.budget.count_member(self.what, name, len(encoded(name)) + len(encoded(target)))
        parts = self.path(name, name)
        if size < 0:
            refuse(self.what, name, "a negative size")
        if size and kind is not Kind.FILE:
            refuse(self.what, name, f"a {kind.value} with a content")
        if kind is Kind.HARDLINK:
            target = "/".join(self.path(target, name))
            if not target:
                refuse(self.what, name, "a hard link to the root")
        elif kind is Kind.SYMLINK:
            self._check_target(target, name)
        if not parts and kind is not Kind.DIRECTORY:
            refuse(self.what, name, f"a {kind.value} in the place of the root")
        return Member(
            parts,
            kind,
            mode & 0o1777,  # who may become somebody else is not for an image to say
            self._id(uid, name),
            self._id(gid, name),
            min(max(mtime, 0), _TIME_MOST),
            size,
            target,
        )

    def path(self, text: str, name: str) -> tuple[str, ...]:
        """The parts of the path ``text``, which is that of the member ``name`` or one in it."""
        limits = self.budget.limits
        if not text:
            refuse(self.what, name, "an empty name")
        if "\0" in text:
            refuse(self.what, name, "a zero byte in a name")
        if text.startswith("/"):
            refuse(self.what, name, "an absolute name: names begin below the root")
        if len(encoded(text)) > limits.name:
            refuse(self.what, name, f"a name of more than {limits.name} bytes")
        parts = tuple(part for part in text.split("/") if part not in {"", "."})
        if ".." in parts:
            refuse(self.what, name, "'..' in a name")
        if len(parts) > limits.depth:
            refuse(self.what, name, f"more than {limits.depth} directories deep")
        if any(len(encoded(part)) > limits.component for part in parts):
            refuse(self.what, name, f"a part of more than {limits.component} bytes")
        return parts

    def _check_target(self, target: str, name: str) -> None:
        if not target:
            refuse(self.what, name, "a symbolic link to nothing")
        if "\0" in target:
            refuse(self.what, name, "a zero byte in a link")
        if len(encoded(target)) > self.budget.limits.name:
            refuse(self.what, name, f"a link of more than {self.budget.limits.name} bytes")

    def _id(self, number: int, name: str) -> int:
        if not 0 <= number <= _ID_MOST:
            refuse(self.what, name, f"the owner {number} is not possible")
        return number


def encoded(text: str) -> bytes:
    """The bytes of a name; those that were no UTF-8 come back as they were."""
    return text.encode("utf-8", "surrogateescape")


def decoded(data: bytes) -> str:
    """The text of a name; see :func:`encoded`."""
    return data.decode("utf-8", "surrogateescape")
