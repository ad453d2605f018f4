"""The audit log on the disk: its modes and lock, crashes and full disks, further files, reading."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from msgspec.structs import replace

from guactors.errors import UsageError
from guactors.security import audit_file, audit_reader
from guactors.security.audit import AuditBroken, Draft, Entry, Filter, Head
from guactors.security.audit_file import OPENED, ROTATED, TORN, AuditFile
from guactors.security.audit_reader import log_files, read_log, verify_log

DRAFT = Draft(1000.0, "gu_app_a", "submit", "refused", "image", "sha3-256:55")
SMALL = 4000
"""Bytes of a file in the tests of further files: about ten lines."""

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX modes and locks")


def drafts(*numbers: int) -> list[Draft]:
    """Decisions that tell their number as the grant's serial and as the second."""
    return [replace(DRAFT, grant=number, time=float(number)) for number in numbers]


def serials(entries: list[Entry]) -> list[int]:
    return [entry.grant for entry in entries if entry.action == "submit"]


def reasons(path: Path) -> list[str]:
    return [entry.reason for entry in read_log(path, limit=1000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hub" / "audit.log"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., AuditFile]]:
    """Opens the log of ``path``; at the end of the test it is closed."""
    held: list[AuditFile] = []

    def open_log(**options: int) -> AuditFile:
        held.append(AuditFile(path, who="gu_hub_h", clock=lambda: 5.0, **options))
        return held[-1]

    yield open_log
    for log in held:
        log.close()


Opened = Callable[..., AuditFile]


def test_decisions_are_there_after_a_restart_and_each_start_is_told(
    opened: Opened, path: Path
) -> None:
    log = opened()
    log.append(drafts(1, 2))
    log.append(drafts(3))
    log.append([])
    assert log.head == verify_log(path)
    log.close()
    opened().append(drafts(4))
    entries = read_log(path)
    assert serials(entries) == [1, 2, 3, 4]
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5, 6]
    assert reasons(path) == [OPENED, "image", "image", "image", OPENED, "image"]
    assert verify_log(path).number == 6
    own = entries[4]
    assert (own.who, own.action, own.decision, own.time) == ("gu_hub_h", "audit", "allowed", 5000)
    assert str(os.getpid()) in own.detail


def test_lines_are_on_the_disk_when_append_returns(
    opened: Opened, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened()
    seen: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        seen.append(os.fstat(fd).st_size)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    log.append(drafts(1, 2, 3))
    assert seen == [path.stat().st_size]


@posix
def test_no_other_user_may_read_any_of_its_files(opened: Opened, path: Path) -> None:
    before = os.umask(0)
    try:
        opened(file_most=SMALL).append(drafts(*range(20)))
    finally:
        os.umask(before)
    found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(found.values()) == {0o600}
    assert set(found) == {"audit.log", "audit.log.1", "audit.log.lock"}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_log_open_to_others_is_refused(opened: Opened, path: Path, mode: int) -> None:
    opened().close()
    path.chmod(mode)
    with pytest.raises(UsageError, match=rf"open to other users \(mode {mode:o}\).*chmod 600"):
        opened()


@posix
def test_a_link_is_not_followed(opened: Opened, path: Path, tmp_path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    (tmp_path / "elsewhere").touch(mode=0o600)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="cannot be opened"):
        opened()
    assert not (tmp_path / "elsewhere").read_bytes()


def test_a_directory_in_its_place_is_told(opened: Opened, path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be opened"):
        opened()


def test_one_writer_at_a_time(opened: Opened, path: Path) -> None:
    log = opened()
    with pytest.raises(UsageError, match=r"audit\.log is in use: one hub at a time"):
        opened()
    log.close()
    log.close()
    opened().append(drafts(1))
    assert verify_log(path).number == 3


def test_a_closed_log_takes_nothing(opened: Opened, path: Path) -> None:
    log = opened()
    log.close()
    with pytest.raises(UsageError, match="takes no more entries: it is closed"):
        log.append(drafts(1))
    assert verify_log(path).number == 1


# Crashes.


def cut(path: Path, at: int) -> bytes:
    """Cut the file as a crash can; what is left of the unfinished line."""
    data = path.read_bytes()[:at]
    path.write_bytes(data)
    return data[data.rfind(b"\n") + 1 :]


@pytest.mark.parametrize("kept", [1, 20, 200, -1])
def test_an_unfinished_line_is_moved_aside_and_told(opened: Opened, path: Path, kept: int) -> None:
    log = opened()
    log.append(drafts(1, 2))
    end = path.stat().st_size
    log.append(drafts(3))
    log.close()
    torn = cut(path, end + kept if kept > 0 else path.stat().st_size + kept)
    opened().append(drafts(4))
    assert serials(read_log(path)) == [1, 2, 4]
    assert reasons(path) == [OPENED, "image", "image", TORN, OPENED, "image"]
    assert verify_log(path).number == 6
    assert path.with_name("audit.log.torn").read_bytes() == torn + b"\n"
    [told] = read_log(path, Filter(reason=TORN))
    assert f"{len(torn) + 1} bytes" in told.detail


def test_every_cut_leaves_a_log_that_goes_on(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    whole = path.with_name("whole")
    log = AuditFile(whole)
    log.append(drafts(1))
    log.close()
    data = whole.read_bytes()
    for at in range(0, len(data) + 1, 7):
        cutting = path.with_name(f"log{at}")
        cutting.touch(mode=0o600)
        cutting.write_bytes(data[:at])
        lines = data[:at].count(b"\n")
        torn = bool(data[:at]) and not data[:at].endswith(b"\n")
        AuditFile(cutting).close()
        assert verify_log(cutting).number == lines + torn + 1
        assert cutting.with_name(f"log{at}.torn").exists() == torn


def test_zeros_that_a_power_cut_leaves_are_moved_aside(opened: Opened, path: Path) -> None:
    opened().close()
    with path.open("ab") as file:
        file.write(b"\0" * 200_000)
    opened()
    assert reasons(path) == [OPENED, TORN, OPENED]
    assert path.with_name("audit.log.torn").stat().st_size == 200_001


def test_torn_lines_of_two_crashes_are_both_kept(opened: Opened, path: Path) -> None:
    for torn in (b'{"first', b'{"second'):
        opened().close()
        with path.open("ab") as file:
            file.write(torn)
    opened()
    assert path.with_name("audit.log.torn").read_bytes() == b'{"first\n{"second\n'
    assert reasons(path).count(TORN) == 2


@pytest.mark.parametrize("step", range(1, 9))
def test_a_crash_while_a_torn_line_is_moved_loses_nothing(
    opened: Opened, path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Each sync is a step: the process ends after it, and starts again."""
    log = opened()
    log.append(drafts(1))
    log.close()
    cut(path, path.stat().st_size - 1)
    steps = count(1)
    with monkeypatch.context() as patched:

        def fsync(fd: int) -> None:
            if next(steps) == step:
                raise KeyboardInterrupt

        patched.setattr(os, "fsync", fsync)
        try:
            opened().close()
        except KeyboardInterrupt:
            pass
        else:
            pytest.fail("fewer steps than there were")
    opened()
    assert verify_log(path).number
    assert TORN in reasons(path)
    kept = path.with_name("audit.log.torn").read_bytes()
    assert b'"grant":1' in kept
    assert not path.with_name("audit.log.torn-new").exists()


_CHILD = """
import sys
from itertools import count
from pathlib import Path
from guactors.security.audit import Draft
from guactors.security.audit_file import AuditFile
log = AuditFile(Path(sys.argv[1]), file_most=20_000)
for number in count(1):
    log.append([Draft(1.0, "gu_app_a", "submit", "allowed", "allowed", grant=number)] * 3)
    print(number, flush=True)
"""


def test_what_was_reported_before_a_kill_is_there(path: Path) -> None:
    for _ in range(2):
        before = serials(read_log(path, limit=10_000))[-1:] if path.exists() else []
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(30):
                assert child.stdout.readline()
            with pytest.raises(UsageError, match="in use"):
                AuditFile(path)
            child.kill()
            last = [30, *(int(line) for line in child.stdout.read().splitlines())][-1]
        found = serials(read_log(path, limit=10_000))
        assert found[-1] in {last, last + 1}, before
        assert found.count(last) >= 3
    AuditFile(path).close()
    assert len(log_files(path)) > 1
    assert reasons(path).count(OPENED) == 3
    verify_log(path)


# What is more than a crash.


def test_a_damaged_end_is_refused_and_kept(opened: Opened, path: Path) -> None:
    log = opened()
    log.append(drafts(1))
    log.close()
    data = path.read_bytes().replace(b"refused", b"allowed")
    path.write_bytes(data)
    with pytest.raises(AuditBroken, match=r"audit\.log is broken \(hash\).*keep all files"):
        opened()
    assert path.read_bytes() == data


def test_a_damaged_line_before_the_end_is_found_by_the_check(opened: Opened, path: Path) -> None:
    log = opened()
    log.append(drafts(1, 2))
    log.close()
    path.write_bytes(path.read_bytes().replace(b'"grant":1', b'"grant":9'))
    opened()
    with pytest.raises(AuditBroken, match=r"line 2 of audit\.log is broken \(hash\)"):
        verify_log(path)


class FullDisk:
    """Writes only so many bytes, as a disk does that is full; ``sync``: fails at the sync."""

    def __init__(self, room: int, sync: bool = False) -> None:
        self.room = room
        self.sync = sync

    def write(self, fd: int, data: bytes) -> int:
        if self.sync:
            return REAL_WRITE(fd, data)
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return REAL_WRITE(fd, data[: self.room])

    def fsync(self, fd: int) -> None:
        if self.sync:
            self.sync = False
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        REAL_SYNC(fd)


REAL_WRITE, REAL_SYNC = os.write, os.fsync


@pytest.mark.parametrize("disk", [FullDisk(0), FullDisk(1), FullDisk(500), FullDisk(0, sync=True)])
def test_a_failed_write_is_told_and_taken_back(
    opened: Opened, path: Path, monkeypatch: pytest.MonkeyPatch, disk: FullDisk
) -> None:
    log = opened()
    log.append(drafts(1))
    before, head = path.read_bytes(), log.head
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", disk.write)
        patched.setattr(os, "fsync", disk.fsync)
        with pytest.raises(UsageError, match=r"cannot be written \((No space|Input/output)"):
            log.append(drafts(2, 3))
    assert path.read_bytes() == before
    assert log.head == head
    log.append(drafts(4))
    assert serials(read_log(path)) == [1, 4]
    assert verify_log(path).number == 3


def test_an_interrupted_write_is_taken_back(
    opened: Opened, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened()
    interrupts = iter([KeyboardInterrupt])

    def fsync(fd: int) -> None:
        if interrupt := next(interrupts, None):
            raise interrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(KeyboardInterrupt):
            log.append(drafts(1))
    log.append(drafts(2))
    assert serials(read_log(path)) == [2]
    assert verify_log(path).number == 2


def test_a_failed_write_after_a_crash_is_taken_back(
    opened: Opened, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().close()
    with path.open("ab") as file:
        file.write(b'{"torn')
    log = opened()
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", FullDisk(50).write)
        with pytest.raises(UsageError):
            log.append(drafts(1))
    log.append(drafts(2))
    assert reasons(path) == [OPENED, TORN, OPENED, "image"]
    assert verify_log(path).number == 4


def test_a_write_that_cannot_be_taken_back_is_the_last(
    opened: Opened, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened()

    def ftruncate(fd: int, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", ftruncate)
        patched.setattr(os, "write", FullDisk(50).write)
        with pytest.raises(UsageError, match="cannot be written"):
            log.append(drafts(1))
    with pytest.raises(UsageError, match="no more entries: a failed write could not be taken back"):
        log.append(drafts(2))
    opened().append(drafts(3))
    assert reasons(path) == [OPENED, TORN, OPENED, "image"]
    verify_log(path)


# Further files.


@pytest.fixture
def parted(opened: Opened, path: Path) -> AuditFile:
    """A log of several files with the serials 1 to 40."""
    log = opened(file_most=SMALL)
    for number in range(1, 41):
        log.append(drafts(number))
    assert len(log_files(path)) > 3
    return log


def test_a_further_file_begins_with_the_head_of_the_last(parted: AuditFile, path: Path) -> None:
    files = log_files(path)
    assert [file.name for file in files[:3]] == ["audit.log", "audit.log.1", "audit.log.2"]
    assert all(file.stat().st_size <= SMALL for file in files)
    entries = read_log(path, Filter(reason=ROTATED))
    assert len(entries) == len(files) - 1
    assert entries[1].detail == "goes on from audit.log.1"
    [before] = read_log(path, after=entries[0].number - 2, limit=1)
    assert entries[0].previous == before.hash
    assert verify_log(path) == parted.head


def test_it_goes_on_in_the_newest_file(parted: AuditFile, path: Path, opened: Opened) -> None:
    sizes = [file.stat().st_size for file in log_files(path)[:-1]]
    parted.close()
    opened(file_most=SMALL).append(drafts(41))
    assert [file.stat().st_size for file in log_files(path)][: len(sizes)] == sizes
    assert serials(read_log(path, newest=True, limit=1)) == [41]
    verify_log(path)


def test_ten_files_stand_in_the_order_of_their_numbers(opened: Opened, path: Path) -> None:
    log = opened(file_most=1)
    for number in range(1, 13):
        log.append(drafts(number))
    assert [file.name for file in log_files(path)][9:] == [
        f"audit.log.{n}" for n in (9, 10, 11, 12)
    ]
    assert serials(read_log(path)) == list(range(1, 13))
    assert verify_log(path) == log.head


def test_a_batch_is_not_parted(opened: Opened, path: Path) -> None:
    log = opened(file_most=SMALL)
    log.append(drafts(*range(1, 31)))
    log.append(drafts(31))
    assert [len(file.read_bytes().splitlines()) for file in log_files(path)] == [1, 31, 2]


def test_a_crash_between_a_file_and_its_first_line(
    parted: AuditFile, path: Path, opened: Opened
) -> None:
    parted.close()
    last = log_files(path)[-1]
    new = path.with_name(f"audit.log.{len(log_files(path))}")
    new.touch(mode=0o600)
    opened()
    lines = new.read_bytes().splitlines()
    assert [b"audit_rotated" in line for line in lines] == [True, False]
    assert last.name.encode() in lines[0]
    verify_log(path)


def test_a_further_file_that_fails_is_tried_again(
    opened: Opened, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(file_most=1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", FullDisk(0).write)
        with pytest.raises(UsageError):
            log.append(drafts(1))
    log.append(drafts(2))
    assert reasons(path) == [OPENED, ROTATED, "image"]
    assert len(log_files(path)) == 2
    verify_log(path)


@pytest.mark.parametrize("missing", [1, 2])
def test_a_missing_file_is_noticed(parted: AuditFile, path: Path, missing: int) -> None:
    path.with_name(f"audit.log.{missing}").unlink()
    with pytest.raises(AuditBroken, match=rf"line 1 of audit\.log\.{missing + 1} .*\(order\)"):
        verify_log(path)


def test_archived_files_are_checked_with_their_head(
    parted: AuditFile, path: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for file in log_files(path)[:2]:
        file.rename(archive / file.name)
    with pytest.raises(AuditBroken, match=r"line 1 of audit\.log\.2 .*follows nothing"):
        verify_log(path)
    head = verify_log(archive / "audit.log")
    assert verify_log(path, head) == parted.head
    parted.append(drafts(41))
    assert serials(read_log(path, newest=True, limit=1)) == [41]


def test_a_log_whose_newest_files_are_gone_begins_after_what_is_left(
    parted: AuditFile, path: Path, opened: Opened
) -> None:
    """The chain alone cannot tell; the head that was kept elsewhere can."""
    kept = parted.head
    parted.close()
    log_files(path)[-1].unlink()
    opened()
    assert verify_log(path) != kept


# Reading.


@pytest.mark.parametrize("newest", [False, True])
def test_reading_in_parts_gives_all_in_order(parted: AuditFile, path: Path, newest: bool) -> None:
    wanted, found, after = Filter(action="submit"), [], 0
    while entries := parted.read(wanted, after=after, limit=7, newest=newest):
        assert len(entries) <= 7
        found += serials(entries)
        after = entries[-1].number
    assert found == (list(range(40, 0, -1)) if newest else list(range(1, 41)))


@pytest.mark.parametrize("after", range(0, 50, 3))
def test_after_is_exclusive(parted: AuditFile, path: Path, after: int) -> None:
    numbers = [entry.number for entry in read_log(path, limit=1000)]
    later = read_log(path, after=after, limit=1000)
    assert [entry.number for entry in later] == [number for number in numbers if number > after]
    earlier = read_log(path, after=after, limit=1000, newest=True)
    assert [entry.number for entry in earlier] == [
        number for number in reversed(numbers) if not after or number < after
    ]


def test_a_filter_reads_over_all_files(parted: AuditFile, path: Path) -> None:
    assert serials(read_log(path, Filter(since=5, until=33, action="submit"))) == [*range(5, 33)]
    assert read_log(path, Filter(who="nobody")) == []
    assert len(read_log(path, limit=0)) == 0


def test_an_answer_has_a_bound(
    parted: AuditFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_reader, "READ_MOST", 5)
    assert len(read_log(path, limit=1000)) == 5


def test_reading_opens_only_the_files_it_needs(
    parted: AuditFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = log_files(path)[-1]
    for file in log_files(path)[:-1]:
        file.write_bytes(file.read_bytes().splitlines(keepends=True)[0] + b"damaged\n")
    assert serials(read_log(path, limit=1, newest=True)) == [40]
    first = read_log(path, limit=1, newest=True)[0].number - last.read_bytes().count(b"\n") + 1
    assert len(read_log(path, after=first)) == last.read_bytes().count(b"\n") - 1
    with pytest.raises(AuditBroken, match=r"audit\.log is broken \(form\)"):
        read_log(path)


def test_lines_longer_than_a_block_of_reading_are_whole(opened: Opened, path: Path) -> None:
    """The longest lines there can be, so that each block ends somewhere else in one."""
    log = opened()
    wide = "\U0001f600" * 512
    batch = [
        replace(draft, object=wide, where=wide, detail=wide + "a" * draft.grant)
        for draft in drafts(*range(1, 61))
    ]
    log.append(batch)
    assert serials(read_log(path)) == list(range(1, 61))
    assert serials(read_log(path, newest=True)) == list(range(60, 0, -1))


@pytest.mark.parametrize("newest", [False, True])
def test_a_line_that_is_being_written_is_not_there_yet(
    parted: AuditFile, path: Path, newest: bool
) -> None:
    with log_files(path)[-1].open("ab") as file:
        file.write(b'{"action":"sub')
    assert len(read_log(path, Filter(action="submit"), newest=newest)) == 40
    with pytest.raises(AuditBroken, match="torn"):
        verify_log(path)


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("junk", [b"{}\n", b"\xff\n", b"a" * 200_000 + b"\n", b'{"a":1}\r'])
def test_damage_in_the_middle_is_told(
    opened: Opened, path: Path, newest: bool, junk: bytes
) -> None:
    log = opened()
    log.append(drafts(1, 2))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + junk + b"".join(lines[1:]))
    with pytest.raises(AuditBroken, match=r"audit\.log is broken \((form|torn)\)"):
        read_log(path, newest=newest)


def test_a_log_that_is_not_there_is_empty(path: Path) -> None:
    assert read_log(path) == []
    assert verify_log(path) == Head(0, "0" * 64)


def test_other_files_beside_it_are_not_its(parted: AuditFile, path: Path) -> None:
    before = log_files(path)
    for name in ("audit.log.torn", "audit.log.01", "audit.log.0", "audit.log.1x", "audit.log.٣"):
        path.with_name(name).write_bytes(b"other\n")
    path.with_name("audit.log2").write_bytes(b"other\n")
    assert log_files(path) == before
    assert audit_file.FILE_MOST == 64 * 2**20
