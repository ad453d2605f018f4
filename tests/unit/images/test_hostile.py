"""Archives made to do harm, by name, and at random: nothing outside the new directory is touched,
nothing is left behind, and what is refused says which member and why.

Beside every new directory lies a canary: a directory that the archives try to reach."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import ImageRefused
from guactors.images.archive import read_archive
from guactors.images.layers import add_layer
from guactors.images.members import LIMITS, MIB, Limits
from guactors.images.spool import Spool
from guactors.images.tar_writer import tar_of
from guactors.images.tree import Tree
from guactors.images.unpack import unpack
from tests.unit.images.archives import (
    END,
    Endless,
    file,
    folder,
    gate,
    hard,
    header,
    link,
    listing,
    members_of,
    padded,
    pax,
    tar,
    tree_listing,
    tree_of,
)

pytestmark = pytest.mark.needs("posix")


class Site:
    """Where archives are unpacked: ``rootfs`` beside the canary."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "rootfs"
        self.canary = base / "canary"
        self.canary.mkdir()
        (self.canary / "sings").write_text("sings")
        self.before = self._watched()

    def _watched(self) -> object:
        found = (self.canary / "sings").stat()
        return (listing(self.canary), found.st_nlink, found.st_mtime_ns, found.st_mode)

    def unpack(self, data: bytes, limits: Limits = LIMITS) -> None:
        rules = gate(limits)
        unpack(read_archive(io.BytesIO(data), rules), rules, self.root)

    def check(self) -> None:
        """Nothing outside was touched; nothing is left of what was refused; no link leads out."""
        assert self._watched() == self.before
        names = {path.name for path in self.base.iterdir()}
        assert names in ({"canary"}, {"canary", "rootfs"})
        if self.root.exists():
            top = self.root.resolve()
            for path in self.root.rglob("*"):
                if path.is_symlink():
                    with suppress(RuntimeError, OSError):  # circles
                        assert path.resolve().is_relative_to(top), path
                else:
                    assert path.stat().st_mode & 0o7022 == 0, path
                    assert path.is_file() or path.is_dir(), path

    def refuses(self, rule: str, *members: bytes, limits: Limits = LIMITS) -> None:
        with pytest.raises(ImageRefused, match=rule):
            self.unpack(tar(*members), limits)
        self.check()
        assert not self.root.exists()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site" if (tmp_path / "site").mkdir() is None else tmp_path)
    yield site
    site.check()


# --- by name --------------------------------------------------------------------------------------


def test_dotdot(site: Site) -> None:
    for name in ("../canary/sings", "a/../../canary/sings", "..", "./../canary/sings"):
        site.refuses(r"'\.\.' in a name", file("fine"), file(name, b"dies"))


def test_absolute_name(site: Site) -> None:
    site.refuses("an absolute name", pax(path=f"{site.canary}/sings") + file("x", b"dies"))


def test_absolute_link(site: Site) -> None:
    """A link to a place of this machine is one to the same place in the image."""
    site.unpack(
        tar(pax(linkpath=str(site.canary)) + link("l", "x"), file("l/sings", b"in the image"))
    )
    assert (site.root / "l").resolve().is_relative_to(site.root)
    assert (site.root / str(site.canary).lstrip("/") / "sings").read_bytes() == b"in the image"


def test_relative_link_out(site: Site) -> None:
    site.refuses("a link out of the root", link("l", "../canary"), file("l/sings", b"dies"))
    site.refuses("a link out of the root", folder("d"), link("d/l", "../../canary/sings"))


def test_hardlink_out(site: Site) -> None:
    sings = f"{site.canary}/sings"
    site.refuses("an absolute name", pax(linkpath=sings) + hard("h", "x"))
    site.refuses(r"'\.\.' in a name", hard("h", "../canary/sings"))
    site.refuses("which is not there", pax(linkpath=str(site.canary)) + link("l", "x"),
                 hard("h", "l/sings"))  # fmt: skip


def test_hardlink_to_something_not_extracted(site: Site) -> None:
    site.refuses("'h': a hard link to 'later', which is not there", hard("h", "later"),
                 file("later"))  # fmt: skip


def test_symlink_then_write_through(site: Site) -> None:
    chain = [link("a", "."), link("a/b", "a/.."), file("b/canary/sings", b"dies")]
    site.refuses("out of the root", *chain)
    climbing = [folder("x/y"), link("x/y/up", "../.."), link("out", "x/y/up/../canary")]
    site.refuses("out of the root", *climbing, file("out/sings", b"dies"))


def test_symlink_replaced_by_a_directory_and_back(site: Site) -> None:
    site.refuses("a directory where a symbolic link already is", link("d", "/etc"), folder("d"))
    site.refuses("where a directory already is", folder("d"), link("d", "../canary"))


def test_duplicate_file_over_symlink(site: Site) -> None:
    """The link is replaced; what it leads to is not written."""
    site.unpack(tar(file("kept", b"kept"), link("l", "kept"), file("l", b"new")))
    assert listing(site.root) == {
        "kept": ("file", 0o644, b"kept"),
        "l": ("file", 0o644, b"new"),
    }


def test_duplicate_file_over_hardlink(site: Site) -> None:
    site.unpack(tar(file("kept", b"kept"), hard("h", "kept"), file("h", b"new")))
    assert listing(site.root)["kept"][2] == b"kept"


def test_device_node(site: Site) -> None:
    site.refuses("'sda': a block device", header("sda", b"4", mode=0o666))
    site.refuses("'null': a character device", header("null", b"3", mode=0o666))
    site.refuses("'pipe': a named pipe", header("pipe", b"6", mode=0o666))


def test_setuid_is_dropped(site: Site) -> None:
    site.unpack(tar(file("su", mode=0o6777), folder("d", 0o7777)))
    assert {one[1] for one in listing(site.root).values()} == {0o755}


def test_zip_bomb(site: Site) -> None:
    """200 KB that would be 200 MB: it ends where the ratio is passed, not after."""
    with tracemalloc_peak() as peak:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        bomb = packer.compress(header("zeros", b"0", 200 * MIB))
        bomb += b"".join(packer.compress(bytes(MIB)) for _ in range(200)) + packer.flush()
        assert len(bomb) < 300_000
        with pytest.raises(ImageRefused, match="over 100 to 1"):
            site.unpack(bomb)
    assert peak[0] < 16 * MIB
    site.check()
    assert not site.root.exists()


def test_bomb_in_a_bomb_is_a_file(site: Site) -> None:
    """What is in a member is not unpacked, whatever it is."""
    inner = gzip.compress(bytes(MIB))
    site.unpack(tar(file("inner.tar.gz", inner)))
    assert (site.root / "inner.tar.gz").read_bytes() == inner


def test_million_members() -> None:
    """Refused after the most there may be, in bounded memory: the rest is never read. (A tenth of
    the real limit, which takes three seconds.)"""
    assert LIMITS.members == 200_000
    limits = Limits(members=20_000)
    ready = bytearray(header("d000/f000000"))
    fixed = sum(ready[:148]) + sum(ready[156:]) + 8 * ord(" ") - 9 * ord("0")

    def headers() -> Iterator[bytes]:
        for number in range(1_000_000):
            ready[0:12] = b"d%03d/f%06d" % (number // 5000, number)
            ready[148:156] = b"%06o\0 " % (fixed + sum(ready[1:4]) + sum(ready[6:12]))
            yield bytes(ready)
        yield END

    stream = Endless(headers())
    rules = gate(limits)
    tree = Tree()

    def read() -> None:
        for member, _ in read_archive(io.BufferedReader(stream), rules):
            tree.add(member, rules)

    with tracemalloc_peak() as peak, pytest.raises(ImageRefused, match="more than 20000 members"):
        read()
    assert stream.given < 11 * MIB
    assert peak[0] < 1000 * limits.members


def test_a_million_names_in_one_member(site: Site) -> None:
    """Directories that no member names count, too."""
    deep = [pax(path="/".join([f"d{number}"] * 120)) + folder("d") for number in range(20)]
    site.refuses("more than 300 members", *deep, limits=Limits(members=300))


def test_memory_of_long_names(site: Site) -> None:
    long = [pax(path="n" * 200 + f"/{number}") + folder("d") for number in range(200)]
    site.refuses("bytes of names", *long, limits=Limits(names=20_000))


def test_deep_nesting(site: Site) -> None:
    site.refuses("more than 128 directories deep", pax(path="d/" * 129) + folder("d"))
    # Each name is short, but a link makes the path longer.
    members = [pax(path="d/" * 127 + "d") + folder("d"), pax(linkpath="d/" * 128) + link("l", "x")]
    site.refuses("directories deep", *members, folder("l/one/more"))
    site.unpack(tar(pax(path="d/" * 128) + folder("d")))


def test_pax_size_lie(site: Site) -> None:
    """Larger than what is there: cut short. Smaller: the rest is no header."""
    data = padded(b"x" * 700)
    site.refuses("cut short", pax(size="1000000") + header("a", b"0", 700) + data)
    site.refuses("is damaged", pax(size="100") + header("a", b"0", 700) + data)
    site.refuses("a negative size", pax(size="-700") + header("a", b"0", 700) + data)
    site.refuses("its size is no number", pax(size="0x10") + header("a", b"0", 700) + data)
    site.refuses("its size is no number", pax(size="9" * 30) + header("a", b"0", 700) + data)


def test_size_beyond_the_limit_that_a_header_states(site: Site) -> None:
    site.refuses("cut short", header("a", b"0", size_field=b"77777777777"))
    site.refuses("bytes come out", file("a", bytes(9000)), limits=Limits(total=9000))


def test_truncated_archive(site: Site) -> None:
    whole = tar(file("a", b"x" * 600), file("b", b"y" * 600))
    for end in range(0, len(whole) - len(END) + 1, 256):
        with pytest.raises(ImageRefused, match="cut short"):
            site.unpack(whole[:end])
        site.check()
        assert not site.root.exists()


def test_names_that_differ_in_case(site: Site) -> None:
    with Spool() as spool:
        tree = tree_of(tar(file("Makefile"), file("makefile")), spool)
    assert tree.warnings == ["x.tar: 'makefile' and 'Makefile' differ only in case"]


def test_names_of_terminals_and_line_feeds_do_not_reach_the_message(site: Site) -> None:
    with pytest.raises(ImageRefused) as caught:
        site.unpack(tar(file("../\x1b[2J\nok")))
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


# --- at random ------------------------------------------------------------------------------------

PART = st.sampled_from(["a", "b", "c", "l", "m", "canary", "sings", ".", "..", "", "A"])
NAME = st.lists(PART, min_size=1, max_size=5).map("/".join)
OUTSIDE = st.sampled_from(["/", "../", "../../", "a/../", "/../"])
TARGET = st.one_of(NAME, st.builds(lambda start, rest: start + rest, OUTSIDE, NAME))


@st.composite
def hostile_member(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from([b"0", b"0", b"5", b"5", b"2", b"2", b"2", b"1", b"1", b"3", b"x"]))
    name = draw(st.one_of(NAME, NAME, NAME, TARGET))
    mode = draw(st.integers(0, 0o7777))
    data = draw(st.binary(max_size=20)) if kind == b"0" else b""
    if kind == b"x":
        return pax(path=draw(TARGET), size=str(draw(st.integers(-1, 600)))) + file(name, data)
    target = draw(TARGET) if kind in {b"1", b"2"} else ""
    if kind == b"2" and draw(st.booleans()):
        target = draw(st.sampled_from([".", "..", "/", "a", "l", "../a", "m/..", "a/b"]))
    return header(name, kind, len(data), target=target, mode=mode) + padded(data)


@given(st.lists(hostile_member(), min_size=1, max_size=12), st.booleans())
def test_nothing_outside_is_touched(members: list[bytes], whole: bool) -> None:
    data = tar(*members)
    with tempfile.TemporaryDirectory(prefix="gt-") as base:
        site = Site(Path(base))
        try:
            site.unpack(data if whole else data[: len(data) * 2 // 3])
        except ImageRefused:
            assert not site.root.exists()
        else:
            assert site.root.is_dir()
        site.check()


@st.composite
def plain_member(draw: st.DrawFn) -> bytes:
    """Of those that are mostly let in, so that long sequences survive."""
    part = st.sampled_from(["a", "b", "l", "m"])
    name = "/".join(draw(st.lists(part, min_size=1, max_size=3)))
    kind = draw(st.sampled_from([b"0", b"5", b"2", b"1"]))
    target = "/".join(draw(st.lists(part | st.just(".."), min_size=1, max_size=4)))
    if kind in {b"0", b"5"}:
        return file(name, b"data") if kind == b"0" else folder(name)
    return header(name, kind, target=draw(st.sampled_from([target, f"/{target}"])).lstrip(
        "/" if kind == b"1" else ""
    ))  # fmt: skip


@given(st.lists(plain_member(), min_size=1, max_size=15))
def test_the_directory_is_the_tree(members: list[bytes]) -> None:
    """What the disk ends up with is what was judged, also through links."""
    rules: list[bytes] = []
    with Spool() as spool, tempfile.TemporaryDirectory(prefix="gt-") as base:
        for member in members:  # keep those that stand together
            with suppress(ImageRefused):
                tree_of(tar(*rules, member), spool)
                rules.append(member)
        expected = tree_listing(tree_of(tar(*rules), spool))
        site = Site(Path(base))
        site.unpack(tar(*rules))
        site.check()
        found = listing(site.root)
    assert found.keys() == expected.keys()
    for name, (kind, _, content) in expected.items():
        assert found[name][0] == kind
        if kind == "file":
            assert found[name][2] == content
        if kind == "symbolic link" and not str(content).startswith("/"):
            assert found[name][2] == content


@st.composite
def layer_member(draw: st.DrawFn) -> bytes:
    member = draw(st.one_of(plain_member(), hostile_member()))
    if draw(st.integers(0, 3)):
        return member
    directory = draw(NAME)
    mark = draw(st.sampled_from([".wh.a", ".wh.l", ".wh..wh..opq", ".wh...", ".wh.."]))
    return file(f"{directory}/{mark}")


@given(st.lists(st.lists(layer_member(), max_size=6), min_size=1, max_size=4))
def test_layers_give_a_tree_that_is_fine_or_none(layers: list[list[bytes]]) -> None:
    with Spool() as spool:
        tree = Tree()
        try:
            for members in layers:
                rules = gate()
                add_layer(tree, read_archive(io.BytesIO(tar(*members)), rules), rules, spool)
            tree.check("x")
        except ImageRefused:
            return
        again = tree_of(b"".join(tar_of(tree)), spool)
        assert tree_listing(again) == tree_listing(tree)
        assert not any(".wh." in name for name in tree_listing(tree))


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_garbage_is_refused_and_nothing_else(noise: bytes, at: int) -> None:
    """No error but ImageRefused, whatever the bytes."""
    whole = tar(folder("a"), file("a/b", b"x" * 300), link("l", "a/b"), hard("h", "a/b"))
    for data in (noise, whole[:at] + noise + whole[at:], whole[:at] + noise):
        for packed in (data, gzip.compress(data), b"PK\3\4" + data, gzip.compress(data)[:-9]):
            with suppress(ImageRefused):
                members_of(packed)


class tracemalloc_peak:
    """The most memory that Python took inside the block, in bytes, as the one item."""

    def __enter__(self) -> list[int]:
        self.peak = [0]
        tracemalloc.start()
        return self.peak

    def __exit__(self, *_: object) -> None:
        self.peak[0] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def test_the_canary_can_die(site: Site) -> None:
    """The check of these tests finds what it looks for."""
    os.link(site.canary / "sings", site.base / "canary" / "second")
    with pytest.raises(AssertionError):
        site.check()
    os.unlink(site.canary / "second")
