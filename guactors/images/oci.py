"""Images in the layout of the Open Container Initiative.

Owns: the way from an index to one image, and that every document and layer on it has the digest and
the size that the one above states. Must never: take a layer whose digest was not computed to its
last byte, or a document that could be read as two kinds.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from msgspec import Struct, field

from guactors.errors import ImageRefused, UsageError
from guactors.images.build import arch_word
from guactors.images.compression import PlainStream
from guactors.images.docker_config import DOCUMENT_MOST, ImageConfig, decode
from guactors.images.layers import add_layer
from guactors.images.members import MIB, Budget, Gate, Reader
from guactors.images.shelf import Shelf, read_small
from guactors.images.spool import Spool
from guactors.images.tar_reader import read_tar
from guactors.images.tree import Tree

DEPTH: Final = 8
"""Indexes inside each other."""
_MOST: Final = 1000
"""Images in an index, layers in an image."""
_DIGEST: Final = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})", re.ASCII)
_ATTESTATION: Final = "attestation-manifest"
LAYER_TYPES: Final = re.compile(
    r"application/vnd\.(oci\.image\.layer\.v1\.tar(\+(gzip|zstd))?"
    r"|oci\.image\.layer\.nondistributable\.v1\.tar(\+(gzip|zstd))?"
    r"|docker\.image\.rootfs\.(diff|foreign\.diff)\.tar(\.gzip)?)",
    re.ASCII,
)
NAME: Final = "org.opencontainers.image.ref.name"
_DOCKER_NAME: Final = "io.containerd.image.name"


class Platform(Struct):
    """For what an image is."""

    architecture: str = ""
    os: str = ""


class Descriptor(Struct, rename={"media_type": "mediaType"}):
    """A blob that another one points at."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] = field(default_factory=dict)


class _Document(Struct, rename={"schema": "schemaVersion"}):
    """An index or a manifest: which one, its fields tell."""

    schema: int
    manifests: list[Descriptor] | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None


class FoundImage(Struct):
    """One image: its digest, its configuration, and its layers from the lowest."""

    digest: str
    config: ImageConfig
    layers: list[Descriptor]


def find_image(shelf: Shelf, *, arch: str, select: str = "") -> FoundImage:
    """The image of a layout that is meant: the only one, or the one named ``select``, for the
    architecture ``arch`` where there are several. Raises UsageError when none or several are."""
    layout = decode(read_small(shelf, "oci-layout", DOCUMENT_MOST), dict[str, Any], "oci-layout")
    if layout.get("imageLayoutVersion") != "1.0.0":
        raise ImageRefused(f"{shelf.what}: its layout is not of version 1.0.0, the only one known")
    top = _document(read_small(shelf, "index.json", DOCUMENT_MOST), "index.json")
    if top.manifests is None:
        raise ImageRefused(f"{shelf.what}: its index.json is no index")
    found = [one for one in top.manifests if not select or select in _names(one)]
    if not found:
        names = sorted({name for one in top.manifests for name in _names(one)})
        raise UsageError(f"{shelf.what} has no image {select!r}, it has: {', '.join(names)}")
    images: list[Descriptor] = []
    seen: set[str] = set()
    for one in found:
        _collect(shelf, one, images, seen, 1)
    chosen = _choose(shelf, images, arch)
    manifest = _document(read_blob(shelf, chosen), chosen.digest)
    if manifest.config is None or manifest.layers is None or len(manifest.layers) > _MOST:
        raise ImageRefused(f"{shelf.what}: {chosen.digest} is no image, or has too many layers")
    config = decode(read_blob(shelf, manifest.config), ImageConfig, manifest.config.digest)
    return FoundImage(chosen.digest, config, manifest.layers)


def flatten(shelf: Shelf, image: FoundImage, spool: Spool) -> Tree:
    """The layers of an image on top of each other, every digest computed. Drop the tree on any
    error: only when this returns, all that is in it was verified."""
    for layer in image.layers:
        if not LAYER_TYPES.fullmatch(layer.media_type):
            raise ImageRefused(f"{layer.digest} is a {layer.media_type!r}, which is no known layer")
    names = [blob_name(layer.digest) for layer in image.layers]
    checks = [_Check(shelf, layer) for layer in image.layers]
    return stack(shelf, names, image.config.rootfs.diff_ids, spool, checks)


def stack(
    shelf: Shelf,
    names: list[str],
    diff_ids: list[str] | None,
    spool: Spool,
    checks: list[_Check] | None = None,
) -> Tree:
    """The tree of the layers in these files. ``diff_ids``: SHA-256 of each, uncompressed; None
    where none are stated; ``checks``: digests of the files as they are."""
    if diff_ids is not None and len(diff_ids) != len(names):
        raise ImageRefused(
            f"{shelf.what}: {len(names)} layers, but {len(diff_ids)} digests of them"
        )
    budget = Budget()
    tree = Tree()
    for index, name in enumerate(names):
        reader, size = shelf.open(name)
        what = f"{shelf.what}, layer {name}"
        outer = _Hashing(reader, checks[index].hasher() if checks else None)
        plain = _HashingPlain(outer, budget, what, diff_ids[index] if diff_ids else "")
        gate = Gate(budget, what)
        fault = None
        try:
            add_layer(tree, read_tar(plain, gate), gate, spool)
        except ImageRefused as error:
            fault = error
        if checks:
            while outer.read(MIB):
                pass
            checks[index].check(outer, size)
        if fault is not None:
            raise fault  # last: that it was damaged on its way says more
        plain.check()
    tree.check(shelf.what)
    return tree


def read_blob(shelf: Shelf, descriptor: Descriptor) -> bytes:
    """A document, which has the digest and the size that are stated."""
    name = blob_name(descriptor.digest)
    data = read_small(shelf, name, DOCUMENT_MOST)
    check = _Check(shelf, descriptor)
    hasher = check.hasher()
    hasher.update(data)
    check.compare(hasher.hexdigest(), len(data))
    return data


def blob_name(digest: str) -> str:
    """The file of a blob in a layout. Raises ImageRefused for digests that are not registered."""
    if not _DIGEST.fullmatch(digest):
        raise ImageRefused(f"{digest[:80]!r} is no digest: sha256 or sha512 and hex digits are")
    return "blobs/" + digest.replace(":", "/")


class _Check:
    """Compares a blob with its descriptor."""

    def __init__(self, shelf: Shelf, descriptor: Descriptor) -> None:
        blob_name(descriptor.digest)
        self._shelf = shelf
        self._descriptor = descriptor

    def hasher(self) -> Any:
        return hashlib.new(self._descriptor.digest.partition(":")[0])

    def check(self, read: _Hashing, size: int) -> None:
        self.compare(read.hasher.hexdigest(), size)

    def compare(self, found: str, size: int) -> None:
        wanted = self._descriptor
        if found != wanted.digest.partition(":")[2]:
            raise ImageRefused(
                f"{self._shelf.what}: the blob {wanted.digest} has another digest, {found}: it is "
                "damaged or was changed"
            )
        if size != wanted.size:
            raise ImageRefused(
                f"{self._shelf.what}: the blob {wanted.digest} has {size} bytes, {wanted.size} are "
                "stated"
            )


class _Hashing:
    """A reader that hashes what goes through it."""

    def __init__(self, reader: Reader, hasher: Any) -> None:
        self._reader = reader
        self.hasher = hasher

    def read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if self.hasher is not None:
            self.hasher.update(data)
        return data


class _HashingPlain(PlainStream):
    """A layer without its compression, hashed."""

    def __init__(self, source: Reader, budget: Budget, what: str, diff_id: str) -> None:
        super().__init__(source, budget, what)
        self._diff_id = diff_id
        self._hasher = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = super().read(size)
        if self._diff_id:
            self._hasher.update(data)
        return data

    def check(self) -> None:
        found = f"sha256:{self._hasher.hexdigest()}"
        if self._diff_id and found != self._diff_id:
            raise ImageRefused(
                f"{self.what} has the content {found}, the image's configuration states "
                f"{self._diff_id[:80]}: it is damaged or was changed"
            )


def _document(data: bytes, what: str) -> _Document:
    found = decode(data, _Document, what)
    if found.schema != 2:
        raise ImageRefused(f"{what} has the schema {found.schema}, only 2 is read")
    if (found.manifests is None) == (found.layers is None):
        # One that is both could be taken for either (CVE-2021-41190).
        raise ImageRefused(f"{what} is either neither or both of an index and a manifest")
    return found


def _collect(
    shelf: Shelf, descriptor: Descriptor, images: list[Descriptor], seen: set[str], depth: int
) -> None:
    """The images that a descriptor leads to, each once."""
    if depth > DEPTH:
        raise ImageRefused(f"{shelf.what}: indexes more than {DEPTH} deep inside each other")
    if descriptor.annotations.get("vnd.docker.reference.type") == _ATTESTATION:
        return
    if descriptor.digest in seen:
        return
    seen.add(descriptor.digest)
    if len(seen) > _MOST:
        raise ImageRefused(f"{shelf.what}: more than {_MOST} images and indexes")
    document = _document(read_blob(shelf, descriptor), descriptor.digest)
    if document.manifests is None:
        images.append(descriptor)
        return
    for one in document.manifests:
        if shelf.has(blob_name(one.digest)):  # often only the images of one platform were kept
            _collect(shelf, one, images, seen, depth + 1)


def _choose(shelf: Shelf, images: list[Descriptor], arch: str) -> Descriptor:
    if len(images) > 1:
        images = [one for one in images if _fits(one.platform, arch)] or images
    if len(images) == 1:
        return images[0]
    if not images:
        raise ImageRefused(f"{shelf.what} has no image")
    names = sorted({name for one in images for name in _names(one)})
    hint = f"choose one by its name: {', '.join(names)}" if names else "save one of them alone"
    raise UsageError(f"{shelf.what} has {len(images)} images: {hint}")


def _fits(platform: Platform | None, arch: str) -> bool:
    if platform is None or platform.os != "linux":
        return False
    return arch_word(platform.architecture) == arch


def _names(descriptor: Descriptor) -> list[str]:
    notes = descriptor.annotations
    return [notes[key] for key in (NAME, _DOCKER_NAME) if key in notes]
