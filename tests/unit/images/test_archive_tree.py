"""How members stand to each other, and layers over layers (``images/tree.py``, ``layers.py``), and
that a tree is written as it was read (``tar_writer.py``)."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import ImageRefused
from guactors.images.archive import read_archive
from guactors.images.layers import add_layer
from guactors.images.members import Kind, Limits
from guactors.images.spool import Spool
from guactors.images.tar_writer import gzip_of, stream_of, tar_of
from guactors.images.tree import Tree
from tests.unit.images.archives import (
    file,
    folder,
    gate,
    hard,
    header,
    link,
    members_of,
    pax,
    tar,
    tree_listing,
    tree_of,
)


@pytest.fixture
def spool() -> Iterator[Spool]:
    with Spool() as spool:
        yield spool


def layered(spool: Spool, *layers: bytes) -> Tree:
    tree = Tree()
    for number, data in enumerate(layers):
        rules = gate(what=f"layer {number}")
        add_layer(tree, read_archive(io.BytesIO(data), rules), rules, spool)
    tree.check("x")
    return tree


def names(tree: Tree) -> list[str]:
    return ["/".join(path) for path, _ in tree.walk()]


# --- one archive ----------------------------------------------------------------------------------


def test_missing_directories_are_made_and_names_come_sorted(spool: Spool) -> None:
    tree = tree_of(tar(file("b/c/d"), file("a.b"), folder("a"), file("a/z")), spool)
    assert names(tree) == ["a", "a/z", "a.b", "b", "b/c", "b/c/d"]


def test_what_comes_later_replaces_and_directories_are_joined(spool: Spool) -> None:
    tree = tree_of(
        tar(folder("d", 0o700), file("d/a", b"old"), folder("d", 0o711), file("d/a", b"new")), spool
    )
    assert tree_listing(tree) == {"d": ("directory", 0o711, ""), "d/a": ("file", 0o644, b"new")}


def test_links_on_a_path_are_followed_inside_the_new_root(spool: Spool) -> None:
    tree = tree_of(
        tar(
            folder("usr/lib"),
            link("lib", "usr/lib"),
            link("abs", "/usr"),
            link("usr/up", ".."),
            file("lib/one"),
            file("abs/lib/two"),
            file("usr/up/lib/three"),
        ),
        spool,
    )
    assert [name for name in names(tree) if name.startswith("usr/lib/")] == [
        "usr/lib/one", "usr/lib/three", "usr/lib/two",
    ]  # fmt: skip


def test_a_hard_link_is_another_name_and_outlives_the_first(spool: Spool) -> None:
    tree = tree_of(
        tar(file("a", b"one"), hard("b", "a"), file("a", b"two"), hard("c", "b"), link("s", "a"),
            hard("t", "s"), hard("c", "b")),
        spool,
    )  # fmt: skip
    found = tree_listing(tree)
    assert (found["a"][2], found["b"][2], found["c"][2]) == (b"two", b"one", b"one")
    assert found["t"] == found["s"] == ("symbolic link", 0o777, "a")
    kinds = {member.name: (member.kind, member.target) for member, _ in members_of(_packed(tree))}
    assert kinds["b"] == (Kind.FILE, "")
    assert kinds["c"] == (Kind.HARDLINK, "b")


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ((file("d/a"), file("d")), "'d': a file where a directory already is"),
        ((file("d/a"), link("d", "x")), "'d': a symbolic link where a directory already is"),
        ((file("a"), file("d/a"), hard("d", "a")), "'d': a hard link where a directory already is"),
        ((file("d"), folder("d")), "'d': a directory where a file already is"),
        ((link("d", "x"), folder("d")), "a directory where a symbolic link already is"),
        ((file("a"), file("a/b")), "'a/b': 'a' on its path is no directory"),
        ((file("f"), link("l", "f"), file("l/b")), "'l/b': 'f' on its path is no directory"),
        ((hard("b", "a"), file("a")), "'b': a hard link to 'a', which is not there"),
        ((hard("a", "a"),), "a hard link to 'a', which is not there"),
        ((folder("d"), hard("b", "d")), "a hard link to the directory 'd'"),
        ((link("l", ".."),), "'l': a link out of the root, to '..'"),
        ((link("d/l", "../.."),), "'d/l': a link out of the root"),
        ((link("l", "a/../../x"),), "a link out of the root"),
        ((link("l", "/../x"),), "a link out of the root"),
        ((file("f"), link("l", "f/../../f")), "a link out of the root"),
        ((link("a", "b"), link("b", "a"), file("a/x")), "a circle of links on its path"),
        ((link("n", "missing/../x"), file("n/y")), "leaves what does not exist"),
        (
            (link("here", "."), link("l", "here/here/../../x"), file("l/y")),
            "'l/y': a link on its path leads out of the root",
        ),
        (
            (link("here", "."), link("l", "here/here/../../x")),
            "'l': a link out of the root, to 'here/here/../../x'",
        ),
        (
            (folder("a/b"), link("s", "a/b"), link("a/b/l", "../../../x")),
            "'a/b/l': a link out of the root",
        ),
    ],
)  # fmt: skip
def test_members_in_each_others_way(members: tuple[bytes, ...], rule: str, spool: Spool) -> None:
    with pytest.raises(ImageRefused, match=rule):
        tree_of(tar(*members), spool)


def test_a_link_that_becomes_one_out_of_the_root_is_found_when_all_is_there(spool: Spool) -> None:
    """Each link looks well by itself: the first ones make the last one climb."""
    members = [folder("a"), link("a/l", "b/c/../../x"), link("a/b", "."), link("a/c", "..")]
    with pytest.raises(ImageRefused, match="'a/l': a link out of the root"):
        tree_of(tar(*members), spool)


@pytest.mark.parametrize(
    "members",
    [
        (link("l", "nowhere"),),
        (link("l", "/etc/mtab"),),
        (link("a", "b"), link("b", "a")),
        (folder("a/b"), link("a/b/l", "../../x")),
        (link("l", "missing/../x"),),
    ],
)
def test_links_that_lead_nowhere_but_not_out(members: tuple[bytes, ...], spool: Spool) -> None:
    assert tree_of(tar(*members), spool).root.children


def test_names_that_differ_only_in_case_are_flagged(spool: Spool) -> None:
    tree = tree_of(tar(file("d/Name"), file("d/nAME"), file("d/e\u0301"), file("d/é")), spool)
    assert sorted(tree.warnings) == [
        "x.tar: 'd/nAME' and 'Name' differ only in case",
        "x.tar: 'd/é' and 'e\u0301' differ only in case",
    ]


def test_directories_that_nobody_names_count_as_members(spool: Spool) -> None:
    deep = "/".join("abcdefghij")
    with pytest.raises(ImageRefused, match="more than 8 members"):
        tree_of(tar(file(deep)), spool, Limits(members=8))


def test_links_cannot_make_a_path_too_deep_or_too_long(spool: Spool) -> None:
    name = "/".join(["d" * 20] * 10)
    members = [pax(path=name) + folder("x"), pax(linkpath=name) + link("l", "x")]
    chain = [file("l/" + "/".join(["e"] * 20))]
    with pytest.raises(ImageRefused, match="directories deep"):
        tree_of(tar(*members, *chain), spool, Limits(depth=24))
    with pytest.raises(ImageRefused, match="make its name too long"):
        tree_of(tar(*members, file("l/" + "f" * 90)), spool, Limits(name=250))


def test_links_through_links_do_not_keep_us_busy(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guactors.images.tree._STEPS", 2000)
    members = [link(f"l{number}", "./" * 8 + f"l{number + 1}") for number in range(30)]
    members.append(link("l30", "."))
    with pytest.raises(ImageRefused, match="too many links through links"):
        tree_of(tar(*members, *(file(f"l0/{number}") for number in range(9))), spool)


def test_a_mark_of_a_layer_in_an_archive_that_is_none(spool: Spool) -> None:
    with pytest.raises(ImageRefused, match=r"'etc/\.wh\.passwd': a mark of a layer"):
        tree_of(tar(file("etc/.wh.passwd")), spool)


def test_finding_follows_links(spool: Spool) -> None:
    tree = tree_of(
        tar(file("usr/bin/python3.11", b"elf"), link("usr/bin/python3", "python3.11"),
            link("bin", "/usr/bin"), link("loop", "loop")),
        spool,
    )  # fmt: skip
    assert tree.real_path("/bin/python3") == ("usr", "bin", "python3.11")
    found = tree.find("bin/python3")
    assert found is not None and found.size == 3
    for missing in ("bin/perl", "loop/x", "../x", "usr/bin/python3.11/x"):
        assert tree.find(missing) is None
        assert tree.real_path(missing) is None


# --- layers ---------------------------------------------------------------------------------------

BASE = tar(folder("etc"), file("etc/a", b"1"), file("etc/b", b"1"), file("etc/sub/c"), file("top"))


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        ([file("etc/.wh.a")], ["etc", "etc/b", "etc/sub", "etc/sub/c", "top"]),
        ([file(".wh.etc")], ["top"]),
        ([file("etc/.wh.nothing")], ["etc", "etc/a", "etc/b", "etc/sub", "etc/sub/c", "top"]),
        ([file("none/.wh.x")], ["etc", "etc/a", "etc/b", "etc/sub", "etc/sub/c", "top"]),
        ([file("etc/.wh..wh..opq"), file("etc/new")], ["etc", "etc/new", "top"]),
        ([file("etc/new"), file("etc/.wh..wh..opq")], ["etc", "etc/new", "top"]),
        ([folder("etc"), file("etc/.wh..wh..opq")], ["etc", "top"]),
        ([file("etc/a", b"2"), file("etc/.wh.a")],
         ["etc", "etc/a", "etc/b", "etc/sub", "etc/sub/c", "top"]),
        ([file("etc/sub/new"), file("etc/.wh.sub")],
         ["etc", "etc/a", "etc/b", "etc/sub", "etc/sub/new", "top"]),
        ([file("etc", b"now a file")], ["etc", "top"]),
        ([folder("top"), file("top/x")],
         ["etc", "etc/a", "etc/b", "etc/sub", "etc/sub/c", "top", "top/x"]),
        ([file(".wh..wh.plnk"), file(".wh..wh.aufs/x")],
         ["etc", "etc/a", "etc/b", "etc/sub", "etc/sub/c", "top"]),
    ],
)  # fmt: skip
def test_marks_hide_what_is_below_and_nothing_else(
    upper: list[bytes], expected: list[str], spool: Spool
) -> None:
    assert names(layered(spool, BASE, tar(*upper))) == expected


def test_a_hard_link_to_a_lower_layer_outlives_what_the_layer_hides(spool: Spool) -> None:
    tree = layered(spool, BASE, tar(hard("kept", "etc/a"), file("etc/.wh..wh..opq"), folder("etc")))
    assert tree_listing(tree)["kept"] == ("file", 0o644, b"1")
    assert names(tree) == ["etc", "kept", "top"]


def test_a_mark_follows_links_inside_the_root(spool: Spool) -> None:
    tree = layered(spool, tar(file("usr/lib/x"), link("lib", "usr/lib")), tar(file("lib/.wh.x")))
    assert names(tree) == ["lib", "usr", "usr/lib"]


def test_an_upper_layer_does_not_fill_a_lower_layers_file(spool: Spool) -> None:
    with pytest.raises(ImageRefused, match="layer 1: 'top/x': 'top' on its path is no directory"):
        layered(spool, BASE, tar(file("top/x")))


@pytest.mark.parametrize(
    ("mark", "rule"),
    [
        (file("etc/.wh..."), "means no name in its directory"),
        (file(".wh..."), "means no name in its directory"),
        (file("etc/.wh.."), "means no name in its directory"),
        (file("etc/.wh."), "means no name in its directory"),
        (file("../.wh.passwd"), r"'\.\.' in a name"),
        (file("etc/.wh.a", b"content"), "must be an empty file"),
        (link("etc/.wh.a", "b"), "must be an empty file"),
        (folder("etc/.wh.a"), "must be an empty file"),
        (file("etc/.wh.a/b"), "a mark of a layer that is a directory"),
    ],
)
def test_marks_that_would_reach_out_of_their_layer(mark: bytes, rule: str, spool: Spool) -> None:
    with pytest.raises(ImageRefused, match=rule):
        layered(spool, BASE, tar(mark))


# --- written as read ------------------------------------------------------------------------------


def _packed(tree: Tree) -> bytes:
    return b"".join(tar_of(tree))


def test_a_tree_is_written_in_one_form(spool: Spool) -> None:
    one = tree_of(tar(file("b", b"2", uid=70000), folder("a/"), file("a/x", mtime=99)), spool)
    other = tree_of(tar(file("./a/x", mtime=99), file("b", b"2", uid=70000)), spool)
    assert _packed(one) == _packed(other)
    with tarfile.open(fileobj=io.BytesIO(_packed(one))) as archive:
        assert archive.getnames() == ["a", "a/x", "b"]
        assert archive.getmember("b").uid == 70000
        assert archive.getmember("a/x").mtime == 99


def test_gzip_has_no_time_and_no_name(spool: Spool) -> None:
    data = b"".join(gzip_of(tar_of(tree_of(tar(file("a", b"x" * 5000)), spool))))
    assert gzip.decompress(data) == _packed(tree_of(tar(file("a", b"x" * 5000)), spool))
    assert data[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


def test_a_content_that_became_another_is_not_written(spool: Spool) -> None:
    tree = tree_of(tar(file("a", b"four")), spool)
    for pieces in (["fo"], ["four", "x"], []):
        node = tree.root.children["a"]
        node.content = spool.keep(one.encode() for one in pieces)
        with pytest.raises(ImageRefused, match=r"'a' has . bytes, 4 were there before"):
            _packed(tree)


@given(st.lists(st.binary(max_size=300)), st.lists(st.integers(1, 500), min_size=1, max_size=4))
def test_pieces_are_a_file(pieces: list[bytes], sizes: list[int]) -> None:
    stream = stream_of(iter(pieces))
    found = []
    while data := stream.read(sizes[len(found) % len(sizes)]):
        found.append(data)
    assert b"".join(found) == b"".join(pieces)


NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8
).filter(lambda name: name not in {".", ".."} and not name.startswith(".wh."))
ENTRY = st.tuples(
    st.lists(NAME, min_size=1, max_size=4).map("/".join),
    st.binary(max_size=40),
    st.integers(0, 0o1777),
    st.integers(0, 2**32 - 2),
    st.integers(0, 2**32 - 1),
)


@given(st.lists(ENTRY, max_size=12))
def test_what_is_written_is_read_again(entries: list[tuple[str, bytes, int, int, int]]) -> None:
    members = []
    taken: set[str] = set()
    for name, data, mode, uid, mtime in entries:
        parents = {name[:at] for at, mark in enumerate(name) if mark == "/"}
        if name in taken or parents & taken or any(one.startswith(f"{name}/") for one in taken):
            continue
        taken.add(name)
        numbers = {"uid": str(uid), "mtime": str(mtime)}
        members.append(pax(path=name, **numbers) + header("x", b"0", len(data), mode=mode))
        members[-1] += data + bytes(-len(data) % 512)
    with Spool() as spool:
        tree = tree_of(tar(*members), spool)
        again = tree_of(_packed(tree), spool)
        assert tree_listing(again) == tree_listing(tree)
        assert _packed(again) == _packed(tree)
        assert {name for name, one in tree_listing(tree).items() if one[0] == "file"} == taken
