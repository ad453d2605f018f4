"""Reading an audit log, while its writer may be at work.

Owns: which files a log has, the answer to a filter, and the check of a whole log. Must never:
write, or hold more than a few lines at a time.

The log NAME begins in the file NAME and goes on in NAME.1, NAME.2, ...: the highest number is the
newest, and none is ever renamed. Old files may be archived, oldest first; :func:`verify_log` then
needs to be told the head of what is gone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from guactors.errors import UsageError
from guactors.security.audit import (
    GENESIS,
    LINE_MOST,
    Entry,
    Filter,
    Head,
    check_line,
    follow,
    read_line,
)

READ_MOST: Final = 10_000
"""Entries of one answer."""
# Where they exist: links are not followed, and Windows must not translate newlines.
FLAGS: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

_BLOCK: Final = 65_536
_NUMBERED: Final = re.compile(r"\.[1-9][0-9]{0,8}", re.ASCII)
_ANY: Final = Filter()


def log_files(path: Path) -> list[Path]:
    """The files of the log ``path``, oldest first."""
    return [file_of(path, number) for number in numbers_of(path)]


def read_log(
    path: Path, wanted: Filter = _ANY, *, after: int = 0, limit: int = 100, newest: bool = False
) -> list[Entry]:
    """The first ``limit`` entries (at most READ_MOST) that ``wanted`` matches.

    Oldest first, those with numbers above ``after``; or ``newest`` first, those below ``after`` (0:
    from the end). To go on, give the number of the last entry as ``after``. Reads the files anew,
    so another thread than the writer's may call it; a filter that matches little reads for about a
    second in each file. Checks the form of entries, not the chain. Raises AuditBroken."""
    limit = min(limit, READ_MOST)
    with explained(path, "read"):
        return list(islice(filter(wanted.matches, _entries(path, after, newest)), max(limit, 0)))


def verify_log(path: Path, head: Head = GENESIS) -> Head:
    """The end of the log ``path``, after the check of every line of all its files.

    ``head``: the end of what comes before, if older files were archived. Raises AuditBroken naming
    the first bad line; the line that a writer has half written counts as torn: ask again."""
    with explained(path, "read"):
        for file in log_files(path):
            with reading(file) as source:
                lines = iter(partial(source.readline, LINE_MOST + 1), b"")
                head = follow(lines, head, file.name)
    return head


def _entries(path: Path, after: int, newest: bool) -> Iterator[Entry]:
    files = log_files(path)
    if after and newest:
        files = [file for file in files if _first_number(file) < after]
    elif after:
        known = [place for place, file in enumerate(files) if _first_number(file) <= after]
        files = files[known[-1] :] if known else files
    for file in reversed(files) if newest else files:
        with reading(file) as source:
            for line in _backward(source) if newest else _forward(source):
                entry = read_line(line, file.name)
                if not after or (entry.number < after if newest else entry.number > after):
                    yield entry


def _forward(source: BinaryIO) -> Iterator[bytes]:
    """Whole lines: what a writer has not finished is left out."""
    end = end_of_lines(source)
    source.seek(0)
    while source.tell() < end:
        yield source.readline(LINE_MOST + 1)


def _backward(source: BinaryIO) -> Iterator[bytes]:
    """The same lines, last first."""
    start = end_of_lines(source)
    rest = b""
    while start > 0 and len(rest) <= LINE_MOST:
        size = min(start, _BLOCK)
        start -= size
        source.seek(start)
        pieces = (source.read(size) + rest).split(b"\n")[:-1]
        rest = pieces[0] + b"\n"
        yield from (piece + b"\n" for piece in reversed(pieces[1:]))
    if rest:
        yield rest


def end_of_lines(source: BinaryIO) -> int:
    """Where the last whole line ends, in bytes from the start."""
    start = source.seek(0, os.SEEK_END)
    while start > 0:
        size = min(start, _BLOCK)
        start -= size
        source.seek(start)
        found = source.read(size).rfind(b"\n")
        if found >= 0:
            return start + found + 1
    return 0


def _first_number(file: Path) -> int:
    """The number of the first entry; beyond all others where there is none yet."""
    with reading(file) as source:
        line = next(_forward(source), None)
    return sys.maxsize if line is None else read_line(line, file.name, 1).number


def last_head(files: list[Path]) -> Head:
    """The end of the chain, which must be as it was written; the rest is for :func:`verify_log`."""
    for file in reversed(files):
        with reading(file) as source:
            line = next(_backward(source), None)
        if line is not None:
            entry = read_line(line, file.name)
            check_line(Head(entry.number - 1, entry.previous), line, file.name)
            return Head(entry.number, entry.hash)
    return GENESIS


def file_of(path: Path, number: int) -> Path:
    """The file ``number`` (0: the first) of the log ``path``."""
    return beside(path, str(number)) if number else path


def beside(path: Path, ending: str) -> Path:
    """The path of NAME.``ending``."""
    return path.with_name(f"{path.name}.{ending}")


def numbers_of(path: Path) -> list[int]:
    """The numbers of the files there are, in order."""
    if not path.parent.is_dir():
        return []
    endings = [
        found.name.removeprefix(path.name)
        for found in path.parent.iterdir()
        if found.name.startswith(path.name)
    ]
    further = [int(ending[1:]) for ending in endings if _NUMBERED.fullmatch(ending)]
    return sorted(further + [0] * endings.count(""))


def reading(file: Path) -> BinaryIO:
    """``file``, open, from its start."""
    return os.fdopen(os.open(file, os.O_RDONLY | FLAGS), "rb")


@contextmanager
def explained(path: Path, done: str) -> Iterator[None]:
    """The system's errors as ones that say what to do. ``done``: what could not be."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"the audit log {path} cannot be {done} ({error.strerror or error}): see that its disk "
            "is there, lets this user write, and is not full"
        ) from error
