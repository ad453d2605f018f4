"""Who an image runs as: names and numbers of users made ``uid:gid``.

Owns: what Docker's ``User`` may say. Must never: ask this machine who somebody is: the image's own
``etc/passwd`` and ``etc/group`` count.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from guactors.errors import ImageRefused

FILE_MOST: Final = 2**20
"""Bytes of a passwd or group file that are read."""
_MOST: Final = 2**32 - 2


def user_numbers(user: str, read: Callable[[str], bytes | None], what: str) -> str:
    """``uid:gid`` of ``user``: empty, ``USER`` or ``USER:GROUP``, each a name or a number.

    ``read``: the content of a file of the image, None when it has none. A number without a group
    has that of its line in passwd, or 0. Raises ImageRefused for a name that the image does not
    know."""
    if not user:
        return "0:0"
    name, colon, group = user.partition(":")
    if not name or (colon and not group):
        raise ImageRefused(f"{what}: the user {user!r} is neither USER nor USER:GROUP")
    uid, gid = name, group
    if not (group and _is_number(name)):
        line = _line(read("etc/passwd"), name, 4)
        if line is not None:
            uid, gid = line[2], group or line[3]
        elif _is_number(name):
            gid = group or "0"
        else:
            raise ImageRefused(f"{what}: its user {name!r} is not in its etc/passwd")
    if not _is_number(gid):
        line = _line(read("etc/group"), gid, 3)
        if line is None:
            raise ImageRefused(f"{what}: its group {gid!r} is not in its etc/group")
        gid = line[2]
    if not (_is_number(uid) and _is_number(gid)):
        raise ImageRefused(f"{what}: its etc/passwd or etc/group is damaged at {user!r}")
    return f"{int(uid)}:{int(gid)}"


def _line(data: bytes | None, name: str, least: int) -> list[str] | None:
    """The fields, ``least`` or more, of the line of that name, or of that number."""
    numbered = None
    for text in (data or b"").decode("utf-8", "replace").splitlines():
        fields = text.split(":")
        if len(fields) < least:
            continue
        if fields[0] == name:
            return fields
        if numbered is None and _is_number(name) and fields[2] == str(int(name)):
            numbered = fields
    return numbered


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MOST
