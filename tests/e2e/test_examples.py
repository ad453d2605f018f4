"""Every example runs, as its own process, and its answer is right."""

from __future__ import annotations

import json
import math
import os
import re
import struct
import subprocess
import symtable
import sys
import sysconfig
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
HELPERS = {"survey_chart.py"}
"""Files that examples import; not programs."""


def run(example: str, *arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The finished example; fails the test with its stderr when it did not end well."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / example, *arguments],
        env={**os.environ, **env}, cwd=cwd, check=False, capture_output=True,
        text=True, timeout=55,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def defined(source: str) -> int:
    """How many functions ``source`` defines, by Python's own symbol tables."""
    found = 0
    todo = [symtable.symtable(source, "source", "exec")]
    while todo:
        table = todo.pop()
        todo += table.get_children()
        unnamed = table.get_name() in {"lambda", "genexpr", "listcomp", "setcomp", "dictcomp"}
        found += table.get_type() == "function" and not unnamed
    return found


def test_no_example_is_forgotten() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    programs = {path.name for path in EXAMPLES.glob("*.py")} - HELPERS
    assert {name for name in programs if f'run("{name}"' not in here} == set()


def test_survey_counts_what_python_counts(tmp_path: Path) -> None:
    chart = tmp_path / "chart.svg"
    done = run("survey.py", "--packages", "json,email,ast", "--json", "--chart", str(chart),
               cwd=tmp_path)  # fmt: skip
    report = json.loads(done.stdout)
    assert set(report["packages"]) == {"json", "email", "ast"}
    root = Path(sysconfig.get_path("stdlib"))
    files = [root / "ast.py", *(root / "json").rglob("*.py"), *(root / "email").rglob("*.py")]
    assert report["total"]["files"] == len(files)
    assert report["total"]["bytes"] == sum(path.stat().st_size for path in files)
    expected = sum(defined(path.read_text("utf-8")) for path in (root / "json").rglob("*.py"))
    assert report["packages"]["json"]["functions"] == expected > 20
    assert ET.parse(chart).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert str(chart) in done.stderr


def test_survey_prints_a_table(tmp_path: Path) -> None:
    done = run("survey.py", "--packages", "asyncio", "--top", "3", cwd=tmp_path, COLUMNS="120")
    assert "asyncio" in done.stdout
    assert re.search(r"MB on \d+ CPUs in", done.stdout)


@pytest.mark.needs("module:sklearn", "module:joblib")
def test_grid_search_finds_what_it_finds_alone(tmp_path: Path) -> None:
    done = run("grid_search.py", "--check", cwd=tmp_path)
    assert "the same scores as in this process: yes" in done.stdout
    assert re.search(r"18 fits on \d+ CPUs", done.stdout)
    accuracy = re.search(r"accuracy on 360 unseen digits: ([\d.]+)%", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 97


@pytest.mark.needs("module:sklearn", "module:numpy")
@pytest.mark.parametrize("pace", [[], ["--free"]], ids=["lockstep", "free"])
def test_parameter_server_learns(pace: list[str], tmp_path: Path) -> None:
    done = run("parameter_server.py", "--workers", "2", "--rounds", "150", *pace, cwd=tmp_path)
    accuracy = re.search(r"accuracy on 360 unseen digits: ([\d.]+)%", done.stdout)
    assert accuracy, done.stdout
    assert float(accuracy[1]) > 90


def test_async_actor(tmp_path: Path) -> None:
    done = run("async_actor.py", "--readers", "50", cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0] == "50 calls wait inside one actor"
    assert lines[1].startswith("50 of them answered by tasks in ")
    assert lines[2:] == ["1 waits in vain", "cancelled: TaskCancelled", "0 still wait"]


def test_streaming(tmp_path: Path) -> None:
    done = run("streaming.py", "--tolerance", "0.01", cwd=tmp_path)
    answer = re.search(r"^pi = ([\d.]+) \+- 0.01 after ([\d,]+) darts$", done.stdout, re.MULTILINE)
    assert answer, done.stdout
    assert abs(float(answer[1]) - math.pi) < 0.02
    assert int(answer[2].replace(",", "")) >= 100_000


@pytest.mark.needs("povray")
def test_tiles_make_one_picture(tmp_path: Path) -> None:
    out = tmp_path / "picture.png"
    run("tiles.py", "--width", "64", "--height", "50", "--bands", "3", "--out", str(out),
        cwd=tmp_path)  # fmt: skip
    data = out.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (64, 50)
    (length,) = struct.unpack(">I", data[33:37])
    rows = zlib.decompress(data[41 : 41 + length])
    assert len(rows) == 50 * (1 + 3 * 64)
    dark = [row for row in range(50) if max(rows[row * 193 + 1 : (row + 1) * 193]) < 40]
    assert dark == [], "rows that no band rendered"


def test_tiles_without_povray_says_what_to_install(tmp_path: Path) -> None:
    done = run("tiles.py", cwd=tmp_path, PATH=str(tmp_path))
    assert "apt-get install povray" in done.stdout


@pytest.mark.needs("povray")
def test_an_animation_of_the_machine_s_own_program(tmp_path: Path) -> None:
    """In other runtimes: ``test_enclosed.py``."""
    words = ["--frames", "3", "--width", "16", "--height", "12", "--runtimes", "native"]
    done = run("animation.py", *words, "--out", "out.png", cwd=tmp_path)
    assert "native   3 frames" in done.stdout
    data = (tmp_path / "out.png").read_bytes()
    assert (data[:8], data.count(b"fcTL"), data.count(b"fdAT")) == (b"\x89PNG\r\n\x1a\n", 3, 2)


def test_embedded_actor_kit(tmp_path: Path) -> None:
    done = run("embed_actor_kit.py", cwd=tmp_path)
    assert done.stdout


def test_priorities_show_who_stood_still(tmp_path: Path) -> None:
    done = run("priorities.py", "--seconds", "4", cwd=tmp_path)
    rows = {line[:9].strip(): line for line in done.stdout.splitlines() if "|" in line}
    assert len(rows) == 11
    assert any("#." in row and ".#" in row for name, row in rows.items() if "render" in name)
    assert "alarm" in rows and "." not in rows["alarm"].partition("|")[2]
    table = [line.split() for line in done.stdout.splitlines() if "ms" in line]
    waits = {" ".join(words[:-7]): float(words[-6]) for words in table}
    urgent = [wait for name, wait in waits.items() if "urgent" in name]
    assert len(urgent) == 6 and max(urgent) < 2000, waits
