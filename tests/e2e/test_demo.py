"""``scripts/demo`` from end to end, on a small part of the standard library."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

pytestmark = pytest.mark.needs("bash", "posix")


@pytest.fixture
def environment(run_root: Path) -> dict[str, str]:
    return {**os.environ, "GU_DEMO_VENV": sys.prefix, "TMPDIR": str(run_root)}


@pytest.mark.parametrize("script", ["demo", "check", "lib.sh", "../.ci/run"])
def test_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n", SCRIPTS / script], check=True)
    assert os.access(SCRIPTS / script, os.X_OK) == (script != "lib.sh")


def test_ci_runs_the_check_and_nothing_else() -> None:
    lines = (SCRIPTS.parent / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert len(commands) == 1
    assert commands[0].endswith('/../scripts/check"')


def test_the_demo_shows_a_result_and_leaves_only_the_chart(
    environment: dict[str, str], run_root: Path, tmp_path: Path
) -> None:
    chart = tmp_path / "chart.svg"
    done = subprocess.run(
        [SCRIPTS / "demo", "--packages", "json,email", "--chart", str(chart)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert chart.read_text().startswith("<svg")
    for expected in ("2 provider(s) are up", "email", str(chart), "is down"):
        assert expected in done.stdout
    assert not list(run_root.glob("demo-*"))


def test_the_demo_ends_its_grid_when_it_is_interrupted(
    environment: dict[str, str], run_root: Path, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [SCRIPTS / "demo", "--chart", str(tmp_path / "chart.svg")],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        assert any("are up" in line for line in demo.stdout)
        os.killpg(demo.pid, signal.SIGINT)
        out, _ = demo.communicate(timeout=40)
    assert demo.returncode == 130
    assert "is down" in out
    assert not list(run_root.glob("demo-*"))
