"""The doctor's findings: true on this machine, and failing where something is wrong."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
import pytest

from guactors.cli import checks
from guactors.cli.checks import FAIL, OK, WARN
from guactors.grid_file import GridFile, grid_file_path
from guactors.home import write_private


def test_every_check_reports_and_says_what_to_do() -> None:
    findings = list(checks.examine())
    assert len(findings) == len(checks.CHECKS)
    assert len({finding.check for finding in findings}) == len(findings)
    for finding in findings:
        assert finding.state in {OK, WARN, FAIL}
        assert finding.found
        assert bool(finding.remedy) == (finding.state != OK), finding


def test_what_the_tests_need_works_here() -> None:
    assert checks.python().state == OK
    assert checks.zeromq().state == OK
    assert checks.sockets().state == OK


def test_a_home_that_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GU_HOME", str(tmp_path / "file"))
    found = checks.home_directory()
    assert found.state == FAIL
    assert "GU_HOME" in found.remedy


def test_a_temporary_directory_with_a_long_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    found = checks.sockets()
    assert found.state == FAIL
    assert "TMPDIR" in found.remedy


def test_a_wrong_address_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GU_ADDRESS", "http://example.org")
    assert checks.grid().state == FAIL


def test_a_recorded_grid_that_has_ended() -> None:
    assert checks.grid().state == OK
    grid = GridFile("gu://127.0.0.1:1?key=x", [], pid=os.getpid(), created=1.0, run_dir="")
    write_private(grid_file_path(), msgspec.json.encode(grid))
    found = checks.grid()
    assert found.state == FAIL
    assert "has ended" in found.found
