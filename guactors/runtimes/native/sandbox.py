"""A sandbox around programs of this machine: bubblewrap, where it is installed.

Owns: its words, and the checks that it leaves to a line on the program's stderr. Must never: start
it.
"""

from __future__ import annotations

import os
import platform
import shutil
import struct
import sys
from pathlib import Path
from typing import Final

from guactors.errors import ProgramNotStarted, UsageError
from guactors.runtimes.base import Spec
from guactors.runtimes.native.workspace import Workspace

WORKSPACE: Final = "/work"
"""Where the instance's directory is in there, for programs of the machine."""
_PROGRAMS: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt")
_ELF: Final = b"\x7fELF"
_MACHINES: Final = {"x86_64": 62, "aarch64": 183}


def find_bubblewrap() -> str:
    """The path of the program, empty where there is none."""
    return shutil.which("bwrap") or "" if sys.platform == "linux" else ""


def confine(
    spec: Spec,
    files: Workspace,
    argv: list[str],
    cwd: str,
    search: str,
    user: tuple[int, int] | None,
) -> list[str]:
    """The words that run ``argv`` in there. With an image its files are all there is, and ``cwd``
    is a path in it; without, programs and libraries of the machine, found by ``search``, and the
    instance's own directory. A ``user`` is whom the program takes itself for. Raises
    ProgramNotStarted."""
    words = [find_bubblewrap(), "--die-with-parent", "--unshare-all"]
    if spec.network == "host":
        words.append("--share-net")
    if user is not None:
        words += ["--uid", str(user[0]), "--gid", str(user[1])]
    if spec.image:
        words += ["--bind", str(files.root), "/", "--chdir", cwd]
        _check(files.inside(argv[0]), argv[0])
    else:
        cwd = _in_workspace(files, cwd)
        for path in _PROGRAMS:
            words += ["--ro-bind-try", path, path]
        words += ["--bind", str(files.root), WORKSPACE, "--chdir", cwd]
        _check(_on_machine(files, argv[0], cwd, search), argv[0])
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for mount in spec.mounts:
        words += ["--ro-bind", mount.source, mount.target]
    return [*words, "--", *argv]


def _in_workspace(files: Workspace, cwd: str) -> str:
    """Where a directory of this machine is in there."""
    if not os.path.isdir(cwd):
        raise ProgramNotStarted(f"no directory {cwd}", 127)
    real, root = Path(cwd).resolve(), files.root.resolve()
    return str(Path(WORKSPACE) / real.relative_to(root)) if real.is_relative_to(root) else cwd


def _on_machine(files: Workspace, program: str, cwd: str, search: str) -> Path | None:
    """The file that is going to be run, None where there is none."""
    if "/" not in program:
        found = shutil.which(program, path=search)
        return Path(found) if found else None
    path = Path(cwd, program)
    if not path.is_relative_to(WORKSPACE):
        return path
    try:
        return files.inside(str(path.relative_to(WORKSPACE)))
    except UsageError:
        return None


def _check(path: Path | None, name: str) -> None:
    """Raise ProgramNotStarted for what the kernel would not start."""
    if path is None or not path.exists():
        raise ProgramNotStarted(f"{name}: No such file or directory", 127)
    if not path.is_file() or not os.access(path, os.X_OK):
        raise ProgramNotStarted(f"{name}: Permission denied", 126)
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:  # executable and not readable
        return
    if head.startswith(_ELF):
        order = "<" if head[5:6] == b"\1" else ">"
        machine = struct.unpack(f"{order}H", head[18:20])[0] if len(head) == 20 else 0
        if machine != _MACHINES.get(platform.machine(), machine):
            raise ProgramNotStarted(f"{name}: Exec format error", 126)
