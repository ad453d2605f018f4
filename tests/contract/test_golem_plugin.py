"""Plugins of Golem Unlimited as runtimes, by the driver of the examples; and how images come to a
driver."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guactors.errors import ImageRefused, RuntimeMissing, UsageError
from guactors.images.build import build_image
from guactors.images.store import ImageStore
from guactors.runtimes.base import Command, Exit
from guactors.runtimes.external.driver import ExternalRuntime
from guactors.runtimes.external.manifest import read_driver
from tests.contract.runtime_bench import Bench, finish, output

pytestmark = pytest.mark.needs("posix", "sh", "tar")
SHIM = Path(__file__).parents[2] / "examples" / "driver" / "golem_plugin.py"
PLUGIN = Path(__file__).parent / "drivers" / "hd.gu-plugin"
GREET = '#!/bin/sh\necho "hello $1"; echo "$MOOD" >&2; exit 4\n'


def described(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SHIM), *words], capture_output=True, text=True, check=False
    )


@pytest.fixture(params=["file", "directory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    manifest = json.loads(described("--manifest", str(PLUGIN)).stdout)
    path = tmp_path / "hd.gu-driver.json"
    path.write_text(json.dumps(manifest | {"image": request.param}))
    store = ImageStore(tmp_path / "store", quota=1 << 30, now=time.time)
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    for name, script in (("greet", GREET), ("wait", '#!/bin/sh\nexec sleep "$1"\n')):
        (root / "bin" / name).write_text(script)
        (root / "bin" / name).chmod(0o755)
    image = build_image(root, store, name="greeter", media="tar")
    made = Bench(ExternalRuntime(read_driver(path), lambda: store), tmp_path, image)
    yield made
    made.close()


def test_its_manifest_is_one(tmp_path: Path) -> None:
    path = tmp_path / "hd.gu-driver.json"
    path.write_text(described("--manifest", str(PLUGIN)).stdout)
    found = read_driver(path).manifest
    assert (found.name, found.version, found.platforms) == ("hd", "0.3.1", ["linux"])


def test_what_is_no_plugin(tmp_path: Path) -> None:
    found = described("--manifest", str(tmp_path))
    assert found.returncode == 1
    assert "gu-plugin.json" in found.stderr


def test_programs_of_an_image(bench: Bench) -> None:
    assert bench.runtime.probe().version == "0.3.1"
    instance = bench.started(env={"MOOD": "fine"})
    found = finish(instance.exec(Command(("greet", "world"))))
    assert found == (b"hello world\n", b"fine\n", Exit(4))
    running = instance.exec(Command(("wait", "66.25")))
    instance.pause()
    instance.resume()
    running.signal(signal.SIGTERM)
    assert finish(running)[2].signal == signal.SIGTERM


def test_files_where_the_plugin_keeps_them(bench: Bench) -> None:
    instance = bench.started()
    instance.put("note", [b"text"])
    assert b"".join(instance.get("note")) == b"text"
    assert (Path(instance.spec.directory) / "work" / "files" / "note").read_text() == "text"
    for path in ("/etc/passwd", "../../../etc/passwd"):
        with pytest.raises(UsageError, match="leads out of the instance"):
            b"".join(instance.get(path))


def test_what_the_plugin_does_not_want(bench: Bench) -> None:
    with pytest.raises(UsageError, match="create: status 7: I will not"):
        bench.created(options={"mood": "refuse"})
    with pytest.raises(UsageError, match="leave cwd out"):
        bench.started().exec(Command(("greet",), cwd="x"))
    with pytest.raises(UsageError, match="capability 'host'"):
        bench.runtime.create(bench.spec().__class__("i", "p", str(bench.directory)))


def test_an_image_that_it_cannot_read(tmp_path: Path) -> None:
    manifest = json.loads(described("--manifest", str(PLUGIN)).stdout)
    path = tmp_path / "hd.gu-driver.json"
    path.write_text(json.dumps(manifest))
    store = ImageStore(tmp_path / "store", quota=1 << 30, now=time.time)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("x" * 10000)
    blob = store.ingest([b"this is no archive at all" * 100], role="rootfs", media="tar")
    from guactors.images.build import add_rootfs

    image = add_rootfs(store, blob, name="broken")
    bench = Bench(ExternalRuntime(read_driver(path), lambda: store), tmp_path, image)
    with pytest.raises(ImageRefused, match="validate-image: status 1: no archive"):
        bench.created()
    without = Bench(ExternalRuntime(read_driver(path)), tmp_path, image)
    with pytest.raises(RuntimeMissing, match="no store of images"):
        without.created()
    bench.close()
    without.close()


def test_one_that_ends_waits_for_nobody(bench: Bench) -> None:
    instance = bench.started()
    running = instance.exec(Command(("greet", "you")))
    assert output(running) in {b"hello you\n", b"\n"}
    instance.stop(grace=5)
    assert isinstance(running.read(0), Exit)
