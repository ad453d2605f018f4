"""An image made of Debian packages.

Owns: what becomes of packages that are unpacked and never set up: one tree with merged ``/usr``,
the few directories and lists that every program expects. Must never: run anything of a package, or
need root's rights.

What the scripts of packages would do does not happen: no users of daemons, no alternatives, no
compiled Python files. It is enough for programs, not for services.
"""

from __future__ import annotations

import io
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from guactors.errors import ImageRefused, UsageError
from guactors.images.archive import read_archive
from guactors.images.build import add_rootfs, arch_word, python_of, report
from guactors.images.layers import add_archive
from guactors.images.manifest import Config
from guactors.images.members import Budget, Entries, Gate, Kind
from guactors.images.rootfs import RootMedia, check_media, write_rootfs
from guactors.images.spool import Spool
from guactors.images.store import ImageStore
from guactors.images.tree import Tree
from guactors.runtimes.apt import fetch
from guactors.runtimes.qemu.guest.debs import read_data

_MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Directories that are in ``/usr``, and links in the root."""
_DIRECTORIES: Final = (
    ("dev", 0o755), ("etc", 0o755), ("home", 0o755), ("proc", 0o755), ("root", 0o700),
    ("run", 0o755), ("sys", 0o755), ("tmp", 0o1777), ("var", 0o755), ("var/tmp", 0o1777),
)  # fmt: skip
_FILES: Final = {
    "etc/passwd": (
        b"root:x:0:0:root:/root:/bin/sh\n"
        b"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "etc/group": b"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
}


def build_debian(
    packages: Sequence[str],
    store: ImageStore,
    *,
    name: str,
    config: Config | None = None,
    media: RootMedia = "auto",
    arch: str = "",
) -> str:
    """Make an image of packages, fetched with apt from this machine's sources, and of all that they
    depend on; returns its id. The same versions give the same id. See ``build_image`` for the rest.
    Raises UsageError for packages that cannot be had, RuntimeMissing where there is no apt."""
    wanted = check_media(media)
    word = arch_word(arch or platform.machine())
    with tempfile.TemporaryDirectory(prefix="gu-debian-") as directory, Spool() as spool:
        tree = tree_of(fetch(packages, Path(directory), word), spool)
        report(tree)
        if config is None or not config.python:
            config = msgspec.structs.replace(config or Config(), python=python_of(tree))
        blob = write_rootfs(tree, store, wanted, name)
    return add_rootfs(store, blob, name=name, config=config, arch=word)


def tree_of(debs: Sequence[Path], spool: Spool) -> Tree:
    """What packages unpack to, all over each other. Raises UsageError, ImageRefused."""
    tree = Tree()
    gate = Gate(Budget(), "the root of the packages")
    for one, mode in _DIRECTORIES:
        tree.add(gate.member(one, Kind.DIRECTORY, mode=mode), gate)
    for one in _MERGED:
        tree.add(gate.member(f"usr/{one}", Kind.DIRECTORY, mode=0o755), gate)
        tree.add(gate.member(one, Kind.SYMLINK, mode=0o777, target=f"usr/{one}"), gate)
    for path in debs:
        inside = Gate(gate.budget, path.name)
        try:
            entries = read_archive(io.BytesIO(read_data(path)), inside)
            add_archive(tree, _merged(entries), inside, spool)
        except ImageRefused as fault:
            raise UsageError(f"no image can be made of the package {fault}") from None
    for one, data in _FILES.items():
        if tree.find(one) is None:
            member = gate.member(one, Kind.FILE, mode=0o644, size=len(data))
            tree.add(member, gate, spool.keep([data]))
    if tree.find("usr/bin/sh") is None and tree.find("usr/bin/busybox") is not None:
        tree.add(gate.member("usr/bin/sh", Kind.SYMLINK, mode=0o777, target="busybox"), gate)
    tree.check(gate.what)
    return tree


def _merged(entries: Entries) -> Entries:
    for member, reader in entries:
        parts, target = member.parts, member.target
        if len(parts) == 1 and parts[0] in _MERGED:
            continue
        if parts and parts[0] in _MERGED:
            parts = ("usr", *parts)
        if member.kind is Kind.HARDLINK and target.partition("/")[0] in _MERGED:
            target = f"usr/{target}"
        yield msgspec.structs.replace(member, parts=parts, target=target), reader
