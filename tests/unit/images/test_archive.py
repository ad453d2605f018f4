"""Archives as streams of checked members: what is read, and what is refused (``archive.py``,
``members.py``, ``compression.py``, ``tar_reader.py`` and ``zip_reader.py`` of ``images/``)."""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import ImageRefused
from guactors.images.archive import read_archive
from guactors.images.compression import PlainStream
from guactors.images.members import Budget, Kind, Limits
from guactors.images.spool import Spool
from tests.unit.images.archives import (
    BLOCK,
    COMPRESSIONS,
    END,
    file,
    folder,
    gate,
    hard,
    header,
    link,
    members_of,
    padded,
    pax,
    record,
    tar,
    tree_of,
)

TREE = tar(
    folder("bin/"),
    file("bin/sh", b"shell" * 300, mode=0o755, uid=1, gid=2, mtime=1000),
    link("bin/bash", "sh"),
    hard("bin/dash", "bin/sh"),
    file("empty"),
)


def zipped(*entries: tuple[str, bytes, int], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of names, contents and Unix modes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, mode << 16
            info.compress_type = method
            archive.writestr(info, content)
    return data.getvalue()


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_tar_is_read_whatever_its_compression(compression: str) -> None:
    found = members_of(COMPRESSIONS[compression](TREE))
    assert [(member.name, member.kind, content) for member, content in found] == [
        ("bin", Kind.DIRECTORY, b""),
        ("bin/sh", Kind.FILE, b"shell" * 300),
        ("bin/bash", Kind.SYMLINK, b""),
        ("bin/dash", Kind.HARDLINK, b""),
        ("empty", Kind.FILE, b""),
    ]
    shell = found[1][0]
    assert (shell.mode, shell.uid, shell.gid, shell.mtime) == (0o755, 1, 2, 1000)
    assert [member.target for member, _ in found] == ["", "", "sh", "bin/sh", ""]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("name", ["a", "d" * 90 + "/" + "f" * 90, "\udcff\udcfe", "ü/ß"])
def test_what_the_standard_library_writes_is_read(form: int, name: str) -> None:
    data = io.BytesIO()
    with tarfile.open(
        fileobj=data, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.uid = 3, 1234567, 12345
        archive.addfile(info, io.BytesIO(b"abc"))
    [(member, content)] = members_of(data.getvalue())
    assert (member.name, content, member.mtime, member.uid) == (name, b"abc", 1234567, 12345)


def test_long_names_of_gnu_and_of_pax() -> None:
    long, target = "d/" * 60 + "f", "t" * 150
    gnu = (
        header("././@LongLink", b"L", 122) + padded(long.encode() + b"\0")
        + header("././@LongLink", b"K", 151) + padded(target.encode() + b"\0")
        + link("cut", "cut")
    )  # fmt: skip
    [(member, _)] = members_of(tar(gnu))
    assert (member.name, member.target) == (long, target)
    [(member, _)] = members_of(tar(pax(path=long, linkpath=target) + link("cut", "cut")))
    assert (member.name, member.target) == (long, target)


def test_numbers_in_base_256_and_in_pax() -> None:
    large = b"\x80" + (2**22).to_bytes(7, "big")
    [(member, _)] = members_of(tar(file("a", uid=large, gid=b"\x80" + bytes(6) + b"\7")))
    assert (member.uid, member.gid) == (2**22, 7)
    [(member, content)] = members_of(
        tar(pax(size="3", uid="70000", mtime="12.75") + header("a", size=0) + padded(b"abc"))
    )
    assert (member.size, member.uid, member.mtime, content) == (3, 70000, 12, b"abc")


@pytest.mark.parametrize(
    ("name", "parts"),
    [("./a/./b", ("a", "b")), ("a//b", ("a", "b")), ("./", ()), ("...", ("...",)), ("a/", ("a",))],
)
def test_names_are_made_plain(name: str, parts: tuple[str, ...]) -> None:
    [(member, _)] = members_of(tar(folder(name)))
    assert member.parts == parts


def test_an_old_directory_is_a_file_with_a_slash() -> None:
    [(member, _)] = members_of(tar(header("old/", b"\0", magic=b"")))
    assert member.kind is Kind.DIRECTORY


def test_a_prefix_counts_in_posix_headers_only() -> None:
    [(member, _)] = members_of(tar(header("name", prefix=b"some/where")))
    assert member.name == "some/where/name"
    [(member, _)] = members_of(tar(header("name", prefix=b"1234", magic=b"ustar  \0")))
    assert member.name == "name"


def test_who_may_become_another_is_dropped_and_the_sticky_bit_stays() -> None:
    found = members_of(tar(file("su", mode=0o6755), folder("tmp", mode=0o1777)))
    assert [member.mode for member, _ in found] == [0o755, 0o1777]


def test_a_negative_time_becomes_none() -> None:
    [(member, _)] = members_of(tar(file("a", mtime=b"\xff" * 12)))
    assert member.mtime == 0
    [(member, _)] = members_of(tar(pax(mtime="-5.5") + file("a")))
    assert member.mtime == 0


def test_extended_attributes_and_comments_are_passed_over() -> None:
    comment = record(b"comment", b"0123abcd")
    first = header("pax_global_header", b"g", len(comment)) + padded(comment)
    capability = pax(SCHILY__xattr__security__capability=b"\1\0\0\2\0")
    assert [one.name for one, _ in members_of(tar(first, capability + file("ping")))] == ["ping"]


def test_what_is_not_read_is_passed_over() -> None:
    rules = gate()
    names = [one.name for one, _ in read_archive(io.BytesIO(TREE), rules)]
    assert names == ["bin", "bin/sh", "bin/bash", "bin/dash", "empty"]


def test_parts_of_gzip_and_zeros_after_it() -> None:
    half = len(TREE) // 2
    data = gzip.compress(TREE[:half]) + gzip.compress(TREE[half:]) + bytes(1000)
    assert len(members_of(data)) == 5


def test_a_zip_is_read() -> None:
    data = zipped(
        ("bin/", b"", stat.S_IFDIR | 0o700),
        ("bin/sh", b"shell" * 300, stat.S_IFREG | 0o4755),
        ("bin/bash", b"sh", stat.S_IFLNK | 0o777),
        ("plain", b"x", stat.S_IFREG | 0o640),
    )
    found = members_of(data)
    assert [(one.name, one.kind, one.mode, one.target, content) for one, content in found] == [
        ("bin", Kind.DIRECTORY, 0o700, "", b""),
        ("bin/sh", Kind.FILE, 0o755, "", b"shell" * 300),
        ("bin/bash", Kind.SYMLINK, 0o777, "sh", b""),
        ("plain", Kind.FILE, 0o640, "", b"x"),
    ]


def test_the_kind_is_told_by_the_content() -> None:
    """An archive that cannot seek is no zip, and its compression is found all the same."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    data = gzip.compress(TREE)
    assert len(list(read_archive(Pipe(data), gate()))) == 5


@given(st.binary(max_size=3000), st.lists(st.integers(1, 700), min_size=1))
def test_a_plain_stream_gives_all_bytes_in_any_portions(data: bytes, sizes: list[int]) -> None:
    for pack in COMPRESSIONS.values():
        if pack(b"") == b"" and data[:6] != data[:6].strip(b"\x1fBZh\xfd\x28"):
            continue  # it would begin as something compressed does
        stream = PlainStream(io.BytesIO(pack(data)), Budget(), "x")
        found = b""
        while piece := stream.read(sizes[len(found) % len(sizes)]):
            found += piece
        assert found == data
        assert stream.position == len(data)


# --- what is refused ------------------------------------------------------------------------------

LONG = "n" * 256
REFUSED = {
    "absolute": (file("/etc/passwd"), "'/etc/passwd': an absolute name"),
    "dotdot": (file("../x"), "'../x': '..' in a name"),
    "dotdot inside": (file("a/../../x"), r"'\.\.' in a name"),
    "dotdot last": (folder("a/.."), r"'\.\.' in a name"),
    "empty name": (file(""), "an empty name"),
    "long part": (pax(path=f"a/{LONG}") + file("a"), "a part of more than 255 bytes"),
    "long name": (pax(path="abc/" * 1025) + file("a"), "a name of more than 4096 bytes"),
    "long part in bytes": (pax(path="ü" * 128) + file("a"), "a part of more than 255 bytes"),
    "deep": (pax(path="a/" * 129) + file("a"), "more than 128 directories deep"),
    "zero byte": (pax(path=b"a\0b") + file("a"), "a zero byte in a name"),
    "zero byte in a link": (pax(linkpath=b"a\0b") + link("a", "b"), "a zero byte in a name"),
    "absolute hard link": (hard("a", "/etc/passwd"), "'a': an absolute name"),
    "hard link out": (hard("a", "../x"), r"'\.\.' in a name"),
    "hard link to the root": (hard("a", "."), "a hard link to the root"),
    "empty link": (link("a", ""), "a symbolic link to nothing"),
    "long link": (pax(linkpath="a/" * 2100) + link("a", "b"), "a link of more than 4096 bytes"),
    "character device": (header("null", b"3"), "'null': a character device"),
    "block device": (header("sda", b"4"), "a block device"),
    "pipe": (header("pipe", b"6"), "a named pipe"),
    "sparse": (header("core", b"S"), "a sparse file"),
    "sparse of pax": (pax(GNU__sparse__major="1") + file("a"), "a sparse file"),
    "volume": (header("part", b"M"), "a part of another volume"),
    "label": (header("label", b"V"), "a volume label"),
    "unknown type": (header("a", b"Z"), "a member of the unknown type b'Z'"),
    "negative size": (header("a", size_field=b"\xff" * 12), "a negative size"),
    "negative size of pax": (pax(size="-1") + file("a"), "a negative size"),
    "size that is no number": (pax(size="1e3") + file("a"), "its size is no number"),
    "size with a fraction": (pax(size="1.0") + file("a"), "its size is no number"),
    "octal that is none": (header("a", size_field=b"00000000009"), "is no number"),
    "signed octal": (header("a", size_field=b"-0000000001"), "is no number"),
    "huge size": (header("a", size_field=b"\x80" + b"\x7f" * 11), "cut short in its content"),
    "link with a content": (header("a", b"2", 5, target="b") + padded(b"x"), "with a content"),
    "directory with a content": (header("a", b"5", 5) + padded(b"x"), "with a content"),
    "hard link with a content": (header("a", b"1", 5, target="b") + padded(b"x"), "with a content"),
    "file as the root": (file("."), "in the place of the root"),
    "negative owner": (file("a", uid=b"\xff" * 8), "the owner -1 is not possible"),
    "huge owner": (pax(uid=str(2**32)) + file("a"), "is not possible"),
    "names of two headers": (pax(path="a") + pax(path="b") + file("c"), "two extended headers"),
    "record twice": (
        header("x", b"x", 24) + padded(record(b"path", b"a") * 2 + b"")
        + file("c"), "is damaged|twice",
    ),
    "global name": (
        header("g", b"g", len(record(b"path", b"a"))) + padded(record(b"path", b"a")),
        "a global header sets 'path'",
    ),
    "large header": (header("x", b"x", 2**21), "an extended header of 2097152 bytes"),
    "empty header": (header("x", b"x", 0), "an extended header of 0 bytes"),
    "damaged record": (header("x", b"x", 9) + padded(b"9 path=ab"), "a record of an extended"),
    "record too long": (header("x", b"x", 9) + padded(b"99 path=a\n"), "a record of an extended"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_members_are_refused_by_name_and_rule(case: str) -> None:
    data, rule = REFUSED[case]
    with pytest.raises(ImageRefused, match=rule) as caught:
        members_of(tar(file("before"), data, file("after")))
    assert str(caught.value).startswith("x.tar")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:100] + b"~" + data[101:],
        lambda data: data[: 2 * BLOCK] + b"garbage".ljust(BLOCK, b"\1") + data[2 * BLOCK :],
        lambda data: data[:BLOCK] + data[BLOCK + 1 :],
    ],
)
def test_damage_ends_it(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ImageRefused, match="is damaged"):
        members_of(damage(TREE))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_truncated_archive_is_refused_wherever_it_ends(compression: str) -> None:
    whole = COMPRESSIONS[compression](TREE)
    step = 97 if compression == "plain" else 1
    last = len(TREE) - len(END) if compression == "plain" else len(whole) - 1
    for end in [*range(0, last, step), last]:
        with pytest.raises(ImageRefused, match=r"cut short|damaged|no tar archive"):
            members_of(whole[:end])


def test_nothing_may_follow_the_end_mark_but_zeros() -> None:
    assert len(members_of(TREE + bytes(20 * BLOCK))) == 5
    assert len(members_of(TREE[:-BLOCK])) == 5, "one block of zeros is a mark, too"
    with pytest.raises(ImageRefused, match="something follows its end mark"):
        members_of(TREE + file("hidden") + END)
    with pytest.raises(ImageRefused, match="something follows the end of its gzip data"):
        members_of(gzip.compress(TREE) + b"BZh91AY")


def test_a_header_that_belongs_to_nothing() -> None:
    with pytest.raises(ImageRefused, match="belongs to nothing"):
        members_of(tar(pax(path="a")))


@pytest.mark.parametrize("at", [20, -5, -1])
def test_damaged_gzip_is_refused(at: int) -> None:
    data = bytearray(gzip.compress(TREE))
    data[at] ^= 0xFF
    with pytest.raises(ImageRefused):
        members_of(bytes(data))


def test_xz_that_asks_for_more_memory_than_it_gets() -> None:
    small = lzma.compress(TREE)
    # Only its header is made to ask for 256 MiB: packing such a stream would need the memory.
    head = bytearray(small[12 : 12 + (small[12] + 1) * 4])
    head[head.index(b"\x21\x01") + 2] = 32
    head[-4:] = struct.pack("<I", zlib.crc32(bytes(head[:-4])))
    hungry = small[:12] + bytes(head) + small[12 + len(head) :]
    with pytest.raises(ImageRefused, match="xz data is damaged or wants too much memory"):
        members_of(hungry)


def test_zstd_is_told_and_refused() -> None:
    with pytest.raises(ImageRefused, match="compressed with zstd"):
        members_of(b"\x28\xb5\x2f\xfd" + bytes(100))


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ([("../x", b"", 0)], r"'\.\.' in a name"),
        ([("/x", b"", 0)], "an absolute name"),
        ([("pipe", b"", stat.S_IFIFO | 0o644)], "neither a file, a directory nor a link"),
        ([("null", b"", stat.S_IFCHR | 0o644)], "neither a file, a directory nor a link"),
        ([("a" * 300, b"", 0)], "a part of more than 255 bytes"),
        ([("l", b"", stat.S_IFLNK | 0o777)], "a symbolic link to nothing"),
        ([("l", b"x" * 5000, stat.S_IFLNK | 0o777)], "a link of more than 4096 bytes"),
        ([("d/", b"content", stat.S_IFDIR | 0o755)], "with a content"),
    ],
)
def test_hostile_zips(entries: list[tuple[str, bytes, int]], rule: str) -> None:
    with pytest.raises(ImageRefused, match=rule):
        members_of(zipped(*entries))


def test_a_zip_that_lies() -> None:
    data = zipped(("a", b"content" * 100, 0))
    at = data.index(b"PK\1\2")
    with pytest.raises(ImageRefused, match="damaged"):  # the checksum
        members_of(data[: at + 16] + b"\0\0\0\0" + data[at + 20 :])
    with pytest.raises(ImageRefused, match="not as long as stated"), Spool() as spool:
        tree_of(data[: at + 24] + struct.pack("<I", 701) + data[at + 28 :], spool)
    with pytest.raises(ImageRefused, match="encrypted"):
        members_of(data[: at + 8] + b"\1" + data[at + 9 :])
    with pytest.raises(ImageRefused, match="cut short"):
        members_of(data[:-5])
    with pytest.raises(ImageRefused, match="larger than the file"):
        members_of(data[:-10] + struct.pack("<I", 10**6) + data[-6:])
    with pytest.raises(ImageRefused, match="neither stored nor deflated"):
        members_of(zipped(("a", b"", 0), method=zipfile.ZIP_LZMA))
    locator = b"PK\6\7" + bytes(16)
    with pytest.raises(ImageRefused, match="use tar"):
        members_of(data[:-22] + locator + data[-22:])


def test_a_zip_of_too_many_members_is_not_even_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped(*((f"f{number}", b"", 0) for number in range(50)))
    assert len(members_of(data, Limits(members=50))) == 50
    monkeypatch.setattr(zipfile, "ZipFile", None)
    with pytest.raises(ImageRefused, match="more than 49 members"):
        members_of(data, Limits(members=49))


def test_a_zip_bomb_is_counted_as_it_comes_out() -> None:
    data = zipped(("zeros", bytes(3 * 2**20), 0))
    assert len(data) < 2**20 / 100
    with pytest.raises(ImageRefused, match="over 100 to 1"):
        members_of(data, Limits(ratio_from=2**20))


@pytest.mark.parametrize(
    ("limits", "rule"),
    [
        (Limits(members=4), "more than 4 members"),
        (Limits(names=20), "more than 20 bytes of names"),
        (Limits(total=2000), "more than 2000 bytes come out"),
        (Limits(depth=1), "more than 1 directories deep"),
        (Limits(component=3), "a part of more than 3 bytes"),
        (Limits(name=5), "a name of more than 5 bytes"),
    ],
)
def test_every_limit_holds(limits: Limits, rule: str) -> None:
    with pytest.raises(ImageRefused, match=rule):
        members_of(TREE, limits)
