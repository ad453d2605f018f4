"""The door to archives: any tar or zip as a stream of checked members.

Owns: telling by the content, never by the name, what an archive is; content that must be exactly as
long as stated. Must never: yield a member that broke a rule, or write anything.

A user of :func:`read_archive` sees the rules of single members kept (``members``); how members
stand to each other is for :class:`guactors.images.tree.Tree` to judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from guactors.images.compression import PlainStream
from guactors.images.members import COPY, Entries, Gate, Member, Reader, refuse
from guactors.images.tar_reader import read_tar
from guactors.images.zip_reader import MAGICS, read_zip


def is_zip(head: bytes) -> bool:
    """Whether a file that begins so is a zip."""
    return head.startswith(MAGICS)


def read_archive(file: BinaryIO, gate: Gate) -> Entries:
    """The members of the tar (plain, gzip, bzip2, xz) or zip in ``file``, from where it stands.

    Each comes with a reader of its content, which ends when the next member is asked for. Raises
    ImageRefused, which names the archive and the member, for anything that no image may hold; what
    was yielded until then must be dropped. A zip needs a file that can seek, and begins it."""
    if file.seekable():
        start = file.tell()
        head = file.read(len(MAGICS[0]))
        file.seek(start)
        if is_zip(head):
            return read_zip(file, gate)
    return read_tar(PlainStream(file, gate.budget, gate.what), gate)


def content_of(member: Member, reader: Reader, what: str) -> Iterator[bytes]:
    """The content of a file, in pieces; ImageRefused unless it has just ``member.size`` bytes."""
    left = member.size
    while data := reader.read(min(left, COPY) or 1):
        left -= len(data)
        if left < 0:
            break
        yield data
    if left:
        refuse(what, member.name, "its content is not as long as stated")
