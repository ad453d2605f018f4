"""Images from directories, and telling what a file is (``images/build.py``, ``directory.py``,
``importing.py``)."""

from __future__ import annotations

import errno
import io
import logging
import os
import socket
import tempfile
import time
from pathlib import Path

import pytest

from guactors.errors import ImageRefused, UsageError
from guactors.images.build import build_image
from guactors.images.directory import FileContent, scan_directory
from guactors.images.importing import detect_kind, import_image
from guactors.images.manifest import Config
from guactors.images.store import ImageStore
from tests.unit.images.archives import (
    COMPRESSIONS,
    file,
    folder,
    image_listing,
    link,
    members_of,
    new_store,
    tar,
)

pytestmark = pytest.mark.needs("posix")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return new_store(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return fill(tmp_path / "source")


def fill(root: Path) -> Path:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/python3.11").write_bytes(b"elf" * 1000)
    (root / "usr/bin/python3.11").chmod(0o4755)
    os.link(root / "usr/bin/python3.11", root / "usr/bin/also")
    (root / "usr/bin/python3").symlink_to("python3.11")
    (root / "bin").symlink_to("/usr/bin")
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "ünï\udcff").write_bytes(b"")
    return root


def build(source: Path, store: ImageStore, **options: object) -> str:
    return build_image(source, store, **({"name": "x", "media": "tar"} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("media", ["tar", "tar+gzip"])
def test_a_directory_becomes_an_image(media: str, source: Path, store: ImageStore) -> None:
    image = build(source, store, media=media)
    assert image_listing(store, image) == {
        "bin": ("symbolic link", 0o777, "/usr/bin"),
        "tmp": ("directory", 0o1777, ""),
        "usr": ("directory", 0o755, ""),
        "usr/bin": ("directory", 0o755, ""),
        "usr/bin/also": ("file", 0o755, b"elf" * 1000),
        "usr/bin/python3": ("symbolic link", 0o777, "python3.11"),
        "usr/bin/python3.11": ("file", 0o755, b"elf" * 1000),
        "ünï\udcff": ("file", 0o644, b""),
    }
    found = store.get(image).manifest
    assert found.blobs[0].media == media
    assert found.config == Config(python="3.11")
    assert found.created == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize("media", ["tar", "tar+gzip"])
def test_the_same_directory_gives_the_same_id(
    media: str, tmp_path: Path, store: ImageStore
) -> None:
    one = fill(tmp_path / "one")
    first = build(one, store, media=media)
    # Made in another order, at another time, elsewhere.
    other = tmp_path / "elsewhere" / "other"
    (other / "tmp").mkdir(parents=True)
    (other / "tmp").rmdir()
    other.rmdir()
    fill(other)
    for path in [other, *other.rglob("*")]:
        os.utime(path, (1, 1), follow_symlinks=False)
    assert build(other, store, media=media) == first
    (other / "tmp/x").touch()
    assert build(other, store, media=media) != first


def test_name_configuration_and_architecture_are_part_of_it(
    source: Path, store: ImageStore
) -> None:
    image = build(source, store, name="y", config=Config(entrypoint=["/bin/x"]), arch="arm64")
    found = store.get(image).manifest
    assert (found.name, found.arch, found.config.entrypoint) == ("y", "aarch64", ["/bin/x"])
    assert found.config.python == "", "a configuration that is given is not added to"
    assert found.blobs == store.get(build(source, store)).manifest.blobs
    with pytest.raises(ImageRefused, match="name 'not a name'"):
        build(source, store, name="not a name")


def test_owners_are_nobody_s_unless_asked_for(source: Path) -> None:
    uid, gid = os.getuid(), os.getgid()
    assert {(one.itself.uid, one.itself.gid) for _, one in scan_directory(source).walk()} == {
        (0, 0)
    }
    kept = {
        (one.itself.uid, one.itself.gid) for _, one in scan_directory(source, owners=True).walk()
    }
    assert kept == {(uid, gid)}


def test_squashfs_is_taken_where_it_can_be_made(
    source: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def squash(tar: object, output: Path, what: str, newest: int) -> None:
        output.write_bytes(b"packed" + b"".join(tar))  # type: ignore[arg-type]
        assert newest == 0

    monkeypatch.setattr("guactors.images.rootfs.squash", squash)
    for found, media in (("/bin/mksquashfs", "squashfs"), (None, "tar+gzip")):
        monkeypatch.setattr("guactors.images.rootfs.find_tool", lambda name, found=found: found)
        image = build(source, store, media="auto")
        assert store.get(image).manifest.blobs[0].media == media


def test_without_mksquashfs_it_is_told_how_to_get_it(
    source: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guactors.runtimes.tools.find_tool", lambda name: None)
    with pytest.raises(UsageError, match=r"needs the program mksquashfs.*apt install squashfs-"):
        build(source, store, media="squashfs")
    with pytest.raises(UsageError, match="'zip' is no form of a root file system"):
        build(source, store, media="zip")


# --- what cannot be in an image -------------------------------------------------------------------


def test_sockets_and_pipes(source: Path, store: ImageStore) -> None:
    os.mkfifo(source / "pipe")
    with pytest.raises(UsageError, match=f"{source}/pipe is a named pipe.*remove it"):
        build(source, store)
    (source / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        old = os.getcwd()
        os.chdir(source)  # the addresses of sockets are short
        try:
            listening.bind("s")
        finally:
            os.chdir(old)
    with pytest.raises(UsageError, match=f"{source}/s is a socket"):
        build(source, store)
    assert store.list() == []


@pytest.mark.parametrize(
    ("place", "target"), [("out", "../secret"), ("usr/out", "../../x"), ("usr/o", "../usr/../..")]
)
def test_links_out_of_it(place: str, target: str, source: Path, store: ImageStore) -> None:
    (source / place).symlink_to(target)
    with pytest.raises(UsageError, match=f"no image can be made of .*'{place}': a link out of"):
        build(source, store)


def test_unreadable_files(source: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also as root, to whom all is readable."""
    real = os.access
    secret = str(source / "tmp" / "secret")
    Path(secret).write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda path, mode: path != secret and real(path, mode))
    with pytest.raises(UsageError, match="tmp/secret cannot be read: an image needs every file"):
        build(source, store)


def test_unreadable_directories(
    source: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def failing(path: str) -> object:
        if path.endswith("tmp"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(UsageError, match="tmp cannot be read: Permission denied"):
        build(source, store)


@pytest.mark.needs("root")
def test_devices(source: Path, store: ImageStore) -> None:
    try:
        os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this root may not make devices")
    with pytest.raises(UsageError, match="null is a device"):
        build(source, store)


@pytest.mark.parametrize("change", ["grows", "shrinks", "is replaced", "vanishes", "is a pipe"])
def test_a_file_that_changes_meanwhile(change: str, source: Path) -> None:
    path = source / "usr/bin/also"
    found = path.stat()
    content = FileContent(str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    if change in {"grows", "shrinks"}:
        pieces = content.pieces()
        next(pieces)
        with path.open("ab") as file:
            file.truncate(found.st_size + (5 if change == "grows" else -5))
        os.utime(path, (time.time() + 5, time.time() + 5))
        with pytest.raises(UsageError, match="also changed while the image was made"):
            list(pieces)
        return
    path.unlink()
    if change == "is replaced":
        path.write_bytes(b"elf" * 1000)
    elif change == "is a pipe":
        os.mkfifo(path)
    with pytest.raises(UsageError, match=r"also (changed while|cannot be read)"):
        list(content.pieces())


def test_no_directory(tmp_path: Path, store: ImageStore) -> None:
    with pytest.raises(UsageError, match="missing is no directory"):
        build(tmp_path / "missing", store)


def test_names_that_differ_in_case_are_told(
    source: Path, store: ImageStore, caplog: pytest.LogCaptureFixture
) -> None:
    (source / "tmp/README").touch()
    (source / "tmp/readme").touch()
    with caplog.at_level(logging.WARNING):
        build(source, store)
    assert "'tmp/readme' and 'README' differ only in case" in caplog.text


# --- importing ------------------------------------------------------------------------------------


def test_a_directory_is_imported_as_it_is_built(source: Path, store: ImageStore) -> None:
    assert detect_kind(source) == "directory"
    assert import_image(source, store, name="x", media="tar") == build(source, store)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_archive_is_told_by_its_content(
    compression: str, tmp_path: Path, store: ImageStore
) -> None:
    data = tar(file("usr/bin/python3.13", mode=0o755), link("usr/bin/python3", "python3.13"))
    path = tmp_path / "looks-like.squashfs"
    path.write_bytes(COMPRESSIONS[compression](data))
    assert detect_kind(path) == "tar"
    image = import_image(path, store, name="x", media="tar")
    assert store.get(image).manifest.config == Config(python="3.13")


def test_a_zip_is_a_root_file_system(tmp_path: Path, store: ImageStore) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("etc/hostname", "x")
    image = import_image(tmp_path / "x", store, name="x", media="tar")
    assert set(image_listing(store, image)) == {"etc", "etc/hostname"}


def test_owners_modes_and_times_of_an_archive_stay(tmp_path: Path, store: ImageStore) -> None:
    members = (folder("d", 0o1770, uid=5, gid=6, mtime=7), file("d/f", uid=8, gid=9, mtime=10))
    (tmp_path / "x").write_bytes(tar(*members))
    image = import_image(tmp_path / "x", store, name="x", media="tar")
    with store.open_blob(image, "rootfs") as stored:
        found = members_of(stored.read())
    assert [(one.name, one.mode, one.uid, one.gid, one.mtime) for one, _ in found] == [
        ("d", 0o1770, 5, 6, 7), ("d/f", 0o644, 8, 9, 10),
    ]  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"x", b"garbage" * 1000, bytes(100), b"\x28\xb5\x2f\xfd123"])
def test_what_is_no_image(data: bytes, tmp_path: Path, store: ImageStore) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(UsageError, match=r"x\.tar is no image"):
        import_image(tmp_path / "x.tar", store, name="x")


def test_what_is_not_there_or_no_file(tmp_path: Path, store: ImageStore) -> None:
    with pytest.raises(UsageError, match="missing does not exist"):
        import_image(tmp_path / "missing", store, name="x")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="neither a file nor a directory"):
        import_image(tmp_path / "pipe", store, name="x")
    with pytest.raises(UsageError, match="'iso' is no kind of image"):
        import_image(tmp_path, store, name="x", kind="iso")  # type: ignore[arg-type]
    for kind in ("tar", "squashfs", "gvmi"):
        with pytest.raises(UsageError, match="is a directory, not a file"):
            import_image(tmp_path, store, name="x", kind=kind)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_read(
    tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(tar(file("a")))

    def failing(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(UsageError, match=f"{path} cannot be imported: .*Permission denied"):
        import_image(path, store, name="x")


def test_a_full_disk_for_temporary_files(
    tmp_path: Path, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", lambda size: Full())
    (tmp_path / "x").write_bytes(tar(file("a", b"content")))
    with pytest.raises(ImageRefused, match="the temporary copy of an image does not fit"):
        import_image(tmp_path / "x", store, name="x", media="tar")


def test_a_failed_import_leaves_no_image(tmp_path: Path, store: ImageStore) -> None:
    (tmp_path / "x").write_bytes(tar(file("fine", b"x" * 5000), file("../not")))
    with pytest.raises(ImageRefused, match=r"'\.\./not': '\.\.' in a name"):
        import_image(tmp_path / "x", store, name="x", media="tar")
    assert store.list() == []
