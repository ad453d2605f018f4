"""Which file of an unpacked image is run, and with what around it.

Owns: the ways into an image, and the variables that may be set for what runs there. Must never: run
a file from outside the image, or hand on the environment of this process, which may hold secrets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from guactors.errors import PermissionDenied, ProgramNotStarted, UsageError
from guactors.runtimes.base import Command
from guactors.runtimes.native.workspace import Workspace

KEPT: Final = frozenset({
    "HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "PATHEXT", "SHELL", "SYSTEMROOT", "TEMP", "TMP",
    "TMPDIR", "TZ", "USER", "WINDIR",
})  # fmt: skip
"""What a program gets of this process's environment, besides ``LC_...``."""

STEERING: Final = frozenset({
    "_JAVA_OPTIONS", "CLASSPATH", "ENV", "GCONV_PATH", "GLIBC_TUNABLES", "IFS", "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS", "LUA_INIT", "LUA_PATH", "NODE_OPTIONS", "NODE_PATH", "PATH", "PHPRC",
    "PROMPT_COMMAND", "PS4", "SHELLOPTS", "ZDOTDIR",
})  # fmt: skip
STEERING_FAMILIES: Final = ("BASH", "DYLD_", "LD_", "PERL", "PYTHON", "RUBY")
"""Variables, and beginnings of their names, that callers may not set: with these, the loader or an
interpreter would run other code than the image's."""


def program_in(
    files: Workspace, command: Command, env: Mapping[str, str], *, confined: bool
) -> tuple[list[str], str]:
    """The words to start and the directory, both on this machine, or (``confined``) as they are in
    there. ``argv[0]`` is a path inside the image, with or without a slash before it; ``cwd`` too,
    empty for the image's own directory. Raises PermissionDenied for a program, directory or
    variable that is not the image's to use."""
    if not confined:
        check_variables(env)
    program = _inside(files, command.argv[0])
    directory = _inside(files, command.cwd)
    if not os.path.lexists(program):
        raise ProgramNotStarted(f"{command.argv[0]}: the image has no such file", 127)
    if not os.path.isfile(program) or not os.access(program, os.X_OK):
        raise ProgramNotStarted(f"{command.argv[0]}: no executable file of the image", 126)
    if not os.path.isdir(directory):
        raise ProgramNotStarted(f"{command.cwd}: no directory of the image", 127)
    if confined:
        # By the name that was asked for: what many names lead to may look at the one it has.
        parts = command.argv[0].split("/")
        asked = os.path.relpath(program, files.root) if ".." in parts else command.argv[0]
        return ["/" + asked.lstrip("/"), *command.argv[1:]], command.cwd or "/"
    return [program, *command.argv[1:]], directory


def check_variables(env: Mapping[str, str]) -> None:
    """Raise PermissionDenied for one that steers what is run."""
    for name in env:
        upper = name.upper()
        if not name or "=" in name or upper in STEERING or upper.startswith(STEERING_FAMILIES):
            raise PermissionDenied(
                f"the variable {name!r} cannot be set for a program of an image: it could make it "
                "run other code"
            )


def clean_environment() -> dict[str, str]:
    """What a program of an image gets of ours."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper() in KEPT or name.startswith("LC_")
    }


def _inside(files: Workspace, path: str) -> str:
    try:
        return str(files.inside(path))
    except UsageError as error:
        raise PermissionDenied(str(error)) from None
