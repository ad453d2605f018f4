"""Programs written for Ray run here as they are, but for the line that imports it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "ray_programs"


@pytest.mark.parametrize("program", sorted(path.stem for path in PROGRAMS.glob("*.py")))
def test_a_program_runs(program: str, tmp_path: Path) -> None:
    path = PROGRAMS / f"{program}.py"
    done = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"
    # Nothing is told that a program did not say.
    assert done.stderr == ""


@pytest.mark.parametrize("program", sorted(path.stem for path in PROGRAMS.glob("*.py")))
def test_only_the_import_tells_which_library_it_is(program: str) -> None:
    lines = (PROGRAMS / f"{program}.py").read_text(encoding="utf-8").splitlines()
    assert lines.count("import guactors as ray") == 1
    assert not any("guactors" in line for line in lines if line != "import guactors as ray")
