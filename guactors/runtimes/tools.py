"""The programs of squashfs-tools, run on data that nobody trusts.

Owns: the processes of mksquashfs and unsquashfs from start to end: their limits, their deadline,
their last words. Must never: let one write where it likes (unsquashfs may write no file at all),
give it our environment or our terminal, or know what is in an image.

unsquashfs does not extract here. Its ``-pf`` writes one stream, a list of everything in the file
system and then the contents, into a pipe: whoever reads it decides what becomes of it.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO, Final, Self, cast

from msgspec import Struct

from guactors.errors import ImageRefused, UsageError

_WORDS: Final = 2048
"""Bytes of a program's last words that an error repeats."""
_PROCESSORS: Final = 4
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIPE_BYTES: Final = 2**20
INSTALL: Final = (
    "install squashfs-tools 4.5 or newer (Debian, Ubuntu: apt install squashfs-tools; Fedora: dnf "
    "install squashfs-tools; macOS: brew install squashfs)"
)


class ToolLimits(Struct, frozen=True, kw_only=True):
    """The most that one run may take: ``seconds`` of time, ``cpu`` seconds of all its threads,
    bytes of address space (``memory``) and of each file it writes (``output``)."""

    seconds: float = 3600.0
    cpu: int = 7200
    memory: int = 4 * 2**30
    output: int = 0


READING: Final = ToolLimits(seconds=1800.0, cpu=1800, memory=2 * 2**30)
WRITING: Final = ToolLimits(output=16 * 2**30)


def find_tool(name: str) -> str | None:
    """The path of ``mksquashfs`` or ``unsquashfs``; None where it is not installed."""
    return shutil.which(name)


@contextmanager
def unsquashed(image: BinaryIO, what: str, limits: ToolLimits = READING) -> Iterator[BinaryIO]:
    """The squashfs in the open file ``image`` as unsquashfs's pseudo file, a stream to read once.

    Its end is told only when the program ended well; else reading raises ImageRefused, with its
    last words. Raises UsageError where the program is missing. The program is gone when the block
    ends."""
    reading, writing = os.pipe()
    try:
        # Not /dev/stdout: a program that fails removes what it was told to write.
        options = ["-quiet", "-no-progress", "-no-xattrs", "-data-queue", "64", "-frag-queue", "64"]
        # Whatever followed the image's name would be taken for the names of wanted files.
        names = ["-pf", f"/dev/fd/{writing}", f"/dev/fd/{image.fileno()}"]
        arguments = [*options, *_processors(), *names]
        run = _Run("unsquashfs", arguments, what, limits, (writing, image.fileno()), {})
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe, run:
        yield cast(BinaryIO, io.BufferedReader(_Output(pipe, run), _PIPE_BYTES))


def squash(
    tar: Iterable[bytes], output: Path, what: str, newest: int, limits: ToolLimits = WRITING
) -> None:
    """Write the plain tar archive ``tar``, which has no root entry, as the squashfs ``output``.

    ``newest``: the latest time in the archive, which the file system and its root get. The same
    archive gives the same bytes with the same release of the program. Errors of ``tar`` pass
    through; ImageRefused when the program fails, UsageError where it is missing."""
    options = ["-comp", "zstd", "-noappend", "-no-xattrs", "-exit-on-error"]
    root = ["-root-mode", "755", "-root-uid", "0", "-root-gid", "0"]
    quiet = ["-quiet", "-no-progress", "-mem", "512M", *_processors()]
    arguments = ["-", str(output), "-tar", *options, *root, *quiet]
    # Its own option for the time of the root does nothing for tar archives (4.5.1).
    environment = {"SOURCE_DATE_EPOCH": str(newest)}
    with _Run("mksquashfs", arguments, what, limits, (), environment) as run:
        run.feed(tar)
        run.finish()


def squash_directory(source: Path, output: Path, what: str, limits: ToolLimits = WRITING) -> None:
    """Write what is in the directory ``source`` as the squashfs ``output``: all of it root's, links
    as they are, nothing compressed, for who reads it may be a processor that is emulated. The same
    directory gives the same bytes with the same release of the program.

    ImageRefused when the program fails, UsageError where it is missing."""
    plain = ["-comp", "zstd", "-noI", "-noD", "-noF", "-noX"]
    options = ["-noappend", "-no-xattrs", "-exit-on-error", "-all-root", "-mkfs-time", "0"]
    quiet = ["-quiet", "-no-progress", "-mem", "512M", *_processors()]
    arguments = [str(source.absolute()), str(output.absolute()), *plain, *options, *quiet]
    with _Run("mksquashfs", arguments, what, limits, (), {}) as run:
        run.feed(())
        run.finish()


class _Run:
    """One process, from its start to its reaping."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        what: str,
        limits: ToolLimits,
        keep: tuple[int, ...],
        environment: dict[str, str],
    ) -> None:
        """``keep``: descriptors that it inherits. What it reads comes from :meth:`feed`."""
        path = find_tool(name)
        if path is None:
            raise UsageError(f"{what} needs the program {name}, which is not here: {INSTALL}")
        self._name = name
        self._what = what
        self._words = b""
        self._late = False
        self._process = subprocess.Popen(
            [path, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": _PATH, "LC_ALL": "C", "TZ": "UTC", **environment},
            cwd="/",
            pass_fds=keep,
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name=f"{name}-words", daemon=True)
        self._deadline = threading.Timer(limits.seconds, self._overdue)
        self._deadline.daemon = True
        self._listener.start()
        self._deadline.start()
        try:
            _limit(self._process.pid, limits)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def feed(self, pieces: Iterable[bytes]) -> None:
        """Write all into its standard input and close it."""
        stdin = cast(IO[bytes], self._process.stdin)
        # A program that ends early says why on its standard error: finish() tells.
        with suppress(BrokenPipeError):
            for piece in pieces:
                stdin.write(piece)
            stdin.close()

    def finish(self) -> None:
        """Wait for its end; ImageRefused unless it ended well."""
        code = self._process.wait()
        self._listener.join()
        if self._late:
            raise ImageRefused(f"{self._what}: {self._name} took too long and was ended")
        if code:
            words = " ".join(self._words.decode("utf-8", "replace").split())
            how = f"exit status {code}" if code > 0 else f"signal {-code}"
            hint = f" ({INSTALL})" if "invalid option" in words else ""
            raise ImageRefused(f"{self._what}: {self._name} failed, {how}: {words}{hint}")

    def _listen(self) -> None:
        stderr = cast(IO[bytes], self._process.stderr)
        while data := stderr.read(_WORDS):
            self._words = (self._words + data)[-_WORDS:]

    def _overdue(self) -> None:
        self._late = True
        self._process.kill()

    def _end(self) -> None:
        self._deadline.cancel()
        self._process.kill()
        self._process.wait()
        self._listener.join()
        self._deadline.join()
        for stream in (self._process.stdin, self._process.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):  # what it did not read is of no use to anybody
                    stream.close()


class _Output(io.RawIOBase):
    """What a program writes; its end counts only if the program ended well."""

    def __init__(self, pipe: IO[bytes], run: _Run) -> None:
        self._pipe = pipe
        self._run = run

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._pipe.read(len(buffer))
        if not data:
            self._run.finish()
        buffer[: len(data)] = data
        return len(data)


def _processors() -> list[str]:
    """Each has threads and buffers of its own."""
    return ["-processors", str(min(_PROCESSORS, os.cpu_count() or 1))]


def _limit(pid: int, limits: ToolLimits) -> None:
    """Set the limits of a process that has just begun. Elsewhere than on Linux only the deadline
    and the reader's own counting hold it."""
    if sys.platform != "linux":
        return
    import resource

    wanted = {
        resource.RLIMIT_CPU: limits.cpu,
        resource.RLIMIT_AS: limits.memory,
        resource.RLIMIT_FSIZE: limits.output,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    # One that ended already is not reaped yet: it can still be asked and told.
    for kind, most in wanted.items():
        _, hard = resource.prlimit(pid, kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.prlimit(pid, kind, (least, least))
