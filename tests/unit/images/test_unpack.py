"""Images as directories: what arrives, and that it is all or nothing (``images/unpack.py``,
``rootfs.py``)."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from guactors.errors import ImageRefused, UsageError
from guactors.images.archive import read_archive
from guactors.images.manifest import Manifest, Media, encode_manifest
from guactors.images.members import Entries, Gate, Limits
from guactors.images.store import ImageStore
from guactors.images.unpack import unpack, unpack_image
from tests.unit.images.archives import (
    COMPRESSIONS,
    file,
    folder,
    gate,
    hard,
    link,
    listing,
    new_store,
    pax,
    tar,
)

pytestmark = pytest.mark.needs("posix")

TREE = tar(
    folder("usr/bin", 0o555),
    file("usr/bin/sh", b"shell", mode=0o4777, mtime=1000),
    link("bin", "usr/bin"),
    link("usr/bin/bash", "/usr/bin/sh"),
    link("top", "/"),
    hard("usr/bin/dash", "bin/sh"),
    file("bin/ls", b"list", mode=0o000),
    file("replaced", b"old"),
    file("replaced", b"new"),
    folder("tmp", 0o1777),
)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return new_store(tmp_path)


def add(store: ImageStore, data: bytes, media: Media = "tar") -> str:
    blob = store.ingest(io.BytesIO(data), role="rootfs", media=media)
    manifest = Manifest(name="x", arch="x86_64", created="1970-01-01T00:00:00Z", blobs=[blob])
    return store.add_image(encode_manifest(manifest))


@pytest.mark.parametrize(("media", "compression"), [("tar", "plain"), ("tar+gzip", "gzip")])
def test_an_image_becomes_a_directory(
    media: Media, compression: str, store: ImageStore, tmp_path: Path
) -> None:
    root = tmp_path / "rootfs"
    unpack_image(store, add(store, COMPRESSIONS[compression](TREE), media), root)
    assert listing(root) == {
        "usr": ("directory", 0o755, ""),
        "usr/bin": ("directory", 0o755, ""),
        "usr/bin/sh": ("file", 0o755, b"shell"),
        "usr/bin/dash": ("file", 0o755, b"shell"),
        "usr/bin/bash": ("symbolic link", 0o777, "../../usr/bin/sh"),
        "usr/bin/ls": ("file", 0o400, b"list"),
        "bin": ("symbolic link", 0o777, "usr/bin"),
        "top": ("symbolic link", 0o777, "."),
        "replaced": ("file", 0o644, b"new"),
        "tmp": ("directory", 0o755, ""),
    }
    assert (root / "usr/bin/sh").stat().st_ino == (root / "usr/bin/dash").stat().st_ino
    assert (root / "usr/bin/sh").stat().st_mtime == 1000
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert (root / "usr/bin/bash").resolve() == (root / "usr/bin/sh").resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rootfs", "store"]


def test_an_absolute_link_in_a_linked_directory_stays_inside(
    store: ImageStore, tmp_path: Path
) -> None:
    """Its text depends on where it really lies, not on the name it was given."""
    data = tar(folder("a/b/c"), link("short", "a/b/c"), link("short/l", "/etc/x"), file("etc/x"))
    unpack_image(store, add(store, data), tmp_path / "rootfs")
    assert (tmp_path / "rootfs/a/b/c/l").resolve() == (tmp_path / "rootfs/etc/x").resolve()


def test_only_a_new_directory_is_written(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, TREE)
    (tmp_path / "there").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("there", "dangling"):
        with pytest.raises(UsageError, match=f"{name} exists"):
            unpack_image(store, image, tmp_path / name)
    with pytest.raises(UsageError, match="missing is no directory"):
        unpack_image(store, image, tmp_path / "missing" / "rootfs")
    assert not list((tmp_path / "there").iterdir())


def test_an_error_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    for bad in (TREE[:-2000], tar(file("a"), file("../b")), tar(file("a/b"), link("l", ".."))):
        with pytest.raises(ImageRefused):
            unpack_image(store, add(store, bad), tmp_path / "rootfs")
    with pytest.raises(ImageRefused, match="more than 3 members"):
        unpack_image(store, add(store, TREE), tmp_path / "rootfs", limits=Limits(members=3))
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_full_disk_is_told_and_leaves_nothing(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = add(store, TREE)
    real, calls = os.symlink, []

    def failing(*arguments: object, **options: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "symlink", failing)
    with pytest.raises(ImageRefused, match=f"{image} does not fit on the disk"):
        unpack_image(store, image, tmp_path / "rootfs")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def meddled(members: bytes, rules: Gate, meddle: Callable[[], None], after: int) -> Entries:
    """The members, and something that happens in the new directory after so many."""
    for number, one in enumerate(read_archive(io.BytesIO(members), rules)):
        yield one
        if number == after:
            meddle()


def test_nothing_is_followed_that_appears_while_we_write(tmp_path: Path) -> None:
    """Who may write into the new directory is its owner, who could do so anyway. Still."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")

    def fresh() -> Path:
        [found] = tmp_path.glob(".rootfs-*")
        return found

    def link_directory() -> None:
        (fresh() / "d/e").rmdir()
        (fresh() / "d/e").symlink_to(outside)

    def link_file() -> None:
        (fresh() / "d/e/kept").symlink_to(outside / "kept")

    def link_hard() -> None:
        os.link(outside / "kept", fresh() / "d/e/kept")

    data = tar(folder("d/e"), folder("other"), file("d/e/kept", b"changed"))
    for meddle in (link_directory, link_file, link_hard):
        rules = gate()
        with pytest.raises(ImageRefused, match="cannot be stored"):
            unpack(meddled(data, rules, meddle, 1), rules, tmp_path / "rootfs")
        assert listing(outside) == {"kept": ("file", 0o644, b"kept")}
        assert [path.name for path in tmp_path.iterdir()] == ["outside"]


def test_a_root_that_has_no_files_to_read(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match="root of the kind raw"):
        unpack_image(store, add(store, TREE, "raw"), tmp_path / "rootfs")


def test_deep_and_wide_trees_need_few_descriptors(store: ImageStore, tmp_path: Path) -> None:
    import resource

    deep = "/".join(["d"] * 60)
    data = tar(*(pax(path=f"{deep}/{number}/f") + file("f") for number in range(200)))
    image = add(store, data)
    soft, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 50
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 80, hard_limit))
    try:
        unpack_image(store, image, tmp_path / "rootfs")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard_limit))
    assert (tmp_path / "rootfs" / deep / "199" / "f").is_file()
