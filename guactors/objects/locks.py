"""Locks on single bytes of a file, by which processes tell each other what they use.

Owns: the three system calls. A lock ends with the process that holds it, however it ends. Where
locks belong to the process (macOS) they end, too, when it closes any descriptor of the file: a
process must open each file once.

Bytes beyond the end of a file can be locked, so a number is enough of a name.
"""

from __future__ import annotations

import sys

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _AT_ONCE, _ALONE = 1, 2

    class _Overlapped(ctypes.Structure):
        _fields_ = (
            ("Internal", ctypes.c_void_p),
            ("InternalHigh", ctypes.c_void_p),
            ("Offset", wintypes.DWORD),
            ("OffsetHigh", wintypes.DWORD),
            ("hEvent", wintypes.HANDLE),
        )

    _HIGH = 1 << 62
    """Windows forbids reading and writing locked bytes: ours lie where no file has any."""

    def _lock(fd: int, at: int, flags: int) -> bool:
        place = _Overlapped(None, None, at & 0xFFFFFFFF, (_HIGH + at) >> 32, None)
        handle = msvcrt.get_osfhandle(fd)
        return bool(
            ctypes.windll.kernel32.LockFileEx(
                handle, flags | _AT_ONCE, 0, 1, 0, ctypes.byref(place)
            )
        )

    def share(fd: int, at: int) -> bool:
        """Lock a byte together with others; False when somebody has it alone."""
        return _lock(fd, at, 0)

    def seize(fd: int, at: int) -> bool:
        """Lock a byte alone; False when anybody else has it."""
        return _lock(fd, at, _ALONE)

    def release(fd: int, at: int) -> None:
        """Unlock a byte."""
        place = _Overlapped(None, None, at & 0xFFFFFFFF, (_HIGH + at) >> 32, None)
        handle = msvcrt.get_osfhandle(fd)
        ctypes.windll.kernel32.UnlockFileEx(handle, 0, 1, 0, ctypes.byref(place))

else:
    import fcntl
    import os
    import struct

    if sys.platform == "linux":
        _SET = fcntl.F_OFD_SETLK
        """These belong to the open file: two stores in one process do not end each other's."""

        def _apply(fd: int, kind: int, at: int) -> None:
            fcntl.fcntl(fd, _SET, struct.pack("hhqqi4x", kind, os.SEEK_SET, at, 1, 0))

    else:
        _KINDS = {
            fcntl.F_RDLCK: fcntl.LOCK_SH | fcntl.LOCK_NB,
            fcntl.F_WRLCK: fcntl.LOCK_EX | fcntl.LOCK_NB,
            fcntl.F_UNLCK: fcntl.LOCK_UN,
        }

        def _apply(fd: int, kind: int, at: int) -> None:
            fcntl.lockf(fd, _KINDS[kind], 1, at)

    def _try(fd: int, kind: int, at: int) -> bool:
        try:
            _apply(fd, kind, at)
        except (BlockingIOError, PermissionError):
            return False
        return True

    def share(fd: int, at: int) -> bool:
        """Lock a byte together with others; False when somebody has it alone."""
        return _try(fd, fcntl.F_RDLCK, at)

    def seize(fd: int, at: int) -> bool:
        """Lock a byte alone; False when anybody else has it."""
        return _try(fd, fcntl.F_WRLCK, at)

    def release(fd: int, at: int) -> None:
        """Unlock a byte."""
        _apply(fd, fcntl.F_UNLCK, at)
