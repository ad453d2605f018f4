"""Directories as disks of guests: what is made once, made anew, refused and forgotten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guactors.errors import ImageRefused, RuntimeMissing, UsageError
from guactors.runtimes.base import Mount
from guactors.runtimes.qemu import data
from guactors.runtimes.qemu.data import AT_ONCE, DataDisk, DataDisks, check_marks

pytestmark = pytest.mark.needs("linux", "mksquashfs")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "file").write_text("content")
    (made / "link").symlink_to("/nowhere/at/all")
    return made


@pytest.fixture
def disks(tmp_path: Path) -> DataDisks:
    return DataDisks(tmp_path / "kept", count=2)


@contextmanager
def opened(disks: DataDisks, *sources: Path) -> Iterator[tuple[DataDisk, ...]]:
    found = disks.open([Mount(str(one), f"/mnt/{one.name}") for one in sources])
    try:
        yield found
    finally:
        for one in found:
            os.close(one.fd)


def inode(disks: DataDisks, source: Path) -> int:
    """Of the disk of a directory."""
    with opened(disks, source) as found:
        assert os.pread(found[0].fd, 4, 0) == b"hsqs"
        return os.fstat(found[0].fd).st_ino


def kept(tmp_path: Path) -> int:
    return len(list((tmp_path / "kept").iterdir()))


def test_it_is_made_once(disks: DataDisks, source: Path, tmp_path: Path) -> None:
    with opened(disks, source) as first, opened(disks, source) as second:
        assert first[0].mark == second[0].mark
        assert os.fstat(first[0].fd).st_ino == os.fstat(second[0].fd).st_ino
    assert kept(tmp_path) == 1
    assert inode(DataDisks(tmp_path / "kept"), source) == inode(disks, source)


def test_it_is_made_anew_when_anything_changed(disks: DataDisks, source: Path) -> None:
    seen = {inode(disks, source)}
    file = source / "sub" / "file"
    with opened(disks, source) as before:
        times = os.stat(file)
        file.write_text("CONTENT")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        with opened(disks, source) as after:
            assert before[0].mark != after[0].mark
            seen.add(os.fstat(after[0].fd).st_ino)
            with pytest.raises(ImageRefused, match="saved with something else at /mnt/source"):
                check_marks((before[0].mark,), after, "saved")
            with pytest.raises(ImageRefused, match="2 mounts, and 1 are given"):
                check_marks((after[0].mark, "x"), after, "saved")
            check_marks((), after, "saved")
            check_marks((after[0].mark,), after, "saved")
    assert len(seen) == 2


def test_made_again_it_is_the_same(source: Path, tmp_path: Path) -> None:
    """A guest that was saved has parts of its disk in memory, and goes on with one made again."""
    for number in range(300):
        (source / "sub" / f"f{number}").write_bytes(os.urandom(number * 50))
    found = []
    for name in ("one", "two"):
        with opened(DataDisks(tmp_path / name), source) as made:
            found.append(Path(f"/proc/self/fd/{made[0].fd}").read_bytes())
    assert found[0] == found[1]


def test_the_order_is_that_of_the_places(disks: DataDisks, source: Path, tmp_path: Path) -> None:
    mounts = [Mount(str(source), "/a/b"), Mount(str(source), "/a")]
    found = disks.open(mounts)
    assert [one.target for one in found] == ["/a", "/a/b"]
    for one in found:
        os.close(one.fd)


def test_what_was_used_longest_ago_goes_but_never_what_is_in_use(
    disks: DataDisks, tmp_path: Path
) -> None:
    sources = []
    for number in range(4):
        sources.append(tmp_path / f"s{number}")
        sources[-1].mkdir()
        (sources[-1] / "file").write_text(str(number))
    with opened(disks, sources[0]) as held:
        for number in (1, 2, 3):
            with opened(disks, sources[number]):
                pass
        assert kept(tmp_path) == 2
        first = os.fstat(held[0].fd)
        assert first.st_nlink == 1
        assert inode(disks, sources[0]) == first.st_ino
        assert kept(tmp_path) == 2


def test_one_that_a_dead_process_held_can_go(disks: DataDisks, source: Path) -> None:
    """The lock is the open file's, whoever has it: nothing is left to clean up."""
    with opened(disks, source) as found:
        path = Path(f"/proc/self/fd/{found[0].fd}").resolve()
        assert not data._removed(path)
    assert data._removed(path)
    assert not path.exists()


def test_a_squashfs_is_taken_as_it_is(disks: DataDisks, source: Path, tmp_path: Path) -> None:
    with opened(disks, source) as found:
        whole = Path(f"/proc/self/fd/{found[0].fd}").read_bytes()
    file = tmp_path / "own.squashfs"
    file.write_bytes(whole)
    with opened(disks, file) as found:
        assert os.fstat(found[0].fd).st_ino == file.stat().st_ino
    file.write_bytes(b"something else")
    with pytest.raises(UsageError, match=r"directories and squashfs files, and .*own\.squashfs"):
        disks.open([Mount(str(file), "/x")])
    with pytest.raises(UsageError, match="it is no directory"):
        disks.open([Mount("/dev/null", "/x")])


def test_what_is_too_much(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make a squashfs of it yourself"):
        DataDisks(tmp_path / "kept", most=4).open([Mount(str(source), "/x")])
    many = [Mount(str(source), f"/x{number}") for number in range(AT_ONCE + 1)]
    with pytest.raises(UsageError, match="8 directories at most, not 9"):
        DataDisks(tmp_path / "kept").open(many)
    assert not (tmp_path / "kept").exists()


def test_a_directory_that_changes_meanwhile(
    disks: DataDisks, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = data.squash_directory

    def packed(*words: object) -> None:
        real(*words)  # type: ignore[arg-type]
        (source / "late").write_text("x")

    monkeypatch.setattr(data, "squash_directory", packed)
    with pytest.raises(UsageError, match="changed while a disk was made"):
        disks.open([Mount(str(source), "/x")])
    assert kept(tmp_path) == 0


def test_without_mksquashfs(
    disks: DataDisks, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "find_tool", lambda _: None)
    with pytest.raises(RuntimeMissing, match=r"mksquashfs.*install squashfs-tools"):
        disks.open([Mount(str(source), "/x")])
