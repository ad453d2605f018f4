"""Builds of a real provider process: one that is killed leaves nothing that is used later, one that
stops leaves nothing at all."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from guactors import home
from guactors.messages import EnvWord, LeaseStarted, StartLease, StopLease, WorkerBlocked
from guactors.runtime_env.description import Description, Packages, encode
from tests.integration.scripted_hub import Hub, Provider, eventually, gone, lease

WITHIN = 30.0


@pytest.fixture
def place() -> Iterator[Path]:
    path = home.new_run_dir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def hub(place: Path) -> Iterator[Hub]:
    made = Hub(place)
    yield made
    made.close()


def project(directory: Path) -> Path:
    """A source package, whose wheel waits for ``go`` and says ``began``."""
    place = directory / "gt_waits"
    place.mkdir()
    (place / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    (place / "backend.py").write_text(
        f"""
import os, time, zipfile
def build_wheel(where, *_more, **_words):
    open({str(directory / "began")!r}, "w").close()
    while not os.path.exists({str(directory / "go")!r}): time.sleep(0.01)
    name = "gt_waits-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(where, name), "w") as out:
        info = "gt_waits-1.0.dist-info"
        out.writestr("gt_waits.py", "")
        about = ["Metadata-Version: 2.1", "Name: gt_waits", "Version: 1.0", ""]
        out.writestr(info + "/METADATA", "\\n".join(about))
        about = ["Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any", ""]
        out.writestr(info + "/WHEEL", "\\n".join(about))
        out.writestr(info + "/RECORD", "")
    return name
"""
    )
    return place


def there(hub: Hub, path: Path) -> bool:
    """Whether it is there; the hub answers meanwhile, or the provider would take it for lost."""
    hub.pump()
    return path.exists()


def order(name: str, project: Path) -> StartLease:
    packages = Packages([str(project)], ["--no-index", "--no-build-isolation"])
    plain = lease(name)
    word = EnvWord(encode(Description(pip=packages)))
    return replace(plain, shape=replace(plain.shape, env=word))


@pytest.mark.needs("fork")
def test_a_provider_killed_in_a_build(place: Path, hub: Hub, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    waits = project(tmp_path)
    first = Provider(place, hub, data=str(data))
    try:
        first.report()
        hub.send(order("l-1", waits))
        hub.expect(WorkerBlocked)
        eventually(lambda: there(hub, tmp_path / "began"), WITHIN, "the build began")
        processes = first.tree()
        (half,) = (data / "envs").glob("env-*")
        os.kill(first.process.pid, signal.SIGKILL)
        eventually(lambda: gone(processes), 10, "nobody goes on building")
    finally:
        first.close()
    assert half.exists()
    (tmp_path / "began").unlink()
    other = home.new_run_dir()
    hub = Hub(other)
    second = Provider(other, hub, data=str(data))
    try:
        second.report()
        hub.send(order("l-2", waits))
        eventually(lambda: there(hub, tmp_path / "began"), WITHIN, "it is built anew")
        assert not half.exists()
        (tmp_path / "go").touch()
        assert hub.expect(LeaseStarted, within=WITHIN).lease == "l-2"
        (tmp_path / "began").unlink()
        hub.send(order("l-3", waits))
        assert hub.expect(LeaseStarted, within=WITHIN).lease == "l-3"
        assert not (tmp_path / "began").exists()
        hub.send(StopLease("l-2", True))
    finally:
        second.close()
        hub.close()
        shutil.rmtree(other)
    assert list((data / "envs").glob("env-*")) == []


@pytest.mark.needs("fork")
def test_a_provider_stopped_in_a_build(place: Path, hub: Hub, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    provider = Provider(place, hub, data=str(data))
    try:
        provider.report()
        hub.send(order("l-1", project(tmp_path)))
        eventually(lambda: there(hub, tmp_path / "began"), WITHIN, "the build began")
        processes = provider.tree()
        began = time.monotonic()
    finally:
        provider.close()
    assert time.monotonic() - began < 8
    eventually(lambda: gone(processes), 5, "nobody goes on building")
    assert list((data / "envs").glob("env-*")) == []
