"""An image of Debian packages: what is fetched, what it unpacks to, what is said where it fails."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import time
from pathlib import Path

import pytest

from guactors.errors import GuactorsError, RuntimeMissing, UsageError
from guactors.images.debian import build_debian, tree_of
from guactors.images.spool import Spool
from guactors.images.store import ImageStore
from guactors.runtimes.apt import fetch

pytestmark = pytest.mark.needs("posix", "sh")


def deb(path: Path, files: dict[str, bytes | str]) -> Path:
    """A package with files; a text is where a link leads."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            if isinstance(data, str):
                member.type, member.linkname = tarfile.SYMTYPE, data
                archive.addfile(member)
            elif name.endswith("/"):
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            else:
                member.size, member.mode = len(data), 0o755
                archive.addfile(member, io.BytesIO(data))
    content = lzma.compress(made.getvalue())
    parts = [b"!<arch>\n"]
    for name, data in (("debian-binary", b"2.0\n"), ("data.tar.xz", content)):
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}".encode() + b"`\n"
        parts += [head, data, b"\n" * (len(data) % 2)]
    path.write_bytes(b"".join(parts))
    return path


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all of PATH, with an apt-config and an apt-get that "downloads" what is
    in ``there``."""
    tools, there = tmp_path / "tools", tmp_path / "there"
    tools.mkdir()
    there.mkdir()
    config = "#!/bin/sh\ncase $1 in shell) echo \"A='amd64'\";; *) echo amd64;; esac\n"
    get = (
        "#!/bin/sh\nfor word; do case $word in\n"
        'nosuch*) echo "E: Unable to locate package $word" >&2; exit 100;;\n'
        "broken) echo 'E: the network is down' >&2; exit 100;;\n"
        "Dir::Cache::archives=*) to=${word#*=};;\nesac; done\n"
        f"/bin/cp {there}/*.deb $to/\n"
    )
    for name, text in (("apt-config", config), ("apt-get", get)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    deb(there / "one.deb", {"bin/tool": b"tool", "usr/bin/busybox": b"box", "etc/": b""})
    return there


def test_packages_become_one_tree_with_merged_usr(tmp_path: Path) -> None:
    one = deb(
        tmp_path / "one.deb",
        {
            "bin/": b"",
            "bin/tool": b"one",
            "lib64/ld.so": "/lib/there/ld.so",
            "lib/there/ld.so": b"l",
        },
    )
    two = deb(
        tmp_path / "two.deb",
        {"usr/bin/busybox": b"box", "etc/passwd": b"mine:x:0:0::/:/bin/sh\n", "bin": "usr/bin"},
    )
    with Spool() as spool:
        tree = tree_of([one, two], spool)
        found = {"/".join(path): node for path, node in tree.walk()}
        assert found["bin"].itself.target == "usr/bin"
        assert {"usr/bin/tool", "usr/lib64/ld.so", "usr/lib/there/ld.so", "tmp"} <= set(found)
        assert found["usr/bin/sh"].itself.target == "busybox"
        content = found["etc/passwd"].itself.content
        assert content is not None
        assert b"".join(content.pieces()).startswith(b"mine")
        assert "etc/group" in found


def test_the_same_packages_give_the_same_image(apt: Path, tmp_path: Path) -> None:
    ids = set()
    for name in ("a", "b"):
        store = ImageStore(tmp_path / name, quota=1 << 30, now=time.time)
        ids.add(build_debian(["one"], store, name="one", media="tar", arch="amd64"))
    assert len(ids) == 1
    assert apt.exists()


@pytest.mark.parametrize(
    ("packages", "arch", "kind", "said"),
    [
        ([], "x86_64", UsageError, "no package is named"),
        (["--reinstall"], "x86_64", UsageError, "no name of a Debian package"),
        (["one:arm64"], "x86_64", UsageError, "no name of a Debian package"),
        (["one", "nosuch-thing"], "x86_64", UsageError, "nosuch-thing.*apt-cache search"),
        (["one"], "aarch64", UsageError, "not for arm64: run dpkg --add-architecture arm64"),
        (["broken"], "x86_64", RuntimeMissing, "the network is down"),
    ],
)
def test_what_cannot_be_fetched_is_said(
    apt: Path, tmp_path: Path, packages: list[str], arch: str, kind: type[GuactorsError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        fetch(packages, tmp_path / "to", arch)
    assert apt.exists()


def test_a_machine_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeMissing, match="gu image import"):
        fetch(["one"], tmp_path, "x86_64")


@pytest.mark.parametrize("name", ["../../etc/passwd", "usr/bin/../../../x"])
def test_a_package_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    hostile = deb(tmp_path / "hostile.deb", {name: b"x"})
    with Spool() as spool, pytest.raises(UsageError, match=r"hostile\.deb"):
        tree_of([hostile], spool)


def test_what_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "no.deb").write_bytes(os.urandom(99))
    with Spool() as spool, pytest.raises(UsageError, match="no Debian package"):
        tree_of([tmp_path / "no.deb"], spool)
