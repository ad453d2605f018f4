"""Other users that programs may run as.

Owns: what a user of this machine is called; what one of an image is, ``images/users.py`` knows.
Must never: become one.
"""

from __future__ import annotations

import sys

from guactors.errors import ImageRefused, UsageError
from guactors.images.users import FILE_MOST, user_numbers
from guactors.runtimes.native.workspace import Workspace


def find_user(text: str, image: Workspace | None) -> tuple[int, int]:
    """The numbers of ``USER`` or ``USER:GROUP``, each a name or a number: of the image's own list,
    else of this machine's. Raises UsageError."""
    if image is None:
        return _of_machine(text)

    def read(path: str) -> bytes | None:
        try:
            return b"".join(image.get(path, tar=False))[:FILE_MOST]
        except UsageError:
            return None

    try:
        uid, _, gid = user_numbers(text, read, "the image").partition(":")
    except ImageRefused as error:
        raise UsageError(str(error)) from None
    return int(uid), int(gid)


def _of_machine(text: str) -> tuple[int, int]:
    if sys.platform == "win32":
        raise UsageError("programs of this machine cannot run as other users")
    import grp
    import pwd

    name, _, group = text.partition(":")
    try:
        known = None if name.isdigit() else pwd.getpwnam(name)
        uid = int(name) if known is None else known.pw_uid
        if group:
            return uid, int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        return uid, uid if known is None else known.pw_gid
    except KeyError:
        raise UsageError(f"there is no user {text!r} on this machine") from None
