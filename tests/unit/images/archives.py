"""Archives to test with, made byte by byte: also those that no packer would write."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guactors.images.archive import read_archive
from guactors.images.layers import add_archive
from guactors.images.members import LIMITS, Budget, Gate, Kind, Limits, Member
from guactors.images.rootfs import read_tree
from guactors.images.spool import Spool
from guactors.images.store import ImageStore
from guactors.images.tree import Tree

BLOCK = 512
END = bytes(2 * BLOCK)
COMPRESSIONS = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def header(
    name: str | bytes,
    kind: bytes = b"0",
    size: int = 0,
    *,
    target: str | bytes = b"",
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    size_field: bytes = b"",
    prefix: bytes = b"",
    magic: bytes = b"ustar\x0000",
) -> bytes:
    """A header with a right checksum, whatever else is wrong with it."""

    def field(value: int | bytes, length: int) -> bytes:
        data = value if isinstance(value, bytes) else b"%0*o\0" % (length - 1, value)
        assert len(data) <= length
        return data.ljust(length, b"\0")

    def text(value: str | bytes, length: int) -> bytes:
        data = value if isinstance(value, bytes) else os.fsencode(value)
        assert len(data) <= length, "use pax() for long names"
        return data.ljust(length, b"\0")

    data = bytearray(
        text(name, 100)
        + field(mode, 8)
        + field(uid, 8)
        + field(gid, 8)
        + field(size_field or size, 12)
        + field(mtime, 12)
        + b" " * 8
        + kind
        + text(target, 100)
        + magic.ljust(8, b"\0")
        + bytes(80)
        + prefix.ljust(155, b"\0")
    ).ljust(BLOCK, b"\0")
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def file(name: str, data: bytes = b"", **fields: Any) -> bytes:
    return header(name, b"0", len(data), **fields) + padded(data)


def folder(name: str, mode: int = 0o755, **fields: Any) -> bytes:
    return header(name, b"5", mode=mode, **fields)


def link(name: str, target: str) -> bytes:
    return header(name, b"2", target=target, mode=0o777)


def hard(name: str, target: str) -> bytes:
    return header(name, b"1", target=target)


def pax(**records: str | bytes) -> bytes:
    """An extended header; ``path``, ``linkpath``, ``size`` and such of the next member."""
    body = b""
    for key, value in records.items():
        data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
        body += record(key.replace("__", ".").encode(), data)
    return header("PaxHeaders/x", b"x", len(body)) + padded(body)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def tar(*members: bytes) -> bytes:
    return b"".join(members) + END


def gate(limits: Limits = LIMITS, what: str = "x.tar") -> Gate:
    return Gate(Budget(limits), what)


def members_of(data: bytes, limits: Limits = LIMITS) -> list[tuple[Member, bytes]]:
    """All members with their contents."""
    found = []
    for member, reader in read_archive(io.BytesIO(data), gate(limits)):
        content = b""
        while more := reader.read(1000):
            content += more
        found.append((member, content))
    return found


def tree_of(data: bytes, spool: Spool, limits: Limits = LIMITS) -> Tree:
    """The checked tree of an archive."""
    tree = Tree()
    rules = gate(limits)
    add_archive(tree, read_archive(io.BytesIO(data), rules), rules, spool)
    tree.check(rules.what)
    return tree


Listing = dict[str, tuple[str, int, str | bytes]]
"""Of each path: what it is, its mode, and its content or target."""


def tree_listing(tree: Tree) -> Listing:
    found: Listing = {}
    for path, name in tree.walk():
        node = name.itself
        content: str | bytes = node.target
        if node.kind is Kind.FILE:
            content = b"".join(node.content.pieces()) if node.content else b""
        found["/".join(path)] = (node.kind.value, node.mode, content)
    return found


def listing(root: Path) -> Listing:
    """What is in a directory, links not followed."""
    found: Listing = {}
    for directory, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(directory, name)
            status = path.lstat()
            key = path.relative_to(root).as_posix()
            mode = stat.S_IMODE(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                found[key] = (Kind.SYMLINK.value, 0o777, os.readlink(path))
            elif stat.S_ISDIR(status.st_mode):
                found[key] = (Kind.DIRECTORY.value, mode, "")
            else:
                assert stat.S_ISREG(status.st_mode)
                found[key] = (Kind.FILE.value, mode, path.read_bytes())
    return found


def new_store(path: Path) -> ImageStore:
    return ImageStore(path / "store", quota=2**33, now=time.time)


def image_listing(store: ImageStore, image: str) -> Listing:
    with Spool() as spool:
        return tree_listing(read_tree(store, image, spool))


def stored_names(store: ImageStore, image: str) -> set[str]:
    return set(image_listing(store, image))


class Endless(io.RawIOBase):
    """A stream of so many pieces, made as they are read. ``given``: bytes so far."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = next(self._pieces, b"")
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        self.given += size
        return size


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def squashfs_head(used: int = 96, **fields: int) -> bytes:
    """A superblock that is sane unless ``fields`` say otherwise."""
    inodes = fields.get("inodes", 1)
    block, log = fields.get("block", 131072), fields.get("log", 17)
    codec, major, minor = fields.get("codec", 6), fields.get("major", 4), fields.get("minor", 0)
    table = fields.get("table", used)
    head = struct.pack("<4sIIIIHH", b"hsqs", inodes, 0, block, 0, codec, log)
    head += struct.pack("<HHHHQQ", 0, 1, major, minor, 0, used)
    head += struct.pack("<6Q", table, 2**64 - 1, table, table, table, 2**64 - 1)
    assert len(head) == 96
    return head


def gvmi(squashfs: bytes, config: Any, *, checksum: bool = True) -> bytes:
    """A file as Golem's builder makes it."""
    data = as_json(config)
    check = struct.pack("<I", zlib.crc32(data)) if checksum else b""
    return squashfs + check + data + b"%08d" % len(data)


class Layout:
    """An OCI layout: its blobs by digest, and an index of what was added."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: list[dict[str, Any]] = []

    def blob(self, data: bytes, media: str = "", algorithm: str = "sha256") -> dict[str, Any]:
        digest = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
        self.blobs[digest] = data
        return {"mediaType": media, "digest": digest, "size": len(data)}

    def image(
        self,
        *layers: bytes,
        name: str = "",
        config: dict[str, Any] | None = None,
        arch: str = "amd64",
        compress: str = "gzip",
        algorithm: str = "sha256",
        diff_ids: list[str] | None = None,
    ) -> dict[str, Any]:
        """Add an image of these plain layers; its descriptor, also in the index."""
        ids = diff_ids if diff_ids is not None else [f"sha256:{sha256(one)}" for one in layers]
        described = {
            "architecture": arch,
            "os": "linux",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": ids},
        }
        media = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress == "gzip" else "")
        manifest = {
            "schemaVersion": 2,
            "config": self.blob(as_json(described), "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(COMPRESSIONS[compress](one), media, algorithm) for one in layers],
        }
        found = self.blob(as_json(manifest), "application/vnd.oci.image.manifest.v1+json")
        found["platform"] = {"architecture": arch, "os": "linux"}
        if name:
            found["annotations"] = {"org.opencontainers.image.ref.name": name}
        self.manifests.append(found)
        return found

    def files(self) -> dict[str, bytes]:
        index = {"schemaVersion": 2, "manifests": self.manifests}
        found = {
            "oci-layout": as_json({"imageLayoutVersion": "1.0.0"}),
            "index.json": as_json(index),
        }
        for digest, data in self.blobs.items():
            found["blobs/" + digest.replace(":", "/")] = data
        return found

    def tar(self) -> bytes:
        return pack(self.files())

    def directory(self, path: Path) -> Path:
        for name, data in self.files().items():
            path.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            path.joinpath(name).write_bytes(data)
        return path


def pack(files: dict[str, bytes]) -> bytes:
    """A tar of these files."""
    return tar(*(
        (pax(path=name) if len(name) > 100 else b"") + file(name[:100], data)
        for name, data in files.items()
    ))  # fmt: skip
