"""How another Python of the same kind is started.

Owns: the interpreter's arguments and environment. Must never: start anything, or hand a secret of
the user on: whoever starts a grid opens locked keys himself, and workers run code of others.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SECRETS: Final = ("GU_PASSPHRASE",)
"""Variables that no process of a grid gets."""


def python_module(module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module``. ``-P`` keeps the working directory, where anything
    may be called ``zmq.py``, out of the import path of our own processes."""
    return [sys.executable, "-P", "-m", module, *arguments]


FOREIGN: Final = "foreign"
"""The last argument of what ``foreign_module`` runs."""
_BOOT: Final = (
    "import os, runpy, sys; sys.path.extend(sys.argv.pop(1).split(os.pathsep)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def foreign_module(python: str, module: str, *arguments: str) -> list[str]:
    """As ``python_module``, by another interpreter, which is shown our import path: it need not
    have this package. The module finds that path at the end of its own (``join_paths``)."""
    return [python, "-P", "-c", _BOOT, os.pathsep.join(sys.path), module, *arguments]


def join_paths(path: list[str], given: list[str]) -> list[str]:
    """The import path for a module run by ``foreign_module``, which finds ``path``, with ``given``
    at its end: first what somebody put into ``given`` by hand, then what the interpreter has
    itself, last the packages installed where ``given`` comes from."""
    own = path[: len(path) - len(given)]
    libraries = [number for number, entry in enumerate(given) if _is_library(entry)]
    first = libraries[0] if libraries else 0
    installed = [entry for entry in given[first:] if not _is_library(entry)]
    return list(dict.fromkeys([*given[:first], *own, *installed]))


def _is_library(entry: str) -> bool:
    """Whether it belongs to some interpreter's standard library."""
    path = Path(entry)
    zipped = path.suffix == ".zip" and path.name.startswith("python")
    return zipped or path.name == "lib-dynload" or (path / "os.py").exists()


def environment() -> dict[str, str]:
    """Our environment without secrets, in which a child finds this very package even if our own
    import path was set up by hand."""
    found = without_secrets(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    by_hand = {os.path.abspath(entry) for entry in sys.path} - set(site.getsitepackages())
    if root in by_hand:
        old = found.get("PYTHONPATH")
        found["PYTHONPATH"] = os.pathsep.join([root, old] if old else [root])
    return found


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """A copy of it."""
    return {name: value for name, value in environ.items() if name not in SECRETS}


def holds_secrets() -> bool:
    """Whether our environment has one: then a process forked from us could read it in /proc, even
    after it was taken out there."""
    return any(name in os.environ for name in SECRETS)


def forget_secrets() -> None:
    """Take them out of this process's environment, and out of that of whatever it starts."""
    for name in SECRETS:
        os.environ.pop(name, None)
