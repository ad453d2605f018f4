"""Programs of an image, run where no Python of a session runs.

Owns: which file of the image is run, and with what environment. Must never: run a file from outside
the image's directory, or hand on the environment of this process, which may hold secrets.

This says *which* program runs, not what it may do: the program is a process of this machine like
any other. A script in the image is run by the interpreter that its first line names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from guactors.accelerators import environment
from guactors.assigned import assigned
from guactors.errors import PermissionDenied, UsageError
from guactors.runtimes.program import Chunk, run_program

KEPT: Final = frozenset({
    "HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "PATHEXT", "SHELL", "SYSTEMROOT", "TEMP", "TMP",
    "TMPDIR", "TZ", "USER", "WINDIR",
})  # fmt: skip
"""What a program gets of this process's environment, besides ``LC_...`` and
what says which devices it may use."""

STEERING: Final = frozenset({
    "_JAVA_OPTIONS", "CLASSPATH", "ENV", "GCONV_PATH", "GLIBC_TUNABLES", "IFS", "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS", "LUA_INIT", "LUA_PATH", "NODE_OPTIONS", "NODE_PATH", "PATH", "PHPRC",
    "PROMPT_COMMAND", "PS4", "SHELLOPTS", "ZDOTDIR",
})  # fmt: skip
STEERING_FAMILIES: Final = ("BASH", "DYLD_", "LD_", "PERL", "PYTHON", "RUBY")
"""Variables, and beginnings of their names, that callers may not set: with these, the loader or an
interpreter would run other code than the image's."""


def run(root: str, argv: Any, env: Any, cwd: Any) -> Iterator[Chunk]:
    """Start ``argv`` and yield its output, as ``runtimes/program.run_program`` does.

    ``argv[0]`` is a path inside the image, with or without a slash before it; ``cwd`` too, empty
    for the image's directory itself. Nothing of the three is trusted. Raises PermissionDenied for a
    program, directory or variable that is not the image's to use, UsageError for what is none."""
    if not _texts(argv) or type(env) is not dict or not _texts([*env, *env.values()]):
        raise UsageError("a program is a list of texts, its environment a dict of texts")
    if not argv or not argv[0]:
        raise UsageError("no program is named: name one by its path inside the image")
    if not _texts([cwd]):
        raise UsageError("the directory of a program is a text")
    _check_environment(env)
    program = inside(root, argv[0])
    directory = inside(root, cwd)
    if not os.path.isfile(program) or not os.access(program, os.X_OK):
        raise PermissionDenied(f"{argv[0]!r} is no executable file of the image")
    if not os.path.isdir(directory):
        raise PermissionDenied(f"{cwd!r} is no directory of the image")
    _forget_environment()
    return run_program([program, *argv[1:]], dict(env), directory)


def inside(root: str, path: str) -> str:
    """``path`` below ``root``, every symbolic link followed. Raises PermissionDenied when that
    leads out of it."""
    home = os.path.realpath(root)
    found = os.path.realpath(os.path.join(home, path.lstrip("/\\")))
    if os.path.splitdrive(path)[0] or not Path(found).is_relative_to(home):
        raise PermissionDenied(
            f"{path!r} is outside the image, and only what is in the image may be used"
        )
    return found


def _texts(value: Any) -> bool:
    return type(value) is list and all(type(x) is str and "\0" not in x for x in value)


def _check_environment(env: Mapping[str, str]) -> None:
    for name in env:
        upper = name.upper()
        if not name or "=" in name or upper in STEERING or upper.startswith(STEERING_FAMILIES):
            raise PermissionDenied(
                f"the variable {name!r} cannot be set for a program of an image: it could make it "
                "run other code"
            )


def _forget_environment() -> None:
    # The process runs nothing else, and a program inherits what is here.
    devices = environment(assigned().devices)
    for name in list(os.environ):
        if name.upper() not in KEPT and not name.startswith("LC_") and name not in devices:
            del os.environ[name]
