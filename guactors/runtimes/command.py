"""How another Python of the same kind is started.

Owns: the interpreter's arguments and environment. Must never: start anything.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path


def python_module(module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module``. ``-P`` keeps the working directory, where anything
    may be called ``zmq.py``, out of the import path of our own processes."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """Our environment, in which a child finds this very package even if our own import path was
    set up by hand."""
    found = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    by_hand = {os.path.abspath(entry) for entry in sys.path} - set(site.getsitepackages())
    if root in by_hand:
        old = found.get("PYTHONPATH")
        found["PYTHONPATH"] = os.pathsep.join([root, old] if old else [root])
    return found
