"""Images with the real squashfs-tools (``runtimes/tools.py``): made, read, bounded."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guactors.errors import ImageRefused, UsageError
from guactors.images.build import build_image
from guactors.images.exporting import docker_archive, oci_archive
from guactors.images.importing import import_image
from guactors.images.members import Limits
from guactors.images.store import ImageStore
from guactors.images.unpack import unpack_image
from guactors.runtimes import tools
from guactors.runtimes.tools import ToolLimits, squash, unsquashed
from tests.unit.images.archives import (
    Layout,
    file,
    folder,
    gvmi,
    hard,
    image_listing,
    link,
    listing,
    new_store,
    tar,
)

pytestmark = pytest.mark.needs("mksquashfs", "unsquashfs", "posix")

ROOT = tar(
    folder("etc", mtime=500),
    file("etc/passwd", b"app:x:77:78:::\n", uid=5, gid=6, mtime=1000),
    file('etc/a b"c\\d', b"odd"),
    file("etc/\udcff\udcfe", b"no text"),
    link("etc/l", "a b"),
    hard("etc/hard", "etc/passwd"),
    file("large", os.urandom(300_000) + bytes(200_000)),
    file("empty"),
    folder("tmp", 0o1777),
)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return new_store(tmp_path)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "root.tar").write_bytes(ROOT)
    return tmp_path / "root.tar"


def mksquashfs(source: Path, output: Path, *options: str) -> Path:
    command = ["mksquashfs", str(source), str(output), "-noappend", "-quiet", "-no-progress"]
    subprocess.run([*command, *options], check=True, capture_output=True, timeout=30)
    return output


def test_a_tree_goes_into_a_squashfs_and_comes_out_as_it_was(
    archive: Path, store: ImageStore, tmp_path: Path
) -> None:
    plain = import_image(archive, store, name="x", media="tar")
    packed = import_image(archive, store, name="x")
    assert store.get(packed).manifest.blobs[0].media == "squashfs"
    assert image_listing(store, packed) == image_listing(store, plain)
    for image, name in ((plain, "plain"), (packed, "packed")):
        unpack_image(store, image, tmp_path / name)
    assert listing(tmp_path / "packed") == listing(tmp_path / "plain")
    found = (tmp_path / "packed/etc/passwd").stat()
    assert (found.st_nlink, found.st_mtime) == (2, 1000)


def test_owners_survive_a_squashfs_without_root_rights(archive: Path, store: ImageStore) -> None:
    """unsquashfs alone would lose them for anybody but root."""
    packed = import_image(archive, store, name="x")
    plain = import_image(archive, store, name="x", media="tar")
    with docker_archive(store, packed) as one, docker_archive(store, plain) as other:
        layers = [_layer(found.stream.read()) for found in (one, other)]
    assert layers[0] == layers[1]


def _layer(data: bytes) -> bytes:
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        found = opened.extractfile("layer.tar")
        assert found is not None
        return found.read()


def test_the_same_directory_gives_the_same_squashfs(store: ImageStore, tmp_path: Path) -> None:
    ids = set()
    for name in ("one", "two"):
        source = tmp_path / name
        (source / "etc").mkdir(parents=True)
        (source / "etc/hostname").write_text("x")
        (source / "data").write_bytes(bytes(range(256)) * 2000)
        ids.add(build_image(source, store, name="x", media="squashfs"))
        # The time stands in a squashfs in whole seconds, in several places.
        until = int(time.time()) + 1
        while time.time() < until:
            time.sleep(0.05)
    assert len(ids) == 1


def test_the_number_of_processors_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for count in (1, 3):
        monkeypatch.setattr(tools, "_PROCESSORS", count)
        squash([ROOT], tmp_path / "x", "x", 1000)
        found.add((tmp_path / "x").read_bytes())
    assert len(found) == 1


def test_an_exported_squashfs_comes_back(archive: Path, store: ImageStore, tmp_path: Path) -> None:
    image = import_image(archive, store, name="x")
    with oci_archive(store, image) as stream:
        (tmp_path / "oci.tar").write_bytes(stream.read())
    again = import_image(tmp_path / "oci.tar", store, name="x")
    assert image_listing(store, again) == image_listing(store, image)
    assert store.get(again).manifest.blobs == store.get(image).manifest.blobs


def test_layers_become_a_squashfs(store: ImageStore, tmp_path: Path) -> None:
    made = Layout()
    made.image(tar(file("a"), file("b")), tar(file(".wh.a"), file("c")))
    (tmp_path / "oci.tar").write_bytes(made.tar())
    image = import_image(tmp_path / "oci.tar", store, name="x", media="squashfs")
    assert set(image_listing(store, image)) == {"b", "c"}


def test_an_empty_root(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    image = build_image(tmp_path / "empty", store, name="x", media="squashfs")
    unpack_image(store, image, tmp_path / "rootfs")
    assert list((tmp_path / "rootfs").iterdir()) == []


@pytest.mark.parametrize("codec", ["gzip", "lzo", "xz", "lz4", "zstd"])
def test_a_squashfs_of_others_is_read_whatever_its_compression(
    codec: str, store: ImageStore, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/f").write_bytes(b"content" * 1000)
    path = mksquashfs(tmp_path / "source", tmp_path / "x", "-comp", codec)
    with path.open("ab") as opened:
        opened.write(b"trailer")
    image = import_image(path, store, name="x")
    assert image_listing(store, image)["f"] == ("file", 0o644, b"content" * 1000)
    with store.open_blob(image, "rootfs") as blob:
        assert blob.read() == path.read_bytes()[: -len(b"trailer")]


def test_a_real_gvmi_and_its_user(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "source/etc").mkdir(parents=True)
    (tmp_path / "source/etc/passwd").write_text("root:x:0:0:::\napp:x:77:78:::\n")
    packed = mksquashfs(tmp_path / "source", tmp_path / "x", "-comp", "lzo")
    (tmp_path / "x.gvmi").write_bytes(gvmi(packed.read_bytes(), {"User": "app", "Cmd": ["sh"]}))
    image = import_image(tmp_path / "x.gvmi", store, name="golem")
    found = store.get(image).manifest
    assert (found.config.user, found.config.entrypoint) == ("77:78", ["sh"])
    unpack_image(store, image, tmp_path / "rootfs")
    assert (tmp_path / "rootfs/etc/passwd").is_file()


# --- hostile --------------------------------------------------------------------------------------


@pytest.fixture
def refuses(store: ImageStore, tmp_path: Path) -> Iterator[object]:
    """Refuses to unpack what ``source`` packs to, and leaves nothing."""

    def refuses(rule: str, source: Path, *options: str, limits: Limits | None = None) -> None:
        image = import_image(mksquashfs(source, tmp_path / "x", *options), store, name="x")
        with pytest.raises(ImageRefused, match=rule):
            unpack_image(store, image, tmp_path / "rootfs", limits=limits or Limits())
        assert not [path for path in tmp_path.iterdir() if "rootfs" in path.name]

    yield refuses
    assert not [path for path in tmp_path.iterdir() if "rootfs" in path.name]


def test_links_devices_and_pipes_in_a_squashfs(refuses, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source = tmp_path / "source"
    source.mkdir()
    (source / "fine").touch()
    for definition, rule in (
        ("null c 666 0 0 1 3", "'null': a character device"),
        ("sda b 666 0 0 8 0", "'sda': a block device"),
        ("pipe i 666 0 0 f", "'pipe': a named pipe or a socket"),
        ("socket i 666 0 0 s", "'socket': a named pipe or a socket"),
        ("out s 777 0 0 ../../etc", "'out': a link out of the root"),
    ):
        refuses(rule, source, "-p", definition)
    (source / "line\nfeed").touch()
    refuses("a line feed in a name", source)


def test_setuid_in_a_squashfs_is_dropped_when_it_is_unpacked(
    store: ImageStore, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/su").touch()
    path = mksquashfs(tmp_path / "source", tmp_path / "x", "-p", "su m 6777 0 0")
    image = import_image(path, store, name="x")
    unpack_image(store, image, tmp_path / "rootfs")
    assert listing(tmp_path / "rootfs")["su"][1] == 0o755


def test_a_squashfs_bomb(refuses, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source = tmp_path / "source"
    source.mkdir()
    with (source / "zeros").open("wb") as opened:
        opened.truncate(300 * 2**20)
    refuses("over 100 to 1", source)
    refuses("more than 1048576 bytes in all", source, limits=Limits(total=2**20))
    for number in range(30):
        (source / f"f{number}").touch()
    refuses("more than 20 members", source, limits=Limits(members=20))


def test_a_damaged_squashfs_is_refused(store: ImageStore, tmp_path: Path) -> None:
    """Wherever a bit is wrong: an image, or ImageRefused, and nothing left."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"f{number}").write_text(f"text {number} " * 50)
    whole = mksquashfs(source, tmp_path / "x").read_bytes()
    refused = 0
    used = int.from_bytes(whole[40:48], "little")
    for at in range(0, used, used // 40):
        data = bytearray(whole)
        data[at] ^= 0xFF
        (tmp_path / "x").write_bytes(data)
        try:
            image = import_image(tmp_path / "x", store, name="x", kind="squashfs")
            unpack_image(store, image, tmp_path / f"rootfs{at}")
        except ImageRefused:
            refused += 1
            assert not (tmp_path / f"rootfs{at}").exists()
    assert refused > 10


# --- bounds ---------------------------------------------------------------------------------------


def children() -> set[int]:
    import psutil

    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    squash([ROOT], tmp_path / "packed", "x", 1000)
    return tmp_path / "packed"


def test_no_process_is_left_whoever_ends_first(packed: Path) -> None:
    before = children()
    with packed.open("rb") as image, unsquashed(image, "x") as stream:
        assert stream.read(1) == b"/"
    with pytest.raises(KeyError), packed.open("rb") as image, unsquashed(image, "x"):
        raise KeyError

    def failing() -> Iterator[bytes]:
        yield ROOT[:2048]
        raise KeyError

    with pytest.raises(KeyError):
        squash(failing(), packed, "x", 0)
    assert children() == before


def test_unsquashfs_may_write_no_file(packed: Path, tmp_path: Path) -> None:
    """Its limit holds from the start: had it a hole, it could still not write through it."""
    import resource

    with packed.open("rb") as image, unsquashed(image, "x") as stream:
        for pid in children():
            assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (0, 0)
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
            assert resource.prlimit(pid, resource.RLIMIT_AS)[0] == tools.READING.memory
        assert stream.read()


def test_a_program_that_takes_too_long_is_ended(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "unsquashfs"
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    monkeypatch.setattr(tools, "find_tool", lambda name: str(script))
    begin = time.monotonic()
    with (
        pytest.raises(ImageRefused, match="unsquashfs took too long and was ended"),
        packed.open("rb") as image,
        unsquashed(image, "x", ToolLimits(seconds=0.3)) as stream,
    ):
        stream.read()
    assert time.monotonic() - begin < 10


@pytest.mark.needs("linux")
@pytest.mark.parametrize(
    ("limits", "how"),
    [
        (ToolLimits(memory=20 * 2**20, output=2**30), "mksquashfs failed"),
        (ToolLimits(output=1000), "mksquashfs failed"),
    ],
)
def test_a_program_that_takes_too_much_is_refused(
    limits: ToolLimits, how: str, tmp_path: Path
) -> None:
    with pytest.raises(ImageRefused, match=how):
        squash([ROOT] * 1, tmp_path / "x", "x", 0, limits)


def test_the_last_words_of_a_program_are_told(packed: Path) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data[:200] + bytes(len(data) - 200))
    with (
        pytest.raises(ImageRefused, match=r"unsquashfs failed, exit status 1: .*FATAL ERROR"),
        packed.open("rb") as image,
        unsquashed(image, "x") as stream,
    ):
        stream.read()


def test_a_program_that_is_killed_is_told(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "unsquashfs"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(tools, "find_tool", lambda name: str(script))
    with (
        pytest.raises(ImageRefused, match=f"unsquashfs failed, signal {signal.SIGKILL}"),
        packed.open("rb") as image,
        unsquashed(image, "x") as stream,
    ):
        stream.read()


def test_an_old_release_is_told(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "unsquashfs"
    script.write_text("#!/bin/sh\necho 'unsquashfs: invalid option' >&2; exit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(tools, "find_tool", lambda name: str(script))
    with (
        pytest.raises(ImageRefused, match=r"squashfs-tools 4\.5 or newer"),
        packed.open("rb") as image,
        unsquashed(image, "x") as stream,
    ):
        stream.read()


def test_a_missing_program_is_told(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with (
        packed.open("rb") as image,
        pytest.raises(UsageError, match="x needs the program unsquashfs"),
        unsquashed(image, "x"),
    ):
        pass
