"""Debian packages of this machine's own sources, with all that they need.

Owns: the run of ``apt-get``: its words, its deadline, its last words. Must never: install anything,
need rights, or take a source that this machine does not trust already (apt verifies what it
fetches).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from guactors.errors import RuntimeMissing, UsageError

WITHIN: Final = 900.0
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+(=[A-Za-z0-9.+~:-]+)?", re.ASCII)
_UNKNOWN: Final = re.compile(r"Unable to locate package (\S+)|Version \S+ for (\S+) was not found")
_WORDS: Final = 500
_ARCHS: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "armhf", "i686": "i386"}


def fetch(names: Sequence[str], directory: Path, arch: str) -> list[Path]:
    """The files of packages (``NAME`` or ``NAME=VERSION``) and of all that they depend on, as if
    nothing was installed here. ``arch``: the kernel's name of the processors. Raises UsageError,
    and RuntimeMissing where there is no apt or it does not work."""
    if not names:
        raise UsageError("no package is named")
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of a Debian package")
    if shutil.which("apt-get") is None:
        raise RuntimeMissing(
            "there is no apt-get here: build the image on Debian or Ubuntu, or import one from a "
            "container: gu image import"
        )
    theirs = _ARCHS.get(arch, arch)
    there = _run(["apt-config", "shell", "A", "APT::Architecture"])
    more = _run(["apt-config", "dump", "--no-empty", "--format", "%v%n", "APT::Architectures"])
    known = {*re.findall(r"'([^']+)'", there), *more.split()}
    if theirs not in known:
        raise UsageError(
            f"apt here has packages for {', '.join(sorted(known))}, not for {theirs}: run "
            f"dpkg --add-architecture {theirs} && apt-get update, or build on such a machine"
        )
    (directory / "partial").mkdir(parents=True, exist_ok=True)
    status = directory / "status"
    status.touch()
    _run([
        "apt-get", "-q", "-y", "install", "--download-only", "--no-install-recommends",
        "-o", f"Dir::State::status={status}", "-o", f"Dir::Cache::archives={directory}",
        "-o", "Debug::NoLocking=1", "-o", f"APT::Architecture={theirs}", "--", *names,
    ])  # fmt: skip
    return sorted(directory.glob("*.deb"))


def _run(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=WITHIN, check=False, text=True,
            stdin=subprocess.DEVNULL, errors="replace", env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RuntimeMissing(f"{argv[0]} does not end within {WITHIN:g} s") from None
    except OSError as error:
        raise RuntimeMissing(f"{argv[0]} does not work here: {error.strerror}") from None
    if done.returncode == 0:
        return done.stdout
    unknown = _UNKNOWN.search(done.stderr)
    if unknown is not None:
        raise UsageError(
            f"apt knows no package {unknown[1] or unknown[2]}: look for its name with apt-cache "
            "search, or run apt-get update if its lists are old"
        )
    raise RuntimeMissing(f"{argv[0]} failed: {done.stderr.strip()[-_WORDS:]}")
