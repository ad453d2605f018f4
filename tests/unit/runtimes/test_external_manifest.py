"""Manifests of drivers: what is found, and what is refused with the name of its file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from guactors.errors import UsageError
from guactors.runtimes.external.manifest import BUILT_IN, MOST, find_drivers, read_driver, runs_on

EXAMPLE = Path(__file__).parents[3] / "examples" / "driver" / "machine.gu-driver.json"
GOOD: dict[str, Any] = {
    "format": "guactors.driver/1",
    "name": "mine",
    "version": "1.0",
    "protocol": 1,
    "command": ["./run"],
    "capabilities": ["host", "pause"],
    "platforms": ["any"],
}


def write(path: Path, **fields: Any) -> Path:
    left_out = [name for name, value in fields.items() if value is None]
    found = {name: value for name, value in (GOOD | fields).items() if name not in left_out}
    path.write_text(json.dumps(found))
    return path


def test_the_example_is_one() -> None:
    found = read_driver(EXAMPLE)
    assert (found.name, found.manifest.command) == ("machine", ["python3", "machine.py"])


def test_what_is_left_out_has_a_value(tmp_path: Path) -> None:
    found = read_driver(write(tmp_path / "a.gu-driver.json"))
    assert (found.manifest.limits, found.manifest.image) == ("host", "")
    assert found.deadline("hello") == 10.0
    found = read_driver(write(tmp_path / "a.gu-driver.json", deadlines={"hello": 1.5}))
    assert found.deadline("hello") == 1.5


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"colour": "red"}, "colour"),
        ({"format": "guactors.driver/2"}, "guactors.driver/2"),
        ({"name": None}, "name"),
        ({"name": "My Driver"}, "small letters"),
        ({"name": "a" * 33}, "at most 32"),
        ({"name": "../x"}, "small letters"),
        ({"version": ""}, "version"),
        ({"protocol": 2}, "speaks 1"),
        ({"protocol": "1"}, "protocol"),
        ({"command": []}, "command"),
        ({"command": "./run"}, "command"),
        ({"command": [""]}, "command"),
        ({"command": ["a\0b"]}, "zero byte"),
        ({"capabilities": ["host", "fly"]}, "nobody knows fly"),
        ({"capabilities": ["pause"]}, "can run nothing"),
        ({"capabilities": ["host", "host"]}, "twice"),
        ({"capabilities": ["host", "cpu", "memory"]}, "cpu, memory are the host's"),
        ({"capabilities": ["image"]}, "if and only if"),
        ({"image": "file"}, "if and only if"),
        ({"image": "zip"}, "image"),
        ({"platforms": []}, "platforms"),
        ({"limits": "nobody"}, "limits"),
        ({"deadlines": {"dance": 1}}, "no verb 'dance'"),
        ({"deadlines": {"exec": 0}}, "deadlines"),
        ({"deadlines": {"exec": 1e9}}, "deadlines"),
    ],
)
def test_what_is_refused(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    path = write(tmp_path / "bad.gu-driver.json", **fields)
    with pytest.raises(UsageError) as caught:
        read_driver(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_names_of_ours_are_taken(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is that of a runtime of guactors"):
        read_driver(write(tmp_path / "x.gu-driver.json", name=name))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 60000, b" " * (MOST + 1)])
def test_what_is_no_manifest_at_all(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.gu-driver.json"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"x\.gu-driver\.json"):
        read_driver(path)


def test_what_others_may_write_is_not_run(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gu-driver.json")
    path.chmod(0o666)
    with pytest.raises(UsageError, match="chmod o-w"):
        read_driver(path)


@pytest.mark.needs("posix")
def test_a_pipe_in_its_place_stops_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.gu-driver.json")
    with pytest.raises(UsageError, match="is no file"):
        read_driver(tmp_path / "x.gu-driver.json")


def test_drivers_are_found_and_bad_ones_do_not_hide_others(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for directory in (first, second):
        directory.mkdir()
    write(first / "a.gu-driver.json", name="a")
    write(first / "broken.gu-driver.json", name="B")
    write(first / "other.json", name="no")
    write(first / "t1.gu-driver.json", name="twin")
    write(first / "t2.gu-driver.json", name="twin")
    write(second / "a.gu-driver.json", name="a", version="2")
    write(second / "c.gu-driver.json", name="c")
    found = find_drivers([first, second, tmp_path / "missing"])
    assert sorted(found.drivers) == ["a", "c"]
    assert found.drivers["a"].manifest.version == "1.0"
    assert len(found.refused) == 2
    assert "broken.gu-driver.json" in found.refused[0]
    assert "t1.gu-driver.json and t2.gu-driver.json" in found.refused[1]


def test_platforms() -> None:
    assert runs_on(["any"])
    assert runs_on(["linux"], "linux", "x86_64")
    assert runs_on(["darwin", "linux-aarch64"], "linux", "aarch64")
    assert not runs_on(["linux-aarch64"], "linux", "x86_64")
    assert not runs_on(["win32"], "linux", "x86_64")
