"""Images in the hands of a daemon: what is sent, what is refused, and what becomes of it later."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guactors.errors import ImageRefused, UsageError
from guactors.images.build import add_rootfs, build_image
from guactors.images.exporting import docker_archive
from guactors.images.manifest import Config
from guactors.images.store import ImageStore
from guactors.runtimes.base import Command
from guactors.runtimes.docker import notes as docker_notes
from guactors.runtimes.docker.client import Client, DaemonRefused
from guactors.runtimes.docker.images import Images, Loaded, load_archive
from guactors.runtimes.instance import Instance
from tests.contract.docker_daemon import busybox_root
from tests.contract.runtime_bench import Bench, docker, finish, outcome

pytestmark = pytest.mark.needs("dockerd", "busybox")
Busybox = tuple[ImageStore, str]


@pytest.fixture
def bench(docker_socket: str, busybox: Busybox, tmp_path: Path) -> Iterator[Bench]:
    made = docker(tmp_path, docker_socket, busybox)
    yield made
    made.close()


def test_an_image_is_sent_once(
    bench: Bench, gu_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.created().close()
    sent: list[str] = []
    really = Client.upload

    def upload(self: Client, method: str, path: str, *words: object, **more: object) -> object:
        sent.append(path)
        return really(self, method, path, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "upload", upload)
    bench.created().close()
    for note in (gu_home / "docker").iterdir():
        note.unlink()
    bench.created().close()
    assert sent == []


def small_images(store: ImageStore, tmp_path: Path, count: int) -> list[str]:
    """Each of 200 kB that nobody else has, with a shell."""
    found = []
    for number in range(count):
        root = busybox_root(tmp_path / f"root-{number}")
        (root / "own").write_bytes(os.urandom(200_000))
        found.append(build_image(root, store, name=f"n{number}", media="tar"))
    return found


def notes(gu_home: Path) -> dict[str, str]:
    """The daemon's ids of what is noted, by image."""
    read = (json.loads(path.read_text()) for path in (gu_home / "docker").iterdir())
    return {one["image"]: one["id"] for one in read}


def daemon_has(bench: Bench, known: str) -> bool:
    try:
        bench.runtime.client().call("GET", f"/images/{known}/json")  # type: ignore[attr-defined]
    except DaemonRefused as refused:
        if refused.status != 404:
            raise
        return False
    return True


def test_images_that_nobody_used_for_longest_go(
    docker_socket: str, tmp_path: Path, gu_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of which a container is made, and not those to which somebody gave a name."""
    store = ImageStore(tmp_path / "store", quota=2**30, now=time.time)
    images = small_images(store, tmp_path, 6)
    bench = docker(tmp_path, docker_socket, (store, ""))
    monkeypatch.setattr(docker_notes, "MOST_IMAGES", 2)
    ids = {}

    def use(number: int) -> Instance:
        bench.image = images[number]
        made = bench.created()
        ids.update(notes(gu_home))
        return made

    in_use = use(0)
    use(1).close()
    use(2).close()
    named = {"repo": "somebodys", "tag": "own"}
    client = bench.runtime.client()  # type: ignore[attr-defined]
    client.call("POST", f"/images/{ids[images[2]]}/tag", query=named)
    use(3).close()
    use(1).close()
    use(4).close()
    there = [daemon_has(bench, ids[one]) for one in images[:5]]
    assert there == [True, True, True, False, True]
    assert set(notes(gu_home)) == {images[number] for number in (0, 1, 2, 4)}
    in_use.close()
    store.remove(images[1])
    store.remove(images[2])
    use(5).close()
    there = [daemon_has(bench, ids[one]) for one in images]
    assert there == [False, False, True, False, True, True]
    assert set(notes(gu_home)) == {images[4], images[5]}
    monkeypatch.setattr(docker_notes, "MOST_BYTES", 0)
    use(3).close()
    assert set(notes(gu_home)) == {images[3]}
    for known in (ids[images[2]], ids[images[3]]):
        client.call("DELETE", f"/images/{known}", query={"force": "1"})
    bench.close()


def test_notes_of_what_is_no_more(
    bench: Bench, busybox: Busybox, gu_home: Path, tmp_path: Path
) -> None:
    """Of images that the daemon has lost, of daemons that nobody asks, of writers that died."""
    bench.created().close()
    (mine,) = (gu_home / "docker").iterdir()
    known = notes(gu_home)[bench.image]
    socket_path = json.loads(mine.read_text())["daemon"]
    long_ago = time.time() - 100 * 86400

    def write(name: str, text: str, at: float) -> None:
        (gu_home / "docker" / name).write_text(text)
        os.utime(gu_home / "docker" / name, (at, at))

    lost = {"image": "x", "daemon": socket_path, "id": "sha256:" + "0" * 64}
    elsewhere = lost | {"daemon": "/elsewhere"}
    write("lost", json.dumps(lost), time.time())
    write("elsewhere", json.dumps(elsewhere), time.time())
    write("long-ago", json.dumps(elsewhere), long_ago)
    write(".half-written", "{", time.time())
    write(".half", "{", long_ago)
    store, _ = busybox
    bench.image = small_images(store, tmp_path, 1)[0]
    bench.created().close()
    left = {path.name for path in (gu_home / "docker").iterdir()}
    assert {mine.name, "elsewhere", ".half-written"} < left
    assert len(left) == 4
    assert daemon_has(bench, known)


def test_an_image_that_goes_just_then(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes it for too old, between the look and the use."""
    really, looks = Images.load, []

    def load(self: Images, image: str) -> Loaded:
        found = really(self, image)
        if not looks:
            self._client.call("DELETE", f"/images/{found.id}", query={"force": "1"})
        looks.append(image)
        return found

    monkeypatch.setattr(Images, "load", load)
    assert outcome(bench.started(), "echo ok")[0] == b"ok\n"
    assert len(looks) == 2


def test_an_image_for_another_machine(docker_socket: str, busybox: Busybox, tmp_path: Path) -> None:
    store, _ = busybox
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_text("x")
    alien = build_image(root, store, name="alien", media="tar", arch="riscv64")
    bench = docker(tmp_path, docker_socket, (store, alien))
    with pytest.raises(ImageRefused, match="riscv64"):
        bench.created()
    bench.close()


@pytest.mark.parametrize("media", ["tar", "tar+gzip"])
def test_a_root_that_is_damaged(
    media: str, docker_socket: str, busybox: Busybox, tmp_path: Path
) -> None:
    store, _ = busybox
    blob = store.ingest([b"no archive" * 100], role="rootfs", media=media)  # type: ignore[arg-type]
    bench = docker(tmp_path, docker_socket, (store, add_rootfs(store, blob, name="bad")))
    with pytest.raises(ImageRefused):
        bench.created()
    bench.close()


def test_the_daemon_compares_what_is_loaded(docker_socket: str, tmp_path: Path) -> None:
    """One byte of a layer changed on the way."""
    store = ImageStore(tmp_path / "store", quota=2**30, now=time.time)
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(os.urandom(50).hex().encode())
    image = build_image(root, store, name="x", media="tar")
    with docker_archive(store, image) as archive:
        data, known = archive.stream.read(), archive.id
    content = (root / "file").read_bytes()
    assert data.count(content) == 1
    client = Client(docker_socket)
    try:
        with pytest.raises(ImageRefused, match=r"diffID|Digest did not match"):
            load_archive(client, iter([data.replace(content, b"f" * len(content))]), "it")
        with pytest.raises(DaemonRefused, match="No such image"):
            client.call("GET", f"/images/{known}/json")
        load_archive(client, iter([data]), "it")
        assert client.call("GET", f"/images/{known}/json").data["Id"] == known
        client.call("DELETE", f"/images/{known}")
    finally:
        client.close()


def test_an_image_without_a_shell(docker_socket: str, tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store", quota=2**30, now=time.time)
    root = tmp_path / "root"
    (root / "own").mkdir(parents=True)
    (root / "own/cat").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "own/cat").chmod(0o755)
    config = Config(workdir="/own", user="1000:1001", env={"PATH": "/own", "A": "image"})
    image = build_image(root, store, name="bare", media="tar", config=config)
    bench = docker(tmp_path, docker_socket, (store, image))
    instance = bench.started(env={"B": "spec"})
    instance.put("deep/file", [b"content"])
    assert finish(instance.exec(Command(("cat", "deep/file"))))[0] == b"content"
    assert finish(instance.exec(Command(("cat", "/own/deep/file"))))[0] == b"content"
    assert b"Uid:\t1000\t1000" in finish(instance.exec(Command(("cat", "/proc/self/status"))))[0]
    env = finish(instance.exec(Command(("cat", "/proc/self/environ"), env={"C": "command"})))[0]
    assert {b"A=image", b"B=spec", b"C=command"} <= set(env.split(b"\0"))
    with pytest.raises(UsageError, match="leads out"):
        instance.put("../../x", [b""])
    bench.close()
