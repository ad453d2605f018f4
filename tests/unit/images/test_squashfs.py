"""Squashfs files without the tools: the superblock, the list that unsquashfs writes, what is kept
(``images/squashfs.py``). With the real tools: ``tests/e2e/test_image_tools.py``."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import ImageRefused, UsageError
from guactors.images.importing import detect_kind, import_image
from guactors.images.members import Kind, Limits
from guactors.images.squashfs import Superblock, parse_superblock, read_pseudo_file
from guactors.images.store import ImageStore
from guactors.images.unpack import unpack_image
from tests.unit.images.archives import gate, new_store, squashfs_head

MARK = b"#\n# START OF DATA - DO NOT MODIFY\n#\n"
LIST = (
    b"/ D 1000 755 0 0\n"
    b"bin D 1000 755 0 0\n"
    b"bin/sh R 1000 4755 1 2 5 0 0\n"
    b'bin/a\\ b\\"\\\\ R 2000 644 0 0 3 5 0\n'
    b"bin/dash L bin/sh\n"
    b"l S 1000 777 0 0 bin/a b\n"
    b"bin/ping x security.capability=0sAQ==\n"
)
CONTENT = b"shellabc"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return new_store(tmp_path)


def read(data: bytes, inodes: int = 5, limits: Limits | None = None) -> list[tuple[object, bytes]]:
    rules = gate(limits or Limits(), "x.squashfs")
    superblock = Superblock(96, 131072, "zstd", inodes)
    found = []
    for member, reader in read_pseudo_file(io.BytesIO(data), rules, superblock):
        content = b""
        while more := reader.read(2):
            content += more
        found.append((member, content))
    return found


# --- the superblock -------------------------------------------------------------------------------


def test_a_superblock_is_read() -> None:
    found = parse_superblock(squashfs_head(5000, codec=3, inodes=7), 8192, "x")
    assert found == Superblock(5000, 131072, "lzo", 7)


@pytest.mark.parametrize(
    ("head", "size", "rule"),
    [
        (b"sqsh" + squashfs_head()[4:], 96, "is no squashfs"),
        (squashfs_head()[:95], 95, "is no squashfs"),
        (b"", 0, "is no squashfs"),
        (squashfs_head(major=3, minor=1), 96, "a squashfs 3.1, only 4.0"),
        (squashfs_head(minor=1), 96, "a squashfs 4.1"),
        (squashfs_head(codec=2), 96, "has the compression 2"),
        (squashfs_head(codec=9), 96, "has the compression 9, known are gzip, lzo, xz, lz4, zstd"),
        (squashfs_head(block=100), 96, "blocks of 100 bytes"),
        (squashfs_head(block=2**21, log=21), 96, "blocks of 2097152 bytes"),
        (squashfs_head(log=16), 96, "blocks of 131072 bytes"),
        (squashfs_head(97), 96, "cut short: 97 bytes are stated, 96 are there"),
        (squashfs_head(95), 96, "cut short"),
        (squashfs_head(2**63), 96, "cut short"),
        (squashfs_head(table=97), 96, "its tables lie outside"),
        (squashfs_head(inodes=0), 96, "is damaged"),
    ],
)
def test_superblocks_that_are_not_sane(head: bytes, size: int, rule: str) -> None:
    with pytest.raises(ImageRefused, match=rule):
        parse_superblock(head, size, "x.squashfs")


# --- the list -------------------------------------------------------------------------------------


def test_the_list_and_the_contents_become_members() -> None:
    found = read(LIST + MARK + CONTENT)
    assert [
        (member.name, member.kind, member.mode, member.target, content)  # type: ignore[attr-defined]
        for member, content in found
    ] == [
        (".", Kind.DIRECTORY, 0o755, "", b""),
        ("bin", Kind.DIRECTORY, 0o755, "", b""),
        ("l", Kind.SYMLINK, 0o777, "bin/a b", b""),
        ("bin/sh", Kind.FILE, 0o755, "", b"shell"),
        ('bin/a b"\\', Kind.FILE, 0o644, "", b"abc"),
        ("bin/dash", Kind.HARDLINK, 0o644, "bin/sh", b""),
    ]


def replaced(old: bytes, new: bytes) -> bytes:
    assert old in LIST
    return LIST.replace(old, new) + MARK + CONTENT


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (replaced(b"bin/sh R", b"../sh R"), r"'\.\.' in a name"),
        (replaced(b"l S 1000 777 0 0", b"l C 1000 777 0 0"), "'l': a character device"),
        (replaced(b"l S 1000 777 0 0", b"l B 1000 777 0 0"), "'l': a block device"),
        (replaced(b"l S 1000 777 0 0", b"l I 1000 777 0 0"), "a named pipe or a socket"),
        (replaced(b"l S 1000", b"l S now"), "is not understood"),
        (replaced(b"l S 1000", b"l S -1000"), "is not understood"),
        (replaced(b"l S", b"l Q"), "is not understood"),
        (replaced(b" 5 0 0\n", b" 5\n"), "is not understood"),
        (replaced(b" 5 0 0\n", b" 5 x 0\n"), "is not understood"),
        (replaced(b" 5 0 0\n", b" 6 0 0\n"), "not where it is stated to be"),
        (replaced(b" 3 5 0\n", b" 3 4 0\n"), "not where it is stated to be"),
        (replaced(b" 3 5 0\n", b" 4 5 0\n"), "wrote less than it listed"),
        (replaced(b" 3 5 0\n", b" 2 5 0\n"), "wrote more than it listed"),
        (replaced(b" 3 5 0\n", b" 99999999999 5 0\n"), "bytes in all"),
        (replaced(b"l S", b"l\nm S"), "a line feed in a name or link"),
        (replaced(b"bin/a b\n", b"bin/\na b\n"), "a line feed in a name or link"),
        (replaced(b"l S", b"l" * 17_000 + b" S"), "or one too long"),
        (replaced(b"l S", b"l" * 300 + b" S"), "a part of more than 255 bytes"),
        (LIST, "is cut short"),
        (b"", "is cut short"),
        (LIST + MARK[:20], "has no end mark"),
        (LIST + b"#\n#\n#\n" + CONTENT, "has no end mark"),
        (LIST + MARK + CONTENT[:-1], "wrote less than it listed"),
        (LIST + MARK + CONTENT + b"x", "wrote more than it listed"),
    ],
)
def test_lists_that_are_refused(data: bytes, rule: str) -> None:
    with pytest.raises(ImageRefused, match=rule):
        read(data)


def test_a_list_of_fewer_names_than_the_superblock_states() -> None:
    """Whatever made unsquashfs leave out files, half an image is none."""
    with pytest.raises(ImageRefused, match="lists 5 files, its superblock states 6"):
        read(LIST + MARK + CONTENT, inodes=6)


def test_limits_hold_while_contents_come() -> None:
    for limits, rule in (
        (Limits(members=5), "more than 5 members"),
        (Limits(total=7), "more than 7 bytes in all"),
    ):
        with pytest.raises(ImageRefused, match=rule):
            read(LIST + MARK + CONTENT, limits=limits)
    zeros = b"/ D 0 755 0 0\nzeros R 0 644 0 0 1000000 0 0\n" + MARK + bytes(10**6)
    with pytest.raises(ImageRefused, match="over 100 to 1"):
        read(zeros, 2, Limits(ratio_from=10**5))


@given(st.binary(max_size=400), st.integers(0, len(LIST + MARK + CONTENT)))
def test_garbage_is_refused_and_nothing_else(noise: bytes, at: int) -> None:
    data = LIST + MARK + CONTENT
    for given_data in (noise, data[:at] + noise, data[:at] + noise + data[at:]):
        with suppress(ImageRefused):
            read(given_data)


# --- importing ------------------------------------------------------------------------------------


def test_a_squashfs_is_kept_as_it_is_without_what_follows(
    store: ImageStore, tmp_path: Path
) -> None:
    body = squashfs_head(5000) + bytes(range(256)) * 20
    images = set()
    for tail in (b"", bytes(100), b"trailer that means nothing"):
        path = tmp_path / "x.img"
        path.write_bytes(body[:5000] + tail)
        assert detect_kind(path) == "squashfs"
        images.add(import_image(path, store, name="vm", arch="x86_64"))
    [image] = images
    found = store.get(image).manifest
    assert found.blobs[0].media == "squashfs"
    with store.open_blob(image, "rootfs") as file:
        assert file.read() == body[:5000] + bytes(8192 - 5000)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:50],
        lambda data: squashfs_head(10**9),
        lambda data: squashfs_head(major=5),
    ],
)
def test_a_damaged_squashfs_is_refused(
    damage: Callable[[bytes], bytes], store: ImageStore, tmp_path: Path
) -> None:
    path = tmp_path / "x.img"
    path.write_bytes(damage(squashfs_head()))
    with pytest.raises(ImageRefused):
        import_image(path, store, name="vm")
    assert store.list() == []


@pytest.mark.needs("posix")
def test_without_the_tools_it_is_told_how_to_get_them(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guactors.runtimes.tools.find_tool", lambda name: None)
    (tmp_path / "x.img").write_bytes(squashfs_head())
    image = import_image(tmp_path / "x.img", store, name="vm")
    with pytest.raises(UsageError, match=r"needs the program unsquashfs.*apt install squashfs-"):
        unpack_image(store, image, tmp_path / "rootfs")
    assert not (tmp_path / "rootfs").exists()
