"""What an installation takes on the disk: the core and everything it depends on.

Owns: the row ``install``: ``pip install`` of this source into a fresh virtual environment, without
what the environment itself brings. :func:`closure` counts the same in the present environment, and
needs no network.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from benchmarks.children import ROOT

TOOLS = re.compile(r"^(pip|setuptools|wheel|pkg_resources|_distutils_hack|distutils-precedence)\b")
SOURCE = ("guactors", "pyproject.toml", "README.md", "LICENSE")


def installed() -> dict[str, float]:
    """MB on the disk of a fresh installation."""
    with tempfile.TemporaryDirectory(prefix="gu-install-") as directory:
        source, venv = Path(directory, "source"), Path(directory, "venv")
        source.mkdir()
        for name in SOURCE:
            # A copy: building in place would leave its traces in the repository.
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name)
            else:
                shutil.copy(ROOT / name, source / name)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run(
            [venv / "bin" / "python", "-m", "pip", "install", "--quiet", source], check=True
        )
        paths = sysconfig.get_paths(vars={"base": str(venv), "platbase": str(venv)})
        found = {
            name: on_disk(entry.rglob("*") if entry.is_dir() else [entry])
            for entry in Path(paths["purelib"]).iterdir()
            if not TOOLS.match(name := entry.name)
        }
    return {"install": sum(found.values()) / 1e6}


def closure(name: str = "guactors") -> dict[str, float]:
    """MB on the disk by distribution: ``name`` and all it needs here, without extras. The files of
    an editable installation are those of its package."""
    found: dict[str, float] = {}
    todo = [name]
    while todo:
        one = metadata.distribution(todo.pop())
        key = one.name.lower().replace("_", "-")
        if key in found:
            continue
        files = [Path(str(one.locate_file(file))) for file in one.files or []]
        if key == "guactors":
            files += (ROOT / "guactors").rglob("*")
        found[key] = on_disk(files) / 1e6
        todo += [needed for line in one.requires or [] if (needed := _needed(line))]
    return found


def _needed(requirement: str) -> str:
    """The name in a requirement that holds here, else "". Markers of extras and of other platforms
    are recognised by what is installed: what is not there is not needed."""
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    if "extra ==" in requirement:
        return ""
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return ""
    return name


def on_disk(files: Iterable[Path]) -> int:
    """Bytes of blocks, as ``du`` counts them; each file once."""
    seen: dict[tuple[int, int], int] = {}
    for file in files:
        if file.is_file():
            about = file.stat()
            seen[about.st_dev, about.st_ino] = about.st_blocks * 512
    return sum(seen.values())
