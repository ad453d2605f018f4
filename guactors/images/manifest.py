"""What an image is: its manifest, its id, and the hashes of its blobs.

Owns: the form ``guactors.image/1``, canonical JSON of at most 256 KiB; what a manifest may say; how
blobs are hashed; what a signature of an image covers. Must never: touch a file, believe a name or a
tag, or write a manifest again: the bytes that were hashed and signed are the ones that are read.

The id of an image is ``sha3-256:`` and the SHA3-256 of its manifest. Blobs are cut into chunks of
4 MiB; ``chunks`` has the SHA3-256 of each. ``sha3_256`` names the blob:

* of one chunk: the SHA3-256 of its content, as every tool computes it;
* of several: the SHA3-256 of TREE, the size and the length of a chunk (64 bits each, big endian),
  and the hashes of all chunks, 32 bytes each. It is NOT what ``openssl dgst`` prints for the file.

So one pass over the data gives both kinds of hashes, chunks can be hashed at the same time and
checked in any order, a blob is whole when its chunks are, and a manifest whose name for a blob
differs from the chunks it lists is refused before anything is fetched. (SHA3-256 of the whole
beside that of each chunk takes two passes: on two cores, at best 3/4 of the speed of one.) No
blob of one chunk may begin with TREE, so none can pose as a larger one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from guactors.errors import AuthFailed, ImageRefused, UsageError
from guactors.security import canonical
from guactors.security.keys import Kind, SecretKey
from guactors.security.signing import Detached, Signature, open_detached, sign_detached

IMAGE_TYPE: Final = "application/vnd.guactors.image.v1+json"
"""What a signature of an image says that it is."""
FORMAT: Final = "guactors.image/1"
ID_PREFIX: Final = "sha3-256:"
CHUNK: Final = 4 * 2**20
"""Bytes of every chunk but a blob's last one."""
MOST_CHUNKS: Final = 4096
"""Of one blob: 16 GiB. A manifest has room for the hashes of a few less."""
TREE: Final = b"guactors.blob-tree/1\n"
RUNTIMES: Final = ("python", "native", "docker", "qemu", "firecracker")

Role: TypeAlias = Literal["rootfs", "kernel", "initrd", "data"]
Media: TypeAlias = Literal["squashfs", "tar", "tar+gzip", "raw"]

_WHAT: Final = "the image manifest"
_MOST_TEXT: Final = 4096
_MOST_ITEMS: Final = 1024
_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:+-]{0,127}", re.ASCII)
_WORD: Final = re.compile(r"[a-z0-9_]{1,32}", re.ASCII)
_USER: Final = re.compile(r"[0-9]{1,10}:[0-9]{1,10}", re.ASCII)
_PYTHON: Final = re.compile(r"(3\.[0-9]{1,3})?", re.ASCII)
_OCI: Final = re.compile(r"(sha256:[0-9a-f]{64})?", re.ASCII)
_CREATED: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


class Blob(Struct, frozen=True, forbid_unknown_fields=True):
    """One file of an image. ``size`` in bytes, at least 1; ``sha3_256``: 64 hex digits, see above;
    ``chunk``: always CHUNK; ``chunks``: 64 hex digits of each chunk."""

    role: Role
    media: Media
    size: int
    sha3_256: str
    chunk: int
    chunks: list[str]

    def length(self, index: int) -> int:
        """Bytes of the chunk ``index``."""
        return min(self.chunk, self.size - index * self.chunk)


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """What runs in the image, unless a job says otherwise. ``user``: ``uid:gid`` in digits;
    ``python``: ``3.MINOR`` or empty when there is none; ``agent``: what its guest agent needs."""

    entrypoint: list[str] = []
    env: dict[str, str] = {}
    workdir: str = "/"
    user: str = "0:0"
    python: str = ""
    agent: Literal["", "L0", "L1"] = ""


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """What it was made from: ``oci``, the digest of an OCI image, or empty."""

    oci: str = ""


class Manifest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An image. ``created``: ``YYYY-MM-DDThh:mm:ssZ``. ``runtimes``: the only ones it may run in,
    empty for any. ``not_after``: epoch seconds after which its signatures count no more."""

    format: Literal["guactors.image/1"] = FORMAT
    name: str
    arch: str
    os: Literal["linux"] = "linux"
    created: str
    config: Config = Config()
    blobs: list[Blob]
    source: Source = Source()
    runtimes: list[str] = []
    not_after: int | None = None

    def blob(self, role: str) -> Blob:
        """The blob of that role. Raises ImageRefused when there is none."""
        for blob in self.blobs:
            if blob.role == role:
                return blob
        has = ", ".join(blob.role for blob in self.blobs)
        raise ImageRefused(f"the image {self.name!r} has no blob {role!r}, it has: {has}")

    @property
    def size(self) -> int:
        """Bytes of all blobs; one that stands under two roles counts once."""
        return sum({blob.sha3_256: blob.size for blob in self.blobs}.values())


def encode_manifest(manifest: Manifest) -> bytes:
    """The canonical bytes. Raises ImageRefused for what :func:`parse_manifest` would refuse."""
    try:
        data = canonical.encode(manifest)
    except UsageError as fault:
        raise ImageRefused(f"{_WHAT} cannot be written: {fault}") from None
    parse_manifest(data)
    return data


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in ``data``. Raises ImageRefused unless it is canonical, complete, has nothing
    that is not known here, and agrees with itself."""
    try:
        manifest = canonical.decode(data, Manifest, what=_WHAT)
    except UsageError as fault:
        raise ImageRefused(f"{fault}{_other_format(data)}") from None
    _check(manifest)
    return manifest


def image_id(data: bytes) -> str:
    """The id of the image whose manifest is ``data``."""
    return ID_PREFIX + hashlib.sha3_256(data).hexdigest()


def parse_image_id(text: str) -> str:
    """``sha3-256:`` and 64 hex digits, which may be written in capitals. Raises UsageError for all
    else: a name or a tag could mean another image tomorrow."""
    found = text.strip().lower()
    if found.startswith(ID_PREFIX) and _HEX.fullmatch(found.removeprefix(ID_PREFIX)):
        return found
    shown = canonical.shown(text)
    if found.startswith(ID_PREFIX):
        hint = f"64 hex digits must follow {ID_PREFIX}, there are {len(found) - len(ID_PREFIX)}"
    elif found.startswith("sha256:"):
        hint = "it is the digest of an OCI image: import that, and take the id that it gets here"
    elif found.startswith(("hash:", "sha3:")):
        hint = "it is the hash of a file: import that, and take the id that it gets here"
    else:
        hint = "names and tags are not trusted: gu image list shows the ids"
    raise UsageError(f"{shown!r} is no image id ({ID_PREFIX} and 64 hex digits): {hint}")


def chunk_hash(data: bytes | bytearray | memoryview) -> str:
    """What a manifest says of a chunk: 64 hex digits."""
    return hashlib.sha3_256(data).hexdigest()


def blob_hash(size: int, chunks: Sequence[str]) -> str:
    """The name of a blob: 64 hex digits, from its size and the hashes of its chunks."""
    if len(chunks) == 1:
        return chunks[0]
    tree = hashlib.sha3_256(TREE + size.to_bytes(8, "big") + CHUNK.to_bytes(8, "big"))
    tree.update(bytes.fromhex("".join(chunks)))
    return tree.hexdigest()


def new_blob(role: Role, media: Media, size: int, chunks: Iterable[str]) -> Blob:
    """The description of a blob of ``size`` bytes, whose chunks have these hashes. Raises
    ImageRefused for a size that no blob may have."""
    blob = Blob(role, media, size, "", CHUNK, list(chunks))
    _check_chunks(blob)
    return msgspec.structs.replace(blob, sha3_256=blob_hash(size, blob.chunks))


def check_first_chunk(size: int, data: bytes | bytearray | memoryview) -> None:
    """Raise ImageRefused for a blob of one chunk whose content poses as the tree of another."""
    if size <= CHUNK and bytes(data[: len(TREE)]) == TREE:
        raise ImageRefused(
            f"the blob begins with {TREE!r}, which no blob of one chunk may: it could be taken for "
            "another, larger one"
        )


def check_blob(blob: Blob) -> None:
    """Raise ImageRefused unless the description agrees with itself."""
    _check_chunks(blob)
    for text in (blob.sha3_256, *blob.chunks):
        if not _HEX.fullmatch(text):
            raise _refused(f"{canonical.shown(text)!r} is no hash: 64 small hex digits are")
    found = blob_hash(blob.size, blob.chunks)
    if found != blob.sha3_256:
        raise _refused(
            f"the {blob.role} blob is named {blob.sha3_256}, but its size and chunks make {found}"
        )


def sign_image(secrets: SecretKey | Iterable[SecretKey], data: bytes) -> bytes:
    """The signature file of the manifest ``data``, by one or several signer keys."""
    signers = [secrets] if isinstance(secrets, SecretKey) else list(secrets)
    for secret in signers:
        if secret.kind is not Kind.SIGNER:
            raise UsageError(
                f"{secret.public.short} is a key of the kind {secret.kind.value}: images are "
                "signed by signer keys"
            )
    parse_manifest(data)
    return sign_detached(signers, IMAGE_TYPE, data)


def signers_of(data: bytes, signatures: bytes | None, now: float) -> frozenset[str]:
    """Who signed the manifest ``data``: the texts of their keys. Nobody without ``signatures``, and
    nobody after the image's ``not_after``; whom to trust is for the caller to judge.

    Raises ImageRefused for a signature that is wrong, damaged, or not of a signer key."""
    if not signatures:
        return frozenset()
    not_after = parse_manifest(data).not_after
    try:
        keys = open_detached(signatures, IMAGE_TYPE, data)
    except (AuthFailed, UsageError) as fault:
        raise ImageRefused(f"the signatures of the image {image_id(data)}: {fault}") from None
    for key in keys:
        if key.kind is not Kind.SIGNER:
            raise ImageRefused(
                f"the image {image_id(data)} is signed by {key.text}, a key of the kind "
                f"{key.kind.value}: only those of signers count"
            )
    if not_after is not None and now > not_after:
        return frozenset()
    return frozenset(key.text for key in keys)


def merge_signatures(data: bytes, one: bytes | None, other: bytes) -> bytes:
    """The signature file with those of both files, each verified; of two by one key the first.
    Raises ImageRefused when one is wrong, or there are too many."""
    found: dict[str, Signature] = {}
    for signatures in (one, other):
        if signatures:
            signers_of(data, signatures, 0)
            detached = canonical.decode(signatures, Detached, what="the signature file")
            for signature in detached.signatures:
                found.setdefault(signature.key, signature)
    merged = canonical.encode(Detached(IMAGE_TYPE, list(found.values())))
    signers_of(data, merged, 0)
    return merged


def _refused(why: str) -> ImageRefused:
    return ImageRefused(f"{_WHAT} is refused: {why}")


def _other_format(data: bytes) -> str:
    try:
        given = msgspec.json.decode(data[: canonical.LIMIT + 1])["format"]
    except (msgspec.MsgspecError, UnicodeError, RecursionError, TypeError, KeyError):
        return ""
    if given == FORMAT:
        return ""
    return f"; its format is {canonical.shown(str(given))!r}, this release reads {FORMAT!r}"


def _check(manifest: Manifest) -> None:
    _check_form(_NAME, "name", manifest.name)
    _check_form(_WORD, "arch", manifest.arch)
    _check_form(_CREATED, "created", manifest.created)
    _check_form(_OCI, "source.oci", manifest.source.oci)
    try:
        datetime.fromisoformat(manifest.created)
    except ValueError:
        raise _refused(f"there is no such time as {manifest.created}") from None
    _check_known("runtimes", manifest.runtimes, RUNTIMES)
    if manifest.not_after is not None and manifest.not_after < 0:
        raise _refused(f"not_after is {manifest.not_after}, epoch seconds are not negative")
    _check_config(manifest.config)
    roles = [blob.role for blob in manifest.blobs]
    if not roles:
        raise _refused("it has no blobs")
    if len(set(roles)) != len(roles):
        raise _refused(f"a role stands twice: {', '.join(roles)}")
    for blob in manifest.blobs:
        check_blob(blob)


def _check_config(config: Config) -> None:
    _check_form(_USER, "user", config.user)
    _check_form(_PYTHON, "python", config.python)
    if not config.workdir.startswith("/") or ".." in config.workdir.split("/"):
        raise _refused(f"the workdir {canonical.shown(config.workdir)!r} is no absolute path")
    if len(config.entrypoint) > _MOST_ITEMS or len(config.env) > _MOST_ITEMS:
        raise _refused(f"more than {_MOST_ITEMS} words of an entrypoint or of an environment")
    for text in (config.workdir, *config.entrypoint, *config.env, *config.env.values()):
        if "\0" in text or len(text) > _MOST_TEXT:
            raise _refused(f"{canonical.shown(text)!r} is too long, or has a zero byte")
    for name in config.env:
        if not name or "=" in name:
            raise _refused(f"{canonical.shown(name)!r} cannot be an environment variable")


def _check_form(form: re.Pattern[str], field: str, text: str) -> None:
    if not form.fullmatch(text):
        raise _refused(f"{field} {canonical.shown(text)!r} is not of the form {form.pattern}")


def _check_known(field: str, given: Sequence[str], known: Collection[str]) -> None:
    for one in given:
        if one not in known:
            raise _refused(f"{field}: {canonical.shown(one)!r} is none of {', '.join(known)}")
    if len(set(given)) != len(given):
        raise _refused(f"{field}: one stands twice: {', '.join(given)}")


def _check_chunks(blob: Blob) -> None:
    if blob.chunk != CHUNK:
        raise _refused(f"chunks of {blob.chunk} bytes, they have {CHUNK}")
    if not 1 <= blob.size <= MOST_CHUNKS * CHUNK:
        raise _refused(
            f"a {blob.role} blob of {blob.size} bytes, possible are 1 to {MOST_CHUNKS * CHUNK}"
        )
    count = -(-blob.size // CHUNK)
    if len(blob.chunks) != count:
        raise _refused(
            f"a {blob.role} blob of {blob.size} bytes has {count} chunks, {len(blob.chunks)} are "
            "given"
        )
