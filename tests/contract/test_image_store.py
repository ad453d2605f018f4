"""The image store among processes: whoever is killed at whatever moment leaves a store in which
each blob is whole, or can be resumed, and each image has its blobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from guactors.errors import ImageRefused
from guactors.images.manifest import CHUNK, Blob, image_id, parse_manifest, sign_image
from guactors.images.store import ImageStore
from tests.command import WITHIN, first_line
from tests.unit.images.making import blob_of, chunks, content, manifest_bytes, signer

DATA = content(2 * CHUNK + 5, "contract")
BLOB = blob_of(DATA)
MANIFEST = manifest_bytes(BLOB)
IMAGE = image_id(MANIFEST)
STEPS = ("fchmod", "fsync", "ftruncate", "mkdir", "pwrite", "replace", "rmdir", "unlink", "utime")
"""What changes a disk. Before the call, or in the middle of it, the process is killed."""
MOST_STEPS = 100


def open_store(root: Path) -> ImageStore:
    return ImageStore(root / "store", quota=2**30, now=time.time)


def killed_at(step: int, action: Callable[[], object]) -> bool:
    """Run the action in a child that is killed at that step; False when it ended before."""
    pid = os.fork()
    if not pid:
        try:
            count_down(step)
            action()
        except BaseException:  # noqa: BLE001  it must not go on as a second pytest
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the action itself failed, see stderr"
    return False


def count_down(steps: int) -> None:
    """Have this process killed at the call of that number."""
    guard = threading.Lock()

    def wrap(call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            nonlocal steps
            with guard:
                steps -= 1
                if steps == 0:
                    if name == "pwrite":
                        fd, data, offset = args
                        call(fd, data[: len(data) // 2], offset)
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return wrapped

    for name in STEPS:
        setattr(os, name, wrap(getattr(os, name), name))


def prepared(root: Path, *done: str) -> ImageStore:
    """A store in which these things were done before."""
    store = open_store(root)
    if "blob" in done:
        store.ingest([DATA])
    if "image" in done:
        store.add_image(MANIFEST)
    if "name" in done:
        store.set_name("py", IMAGE)
    return store


def ingest_known(store: ImageStore) -> None:
    store.ingest([DATA], expect=BLOB)


def ingest_unknown(store: ImageStore) -> None:
    store.ingest([DATA])


def write_chunks(store: ImageStore) -> None:
    with store.open_partial(BLOB) as partial:
        for index in (2, 0, 1):
            partial.write(index, chunks(DATA)[index])
        partial.seal()


def add(store: ImageStore) -> None:
    store.add_image(MANIFEST, sign_image(signer(1), MANIFEST))


def sign(store: ImageStore) -> None:
    store.add_signature(IMAGE, sign_image(signer(1), MANIFEST))


def name(store: ImageStore) -> None:
    store.set_name("other", IMAGE)


def use(store: ImageStore) -> None:
    with store.pin(IMAGE), store.open_blob(IMAGE, "rootfs") as file:
        file.read(10)


def remove(store: ImageStore) -> None:
    store.remove(IMAGE)


def check(root: Path) -> None:
    """What must hold for whoever comes next."""
    store = open_store(root)
    for image in store.list():
        assert image.id == IMAGE
        with store.open_blob(IMAGE, "rootfs", paranoid=True) as file:
            assert file.read() == DATA
    for path in (root / "store" / "blobs").rglob("*"):
        if path.is_file() and len(path.name) == 64:
            assert path.read_bytes() == DATA, "a blob that is not whole"
    with store.open_partial(BLOB) as partial:
        for index in partial.missing():
            partial.write(index, chunks(DATA)[index])
        partial.seal()
    sign_all = sign_image(signer(1), MANIFEST)
    assert store.add_image(MANIFEST, sign_all) == IMAGE
    assert store.get(IMAGE).signers == {signer(1).public.text}
    store.set_name("py", IMAGE)
    assert store.resolve("py") == IMAGE
    store.remove(IMAGE)
    store.collect(stale=-60)
    assert store.storage_used() == 0
    assert sorted(path.name for path in (root / "store").iterdir()) == [
        "blobs", "images", "lock", "partial", "pins", "quarantine",
    ]  # fmt: skip
    for room in ("images", "partial", "pins", "quarantine"):
        assert list((root / "store" / room).iterdir()) == []


@pytest.mark.needs("fork")
@pytest.mark.parametrize(
    ("action", "done"),
    [
        (ingest_known, ()),
        (ingest_unknown, ()),
        (write_chunks, ()),
        (ingest_unknown, ("blob",)),
        (add, ("blob",)),
        (sign, ("blob", "image")),
        (name, ("blob", "image", "name")),
        (use, ("blob", "image")),
        (remove, ("blob", "image")),
    ],
)
def test_killed_at_every_step(
    tmp_path: Path, action: Callable[[ImageStore], None], done: tuple[str, ...]
) -> None:
    for step in range(1, MOST_STEPS):
        root = tmp_path / str(step)
        root.mkdir()
        prepared(root, *done)
        killed = killed_at(step, lambda root=root: action(open_store(root)))  # type: ignore[misc]
        check(root)
        if not killed:
            assert step > 2, "no step was seen"
            return
    pytest.fail(f"more than {MOST_STEPS} steps")


@contextmanager
def child(root: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the code with ``store``, ``DATA``, ``BLOB`` and ``say``."""
    start = (
        "import time\n"
        "from pathlib import Path\n"
        "from tests.contract.test_image_store import *\n"
        f"store = open_store(Path({str(root)!r}))\n"
        "def say(text): print(text, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


SLOWLY = """
def stream():
    yield DATA[:CHUNK]
    yield DATA[CHUNK:2 * CHUNK]
    say("two chunks were read")
    time.sleep(60)
"""


def test_a_killed_transfer_is_resumed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with child(tmp_path, SLOWLY + "store.ingest(stream(), expect=BLOB)") as process:
        assert first_line(process) == "two chunks were read"
        with pytest.raises(ImageRefused, match="being written by another"):
            store.open_partial(BLOB)
        assert store.collect(stale=-60) == 0, "it is being written"
        path = tmp_path / "store" / "partial" / BLOB.sha3_256
        wait_for(lambda: path.read_bytes()[: 2 * CHUNK] == DATA[: 2 * CHUNK])
        process.kill()
        process.wait(WITHIN)
    with store.open_partial(BLOB) as partial:
        assert partial.missing() == [2]
        partial.write(2, DATA[2 * CHUNK :])
        partial.seal()
    store.add_image(MANIFEST)


def test_what_a_killed_stream_without_a_name_left_is_removed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with child(tmp_path, SLOWLY + "store.ingest(stream())") as process:
        first_line(process)
        store.collect()
        assert store.storage_used() > 2 * CHUNK, "it is being written"
        process.kill()
        process.wait(WITHIN)
    store.collect()
    assert store.storage_used() == 0


def test_a_pin_lasts_as_long_as_its_process(tmp_path: Path) -> None:
    store = prepared(tmp_path, "blob", "image")
    with child(tmp_path, "pin = store.pin(IMAGE); say('pinned'); time.sleep(60)") as process:
        assert first_line(process) == "pinned"
        with pytest.raises(ImageRefused, match="in use"):
            store.remove(IMAGE)
        process.kill()
        process.wait(WITHIN)
    store.remove(IMAGE)
    assert not store.has(IMAGE)


@pytest.mark.parametrize("how", ["expect=BLOB", ""])
def test_two_processes_ingest_the_same(tmp_path: Path, how: str) -> None:
    code = f"""
say("ready")
input()
for _ in range(5):
    try:
        store.ingest([DATA], {how})
    except ImageRefused as fault:
        assert "being written by another" in str(fault), fault
say("done")
"""
    with child(tmp_path, code) as one, child(tmp_path, code) as two:
        for process in (one, two):
            assert first_line(process) == "ready"
        for process in (one, two):
            assert process.stdin is not None
            print(file=process.stdin, flush=True)
        for process in (one, two):
            assert first_line(process) == "done"
    store = open_store(tmp_path)
    assert store.missing_blobs(parse_manifest(MANIFEST)) == []
    store.add_image(MANIFEST)
    with store.open_blob(IMAGE, "rootfs", paranoid=True) as file:
        assert file.read() == DATA


def test_a_descriptor_outlives_its_image(tmp_path: Path) -> None:
    store = prepared(tmp_path, "blob", "image")
    with store.open_blob(IMAGE, "rootfs") as file:
        store.remove(IMAGE)
        assert file.read() == DATA


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_blob_is_as_in_this_process() -> None:
    """The children import this module: what it makes must not depend on the process."""
    assert isinstance(BLOB, Blob)
    assert blob_of(content(2 * CHUNK + 5, "contract")) == BLOB
