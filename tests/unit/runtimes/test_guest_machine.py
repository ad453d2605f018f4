"""Which machine a guest gets, in which words, and what it is made of."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
from pathlib import Path

import msgspec
import pytest

from guactors.errors import UsageError
from guactors.messages import Limits
from guactors.runtimes.qemu.argv import Disk, Machine, build_argv
from guactors.runtimes.qemu.found import Qemu
from guactors.runtimes.qemu.guest import cpio
from guactors.runtimes.qemu.guest.debs import read_deb
from guactors.runtimes.qemu.guest.make import Guest
from guactors.runtimes.qemu.guest.modules import load_order, module_info
from guactors.runtimes.qemu.plan import LEAST, make_plan, memory_for, processors_for
from guactors.runtimes.qemu.scratch import MIB, disk_for

MACHINE = Machine("qemu", "gu:p:i", "k", "i", 11, 12, 13, disks=(Disk("root", 14, True),))


def words(**fields: object) -> str:
    return " ".join(build_argv(msgspec.structs.replace(MACHINE, **fields)))


def test_every_machine_is_closed_in() -> None:
    for profile in ("q35", "microvm", "kvm"):
        said = words(profile=profile, tsc_khz=2_000_000)
        assert "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny" in said
        assert "-nodefaults -no-user-config" in said
        assert "net" not in said.replace("i8042.noaux", "")
        assert "fd=14,set=1" in said
        assert "read-only=on" in said


def test_profiles() -> None:
    assert "tcg,thread=multi,tb-size=44" in words()
    assert "mitigations=off" in words()
    assert "tsc_early_khz=2100000" in words(profile="microvm", tsc_khz=2_100_000)
    kvm = words(profile="kvm")
    assert "-accel kvm -cpu host" in kvm
    assert "tcg" not in kvm
    assert "mitigations=off" not in kvm
    assert words(incoming=True).endswith("-incoming defer -S")
    assert "-kernel" not in words(incoming=True)


@pytest.mark.parametrize(
    "fields", [{"profile": "microvm"}, {"memory": 0}, {"processors": 0}, {"name": "a,debug"}]
)
def test_machines_that_cannot_be(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        words(**fields)


def plan(options: dict[str, object], limits: Limits | None = None, **fields: object) -> str:
    given: dict[str, object] = {
        "name": "n", "qemu": Qemu("qemu", "7.2"), "guest": Guest(Path("k"), Path("i"), "g", "6"),
        "image": "one", "profile": "q35", "scratch": 0, "tsc_khz": 0, "processors": 4,
    }  # fmt: skip
    return make_plan(options, limits or Limits(), **(given | fields)).key  # type: ignore[arg-type]


def test_a_saved_guest_goes_on_only_where_all_is_the_same() -> None:
    usual = plan({})
    assert usual == plan({"warm": False}) == plan({}, name="another") == plan({}, Limits(pids=7))
    others = [
        plan({"memory": 512}), plan({}, Limits(cpu=2)), plan({}, image="two"),
        plan({}, qemu=Qemu("qemu", "8")), plan({}, scratch=MIB),
        plan({}, guest=Guest(Path("k"), Path("i"), "h", "6")), plan({}, data=1), plan({}, data=2),
    ]  # fmt: skip
    assert len({usual, *others}) == 9


def test_memory_and_processors_follow_the_limits() -> None:
    assert memory_for(1) == LEAST
    assert memory_for(48 * MIB) == memory_for(40 * MIB) == 128
    assert memory_for(1000 * MIB) >= 1080
    assert [processors_for(cpu, 2) for cpu in (0.0, 0.1, 1.0, 1.5, 9.0)] == [1, 1, 1, 2, 2]
    assert disk_for(16 * MIB) == 48 * MIB


def test_the_archive_of_a_kernel() -> None:
    made = cpio.archive([cpio.file("a/b/c", b"12345"), cpio.character_device("dev/null", 1, 3)])
    assert made.startswith(b"070701")
    names, at = [], 0
    while at < len(made):
        fields = [int(made[at + 6 + 8 * one : at + 14 + 8 * one], 16) for one in range(13)]
        name = made[at + 110 : at + 110 + fields[11] - 1].decode()
        names.append((name, fields[1], fields[6]))
        at += -(-(110 + fields[11]) // 4) * 4
        at += -(-fields[6] // 4) * 4
    assert names == [
        ("a", 0o040755, 0), ("a/b", 0o040755, 0), ("a/b/c", 0o100644, 5), ("dev", 0o040755, 0),
        ("dev/null", 0o020600, 0), ("TRAILER!!!", 0, 0),
    ]  # fmt: skip


def module(depends: str) -> bytes:
    """An ELF file with a .modinfo and nothing else."""
    strings = b"\0.modinfo\0.shstrtab\0"
    info = f"license=GPL\0depends={depends}\0".encode()
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + bytes(24) + struct.pack("<Q", 64)
    header = header[:40] + struct.pack("<Q", 64) + bytes(10) + struct.pack("<HHH", 64, 3, 2)
    at = 64 + 3 * 64
    section = struct.Struct("<IIQQQQIIQQ")
    table = section.pack(*[0] * 10)
    table += section.pack(1, 1, 0, 0, at, len(info), 0, 0, 0, 0)
    table += section.pack(10, 3, 0, 0, at + len(info), len(strings), 0, 0, 0, 0)
    return header + table + info + strings


def test_modules_come_after_what_they_need() -> None:
    modules = {"a": module("b-x,c"), "b_x": module("c"), "c": module("")}
    assert module_info(modules["a"], "a") == {"license": "GPL", "depends": "b-x,c"}
    assert load_order(modules, ["a", "c"]) == ["c", "b_x", "a"]
    with pytest.raises(UsageError, match="no module d"):
        load_order(modules | {"a": module("d")}, ["a"])
    with pytest.raises(UsageError, match="needs itself"):
        load_order({"a": module("b"), "b": module("a")}, ["a"])


@pytest.mark.parametrize("cut", [10, 63, 100, 250])
def test_modules_that_are_damaged(cut: int) -> None:
    with pytest.raises(UsageError):
        module_info(module("")[:cut], "m")


def deb(directory: Path, data: bytes, name: bytes = b"data.tar.xz") -> Path:
    path = directory / "one.deb"
    head = b"%-16s%-12d%-6d%-6d%-8s%-10d`\n"
    first = head % (b"debian-binary", 0, 0, 0, b"100644", 4) + b"2.0\n"
    path.write_bytes(b"!<arch>\n" + first + head % (name, 0, 0, 0, b"100644", len(data)) + data)
    return path


def test_packages_are_read(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, target in (("./lib/x.1", "x.1.8"), ("./lib/y", "/etc/passwd")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
        member = tarfile.TarInfo("./lib/x.1.8")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"abc"))
    path = deb(tmp_path, lzma.compress(made.getvalue()))
    assert read_deb(path, lambda name: name in {"lib/x.1", "lib/y"}) == {"lib/x.1": b"abc"}


@pytest.mark.parametrize("data", [b"", b"!<arch>\n", b"!<arch>\n" + b"x" * 60, b"PK"])
def test_packages_that_are_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "one.deb"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"one\.deb"):
        read_deb(path, lambda _: True)
    with pytest.raises(UsageError, match="cannot be read"):
        read_deb(deb(tmp_path, b"(\xb5/\xfd" + bytes(50), b"data.tar.zst"), lambda _: True)
