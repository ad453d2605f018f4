"""Directories and modules become archives: by content alone, within a limit, and whole again."""

from __future__ import annotations

import os
import shutil
import socket
import zipfile
from pathlib import Path

import pytest

from guactors.errors import UsageError
from guactors.images.manifest import parse_manifest
from guactors.images.store import ImageStore
from guactors.images.unpack import unpack_image
from guactors.runtime_env.packing import (
    Archive,
    lines_of,
    pack_directory,
    pack_file,
    pack_module,
)

MOST = 1 << 20


@pytest.fixture
def project(tmp_path: Path) -> Path:
    place = tmp_path / "project"
    (place / "package").mkdir(parents=True)
    (place / "main.py").write_text("print(1)\n")
    (place / "package" / "__init__.py").write_text("X = 1\n")
    (place / "package" / "data.bin").write_bytes(b"\0" * 100)
    (place / "run.sh").write_text("#!/bin/sh\n")
    (place / "run.sh").chmod(0o755)
    (place / ".git").mkdir()
    (place / ".git" / "config").write_text("secret")
    (place / "package" / "__pycache__").mkdir()
    (place / "package" / "__pycache__" / "x.pyc").write_bytes(b"x")
    return place


def unpacked(archive: Archive, tmp_path: Path) -> Path:
    """What a provider makes of it."""
    target = tmp_path / f"unpacked-{archive.id[-8:]}"
    store = ImageStore(tmp_path / "store", quota=1 << 30, now=lambda: 1.0)
    (blob,) = parse_manifest(archive.manifest).blobs
    if store.missing_blobs(parse_manifest(archive.manifest)):
        partial = store.open_partial(blob)
        for index, chunk in enumerate(archive.chunks):
            partial.write(index, chunk)
        partial.seal()
        partial.close()
    store.add_image(archive.manifest)
    unpack_image(store, archive.id, target)
    return target


def names(place: Path) -> set[str]:
    return {str(one.relative_to(place)) for one in place.rglob("*") if one.is_file()}


def test_it_arrives_as_it_was_without_what_nobody_needs(project: Path, tmp_path: Path) -> None:
    there = unpacked(pack_directory(str(project), [], MOST), tmp_path)
    assert names(there) == {"main.py", "package/__init__.py", "package/data.bin", "run.sh"}
    assert (there / "main.py").read_text() == "print(1)\n"
    assert os.access(there / "run.sh", os.X_OK)


def test_the_same_content_has_the_same_id(project: Path, tmp_path: Path) -> None:
    first = pack_directory(str(project), [], MOST)
    other = tmp_path / "elsewhere"
    shutil.copytree(project, other)
    os.utime(other / "main.py", (1, 1))
    (other / ".git" / "config").write_text("other")
    assert pack_directory(str(other), [], MOST).id == first.id
    (other / "main.py").write_text("print(2)\n")
    assert pack_directory(str(other), [], MOST).id != first.id


def test_a_zip_is_the_directory_it_holds(project: Path, tmp_path: Path) -> None:
    packed = tmp_path / "project.zip"
    with zipfile.ZipFile(packed, "w") as out:
        out.write(project / "main.py", "main.py")
    there = unpacked(pack_directory(str(packed), [], MOST), tmp_path)
    assert names(there) == {"main.py"}


# A pattern that ends in a slash is of directories; run.sh is none.
@pytest.mark.parametrize(
    ("excludes", "left"),
    [
        (["*.bin"], {"main.py", "package/__init__.py", "run.sh"}),
        (["package/"], {"main.py", "run.sh"}),
        (["/package/data.bin"], {"main.py", "package/__init__.py", "run.sh"}),
        (["./main.py", "run.sh/"], {"package/__init__.py", "package/data.bin", "run.sh"}),
    ],
)
def test_excludes(project: Path, tmp_path: Path, excludes: list[str], left: set[str]) -> None:
    assert names(unpacked(pack_directory(str(project), excludes, MOST), tmp_path)) == left


def test_too_much_is_refused_by_the_names_of_the_largest(project: Path) -> None:
    (project / "package" / "huge.bin").write_bytes(b"\0" * (MOST + 1))
    with pytest.raises(UsageError, match=r"package/huge.bin \(1.0 MiB\).*excludes=.*max_bytes"):
        pack_directory(str(project), [], MOST)
    pack_directory(str(project), ["huge.bin"], MOST)
    pack_directory(str(project), [], 2 * MOST)


def test_what_cannot_travel(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory and no archive"):
        pack_directory(str(tmp_path / "none"), [], MOST)
    (project / "out").symlink_to("../../outside")
    with pytest.raises(UsageError, match="excludes= leaves it out"):
        pack_directory(str(project), [], MOST)
    pack_directory(str(project), ["out"], MOST)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(project)
        try:
            listener.bind("s")
        finally:
            os.chdir(here)
        with pytest.raises(UsageError, match="excludes= leaves it out"):
            pack_directory(str(project), ["out"], MOST)


def test_a_zip_that_leads_out_is_refused(tmp_path: Path) -> None:
    packed = tmp_path / "bad.zip"
    with zipfile.ZipFile(packed, "w") as out:
        out.writestr("../../escaped", "x")
    with pytest.raises(UsageError):
        pack_directory(str(packed), [], MOST)
    assert not (tmp_path.parent / "escaped").exists()


def test_modules_come_under_their_names(project: Path, tmp_path: Path) -> None:
    there = unpacked(pack_module(str(project / "package"), ["*.bin"], MOST), tmp_path)
    assert names(there) == {"package/__init__.py"}
    assert names(unpacked(pack_module(str(project / "main.py"), [], MOST), tmp_path)) == {"main.py"}
    import msgspec

    assert "msgspec/__init__.py" in names(unpacked(pack_module(msgspec, [], 50 * MOST), tmp_path))


def test_a_wheel_is_what_it_would_install(tmp_path: Path) -> None:
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr("thing/__init__.py", "")
    there = unpacked(pack_module(str(wheel), [], MOST), tmp_path)
    assert names(there) == {"thing/__init__.py"}


def test_one_file(tmp_path: Path) -> None:
    there = unpacked(pack_file("hook.pickle", b"x" * 1000), tmp_path)
    assert (there / "hook.pickle").read_bytes() == b"x" * 1000


def test_requirements(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# what we need\n\nnumpy==1.26 \\\n  --hash=x\n  scipy  \n")
    assert lines_of(str(file)) == ["numpy==1.26    --hash=x", "scipy"]
    with pytest.raises(UsageError, match="cannot be read"):
        lines_of(str(tmp_path / "none"))
