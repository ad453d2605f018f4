"""Images to test with: content, blobs, manifests, keys."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from functools import cache

from msgspec.structs import replace

from guactors.images.manifest import (
    CHUNK,
    Blob,
    Config,
    Manifest,
    Media,
    Role,
    blob_hash,
    chunk_hash,
    encode_manifest,
    new_blob,
)
from guactors.security.keys import Kind, SecretKey

CREATED = "2026-01-02T03:04:05Z"


@cache
def content(size: int, seed: str = "") -> bytes:
    """Bytes without a pattern, always the same."""
    return (
        hashlib.shake_256(f"{seed} {size}".encode())
        .digest(min(size, 2**16))
        .ljust(size, seed[:1].encode() or b".")
    )


def chunks(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]


def blob_of(data: bytes, role: Role = "rootfs", media: Media = "squashfs") -> Blob:
    return new_blob(role, media, len(data), [chunk_hash(one) for one in chunks(data)])


def fake_blob(size: int, role: Role = "rootfs", seed: int = 0) -> Blob:
    """A blob that agrees with itself and has no content."""
    count = -(-size // CHUNK)
    hashes = [hashlib.sha3_256(f"{seed} {index}".encode()).hexdigest() for index in range(count)]
    return Blob(role, "squashfs", size, blob_hash(size, hashes), CHUNK, hashes)


def manifest_of(*blobs: Blob, **changes: object) -> Manifest:
    made = Manifest(
        name="py311",
        arch="x86_64",
        created=CREATED,
        config=Config(entrypoint=["/bin/sh"], env={"PATH": "/bin"}, python="3.11", agent="L1"),
        blobs=list(blobs) or [fake_blob(10)],
    )
    return replace(made, **changes)


def manifest_bytes(*blobs: Blob, **changes: object) -> bytes:
    return encode_manifest(manifest_of(*blobs, **changes))


def signer(number: int, kind: Kind = Kind.SIGNER) -> SecretKey:
    return SecretKey(kind, bytes([number]) * 32)


def pieces(data: bytes, lengths: list[int]) -> Iterator[bytes]:
    """The data in pieces of these lengths, again and again, empty ones included."""
    start = 0
    for length in itertools.cycle(lengths):
        if start >= len(data):
            return
        yield data[start : start + length]
        start += length
