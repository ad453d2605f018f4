"""The program that is the first process of a container: what it is made of."""

from __future__ import annotations

import platform
import struct
import subprocess
from pathlib import Path

import pytest

from guactors.runtimes.docker import init


@pytest.mark.parametrize(("arch", "machine"), [("x86_64", 62), ("aarch64", 183)])
def test_it_is_an_executable_file(arch: str, machine: int) -> None:
    program = init.program(arch)
    assert program is not None
    assert program[:7] == b"\x7fELF\2\1\1"
    kind, found, _, entry, headers = struct.unpack("<HHIQQ", program[16:40])
    assert (kind, found, headers) == (2, machine, 64)
    segment, flags, offset, address, _, size, memory, align = struct.unpack(
        "<IIQQQQQQ", program[64:120]
    )
    assert (segment, flags, offset) == (1, 5, 0)
    assert size == memory == len(program)
    assert entry == address + 120
    assert address % align == 0


def test_each_listing_ends_with_the_mark() -> None:
    for listing in init.LISTINGS.values():
        assert init.machine_code(listing).endswith(init.MARK)


def test_there_is_none_for_others() -> None:
    assert init.program("riscv64") is None


def test_instructions_of_arm_are_whole_words() -> None:
    assert (len(init.machine_code(init.LISTINGS["aarch64"])) - len(init.MARK)) % 4 == 0


@pytest.mark.needs("as", "objcopy")
def test_the_bytes_are_what_the_text_beside_them_says(tmp_path: Path) -> None:
    arch = platform.machine()
    if arch not in init.LISTINGS:
        pytest.skip(f"no listing for {arch}")
    listing = init.LISTINGS[arch]
    text = "\n".join(line.partition("# ")[2] for line in listing.splitlines())
    source, made, code = (tmp_path / name for name in ("x.s", "x.o", "x.bin"))
    source.write_text((".intel_syntax noprefix\n" if arch == "x86_64" else "") + text + "\n")
    subprocess.run(["as", source, "-o", made], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", made, code], check=True)
    assert code.read_bytes() == init.machine_code(listing)
