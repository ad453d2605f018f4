"""Programs of an image, run where no Python of a session runs.

Owns: the checks of what a caller asked for, before anything of it is done. Must never: run a file
from outside the image's directory (``runtimes/native/images.py`` holds that).

This says *which* program runs, not what it may do: the program is a process of this machine like
any other. A script in the image is run by the interpreter that its first line names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from guactors.accelerators import environment
from guactors.assigned import assigned
from guactors.errors import PermissionDenied, ProgramNotStarted, UsageError
from guactors.runtimes.base import Command
from guactors.runtimes.native.images import check_variables, program_in
from guactors.runtimes.native.workspace import Workspace
from guactors.runtimes.program import Chunk, limits_from, run_in

_IMAGE: Final = "unpacked"


def run(root: str, argv: Any, env: Any, cwd: Any, limits: Any = None) -> Iterator[Chunk]:
    """Start ``argv`` and yield its output, as ``runtimes/program.run_program`` does.

    ``argv[0]`` is a path inside the image, with or without a slash before it; ``cwd`` too, empty
    for the image's directory itself. Nothing that is given is trusted. Raises PermissionDenied for
    a program, directory or variable that is not the image's to use, UsageError for what is none."""
    if not _texts(argv) or type(env) is not dict or not _texts([*env, *env.values()]):
        raise UsageError("a program is a list of texts, its environment a dict of texts")
    if not argv or not argv[0]:
        raise UsageError("no program is named: name one by its path inside the image")
    if not _texts([cwd]):
        raise UsageError("the directory of a program is a text")
    if limits is not None and type(limits) is not dict:
        raise UsageError("the limits of a program are a dict of numbers")
    held = limits_from(limits)
    check_variables(env)
    devices = environment(assigned().devices)
    command = Command(tuple(argv), {**env, **devices}, cwd, main=True)
    try:
        program_in(Workspace(Path(root)), command, env, confined=False)
    except ProgramNotStarted as error:
        raise PermissionDenied(str(error)) from None
    return run_in({"root": root}, command, held, _IMAGE)


def _texts(value: Any) -> bool:
    return type(value) is list and all(type(x) is str and "\0" not in x for x in value)
