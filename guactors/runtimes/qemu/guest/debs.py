"""Debian packages, read without Debian's programs.

Owns: the ``ar`` archive that a package is, and the tar in it. Must never: unpack anything onto a
file system, or follow a link that leads out of the package.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from guactors.errors import UsageError

_MAGIC: Final = b"!<arch>\n"
_HEADER: Final = 60
_END: Final = b"`\n"
_MOST: Final = 512 << 20
_HOPS: Final = 8


def read_deb(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The files of a package whose paths, without a slash before them, are ``wanted``; a link is
    the file that it leads to, where that is wanted too. Raises UsageError for what is no package
    or is compressed as this Python cannot read."""
    try:
        name, data = _data(path)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as archive:
            return _files(archive, wanted)
    except tarfile.ReadError:
        raise UsageError(
            f"{path.name}: its {name} cannot be read by this Python: take a package of Debian 12, "
            "which are compressed with xz"
        ) from None
    except (OSError, EOFError) as error:
        raise UsageError(f"{path} is no Debian package: {error}") from None


def read_data(path: Path) -> bytes:
    """The tar of a package's files, packed as it is. Raises UsageError for what is no package."""
    try:
        return _data(path)[1]
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _data(path: Path) -> tuple[str, bytes]:
    with path.open("rb") as file:
        content = file.read(_MOST)
    if not content.startswith(_MAGIC):
        raise UsageError(f"{path} is no Debian package: it does not begin as one")
    at = len(_MAGIC)
    while at + _HEADER <= len(content):
        header = content[at : at + _HEADER]
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        digits = header[48:58].strip()
        if header[58:] != _END or not digits.isdigit():
            break
        at += _HEADER
        size = int(digits)
        if at + size > len(content):
            break
        if name.startswith("data.tar"):
            return name, content[at : at + size]
        at += size + size % 2
    raise UsageError(f"{path} is no Debian package, or is cut short: it has no data.tar")


def _files(archive: tarfile.TarFile, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    members = {member.name.removeprefix("./"): member for member in archive}
    found: dict[str, bytes] = {}
    for name in filter(wanted, members):
        member: tarfile.TarInfo | None = members[name]
        for _ in range(_HOPS):
            if member is not None and member.issym():
                above = member.name.removeprefix("./").rpartition("/")[0]
                member = members.get(_joined(above, member.linkname))
        if member is not None and member.isfile():
            file = archive.extractfile(member)
            assert file is not None
            found[name] = file.read()
    return found


def _joined(above: str, target: str) -> str:
    parts = [] if target.startswith("/") else above.split("/")
    for part in target.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)
