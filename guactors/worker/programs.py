"""Programs of an image, run where no Python of a session runs.

Owns: the checks of what a caller asked for, before anything of it is done. Must never: run a file
from outside the image (in ``native``, ``runtimes/native/images.py`` holds that).

In ``native`` this says *which* program runs, not what it may do: the program is a process of this
machine like any other. A script in the image is run by the interpreter that its first line names.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from guactors.accelerators import environment
from guactors.assigned import assigned
from guactors.errors import PermissionDenied, ProgramNotStarted, UsageError
from guactors.images.store import ImageStore
from guactors.messages import Limits
from guactors.runtimes.base import Command, Where
from guactors.runtimes.choice import NATIVE, open_runtime
from guactors.runtimes.native.images import check_variables, program_in
from guactors.runtimes.native.workspace import Workspace
from guactors.runtimes.program import (
    UNCOUNTED,
    Chunk,
    least,
    limits_from,
    programs_of_machine,
    run_in,
)


def run(where: Where, argv: Any, env: Any, cwd: Any, limits: Any = None) -> Iterator[Chunk]:
    """Start ``argv`` and yield its output, as ``runtimes/program.run_program`` does.

    ``argv[0]`` is a path inside the image, in ``native`` with or without a slash before it; ``cwd``
    too, empty for the image's own directory. Nothing that is given is trusted. Raises
    PermissionDenied for a program, directory or variable that is not the image's to use, UsageError
    for what is none, RuntimeMissing."""
    if not _texts(argv) or type(env) is not dict or not _texts([*env, *env.values()]):
        raise UsageError("a program is a list of texts, its environment a dict of texts")
    if not argv or not argv[0]:
        raise UsageError("no program is named: name one by its path inside the image")
    if not _texts([cwd]):
        raise UsageError("the directory of a program is a text")
    if limits is not None and type(limits) is not dict:
        raise UsageError("the limits of a program are a dict of numbers")
    held = least(limits_from(limits), where.limits)
    command = Command(tuple(argv), env, cwd, main=True)
    if where.runtime != NATIVE:
        runtime = open_runtime(where.runtime, partial(store_at, where.root))
        return run_in(runtime, command, held, where.image, owner=where.owner)
    return _run_here(where, command, held)


def _run_here(where: Where, command: Command, held: Limits) -> Iterator[Chunk]:
    check_variables(command.env)
    devices = environment(assigned().devices)
    command = msgspec.structs.replace(command, env={**command.env, **devices})
    try:
        program_in(Workspace(Path(where.root)), command, {}, confined=False)
    except ProgramNotStarted as error:
        raise PermissionDenied(str(error)) from None
    options = {"root": where.root, **UNCOUNTED}
    return run_in(programs_of_machine(), command, held, where.image, options)


def store_at(directory: str) -> ImageStore:
    """What a provider keeps its images in."""
    return ImageStore(Path(directory), quota=sys.maxsize, now=time.time)


def _texts(value: Any) -> bool:
    return type(value) is list and all(type(x) is str and "\0" not in x for x in value)
