"""Paths, modes and keys on this machine (``home.py``)."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from guactors import home
from guactors.config import Identity
from guactors.errors import UsageError

IDENTITY = Identity("member public", "member secret", "server public", "server secret")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_home_is_where_the_environment_says_and_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GU_HOME", str(tmp_path / "a" / "b"))
    assert home.home() == tmp_path / "a" / "b"
    assert mode(home.home()) == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="the default of Linux")
def test_the_default_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GU_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert home.home() == tmp_path / "guactors"


def test_an_open_directory_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    assert mode(home.private_directory(tmp_path / "open")) == 0o700


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file is needed as a directory"):
        home.private_directory(tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX owners")
def test_somebody_elses_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(UsageError, match="belongs to another user"):
        home.private_directory(tmp_path)


def test_run_directories_are_short_private_and_distinct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    found = [home.new_run_dir(), home.new_run_dir()]
    assert found[0] != found[1]
    for path in found:
        assert mode(path) == 0o700
        assert len(str(path)) < 30
        path.rmdir()


def test_the_host_id_is_stable_and_not_empty() -> None:
    assert home.host_id() == home.host_id() != ""


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="target"):
        home.write_private(tmp_path / "target", b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
