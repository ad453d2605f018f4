"""Kernel modules: which others each needs, and in which order they are loaded.

Owns: the reading of ``.modinfo`` in an ELF file. Must never: believe an offset before it was
compared with the size of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final

from guactors.errors import UsageError

_ELF64: Final = b"\x7fELF\x02\x01"
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_INFO: Final = b".modinfo"


def module_info(data: bytes, what: str) -> dict[str, str]:
    """The ``name=value`` pairs of a module's ``.modinfo``, the last of each. Raises UsageError for
    a file that is no module for 64 bits, least byte first."""
    if not data.startswith(_ELF64) or len(data) < 64:
        raise UsageError(f"{what} is no kernel module for this kind of processor")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    if size != _SECTION.size or table + size * count > len(data) or names >= count:
        raise UsageError(f"{what} is damaged: its table of sections lies outside of it")
    sections = [_SECTION.unpack_from(data, table + size * number) for number in range(count)]
    strings = _content(data, sections[names])
    for section in sections:
        name = strings[section[0] : strings.find(b"\0", section[0])]
        if name == _INFO:
            texts = _content(data, section).decode("utf-8", "replace").split("\0")
            pairs = (text.partition("=") for text in texts if "=" in text)
            return {key: value for key, _, value in pairs}
    raise UsageError(f"{what} is no kernel module: it has no .modinfo")


def _content(data: bytes, section: tuple[int, ...]) -> bytes:
    offset, size = section[4], section[5]
    return data[offset : offset + size]


def plain(name: str) -> str:
    """A module's name: its file's may have either kind of dash."""
    return name.rpartition("/")[2].removesuffix(".ko").replace("-", "_")


def load_order(modules: Mapping[str, bytes], wanted: Iterable[str]) -> list[str]:
    """The names of ``wanted`` and of all that they need, each after what it needs. ``modules``: the
    files by name. Raises UsageError for one that is missing and for circles."""
    order: list[str] = []
    under_way: set[str] = set()

    def visit(name: str, why: str) -> None:
        if name in order:
            return
        if name not in modules:
            raise UsageError(f"the kernel package has no module {name}, which {why} needs")
        if name in under_way:
            raise UsageError(f"the module {name} needs itself")
        under_way.add(name)
        for other in module_info(modules[name], name).get("depends", "").split(","):
            if other:
                visit(plain(other), name)
        order.append(name)

    for name in wanted:
        visit(plain(name), "the guest")
    return order
