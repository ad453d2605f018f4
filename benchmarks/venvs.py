"""The virtual environments of the peers, under ``build/peers``; never ours.

Owns: making one, once for a list of requirements, and saying what is in it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks.children import ROOT

PEERS = ROOT / "build" / "peers"
LIST_VERSIONS = (
    "import json; from importlib.metadata import distributions; "
    "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in distributions()}))"
)


class NotInstalled(Exception):
    """An environment is missing and was not to be made, or could not be made."""


def python_of(name: str, requirements: Sequence[str], *, install: bool = True) -> str:
    """The interpreter of environment ``name``, in which ``requirements`` are installed. With
    ``install=False`` it must be there. Raises NotInstalled."""
    venv = PEERS / name
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = venv / "requirements.json"
    if done.is_file() and json.loads(done.read_text()) == list(requirements):
        return str(python)
    if not install:
        raise NotInstalled(f"{venv} has not {', '.join(requirements)}; run without --skip-install")
    print(f"installing {', '.join(requirements)} into {venv}", file=sys.stderr)
    shutil.rmtree(venv, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [str(python), "-m", "pip", "install", "--quiet", *requirements],
    ):
        ran = subprocess.run(command, stdout=sys.stderr, check=False)
        if ran.returncode:
            raise NotInstalled(f"{' '.join(command)} ended with {ran.returncode}")
    done.write_text(json.dumps(list(requirements)))
    return str(python)


def versions(python: str, names: Sequence[str]) -> Mapping[str, str]:
    """The installed versions of ``names`` in the environment of an interpreter."""
    ran = subprocess.run([python, "-c", LIST_VERSIONS], capture_output=True, check=True, text=True)
    found = json.loads(ran.stdout)
    return {name: found[name.lower()] for name in names if name.lower() in found}
