"""Images of ours for other systems: an OCI layout, and an archive for ``docker load``.

Owns: the form of both, which depends on nothing but the image: the same image, the same bytes. Must
never: write a time, or hand on a file of the image that was not checked.

The id of the image stands in the annotation ID_KEY, for people and tools: it is not a digest that
OCI knows, and nothing here believes it when such a layout is imported.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO, Final

import msgspec
from msgspec import Struct

from guactors.images.build import NO_TIME
from guactors.images.manifest import Manifest
from guactors.images.oci import NAME, blob_name
from guactors.images.rootfs import read_tree
from guactors.images.spool import Spool
from guactors.images.store import ImageStore
from guactors.images.tar_writer import (
    END,
    file_header,
    gzip_of,
    padding,
    stream_of,
    tar_of,
)
from guactors.images.tree import Tree

ID_KEY: Final = "org.guactors.image.id"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_File = tuple[str, int, Iterable[bytes]]
"""Name, size and content."""
_ARCHS: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


def docker_arch(arch: str) -> str:
    """What Docker calls the architecture of a manifest."""
    return _ARCHS.get(arch, arch)


@contextmanager
def oci_archive(store: ImageStore, image_id: str, *, compress: bool = True) -> Iterator[BinaryIO]:
    """The image as a tar of an OCI layout, a stream to read once inside the block.

    ``compress``: its one layer with gzip. Imported again it gives the same files. Raises
    ImageRefused, also while it is read, for an image that breaks the rules of archives."""
    image = store.get(image_id)
    with Spool() as spool:
        tree = read_tree(store, image.id, spool)
        plain, _ = _hashed(tar_of(tree))
        layer = spool.keep(gzip_of(tar_of(tree))) if compress else None
        digest, size = _hashed(layer.pieces() if layer else tar_of(tree))
        config = _json(_image_config(image.manifest, plain))
        descriptor = {
            "digest": digest,
            "mediaType": _LAYER + ("+gzip" if compress else ""),
            "size": size,
        }
        notes = {ID_KEY: image.id, NAME: image.manifest.name}
        manifest = _json({
            "annotations": notes,
            "config": _descriptor(_CONFIG, config),
            "layers": [descriptor],
            "mediaType": _MANIFEST,
            "schemaVersion": 2,
        })  # fmt: skip
        index = _json({
            "manifests": [_descriptor(_MANIFEST, manifest) | {"annotations": notes}],
            "mediaType": _INDEX,
            "schemaVersion": 2,
        })  # fmt: skip
        layout = _json({"imageLayoutVersion": "1.0.0"})
        files: list[_File] = [
            ("oci-layout", len(layout), [layout]),
            ("index.json", len(index), [index]),
            (blob_name(_digest(config)), len(config), [config]),
            (blob_name(_digest(manifest)), len(manifest), [manifest]),
            (blob_name(digest), size, layer.pieces() if layer else tar_of(tree)),
        ]
        yield stream_of(_archive(files))


class DockerArchive(Struct, frozen=True):
    """``id``: what Docker calls the image once it is loaded, ``sha256:`` and 64 hex digits;
    ``stream``: what ``docker load`` reads, once."""

    id: str
    stream: BinaryIO


@contextmanager
def docker_archive(
    store: ImageStore, image_id: str, *, over: Tree | None = None
) -> Iterator[DockerArchive]:
    """The image as an archive for ``docker load``, to read inside the block.

    ``over``: what is laid over it, as a layer of its own, so that the image's own is shared with
    one without it. It gets no tag: run it by its id, which is the same every time. Raises
    ImageRefused, also while it is read, for an image that breaks the rules of archives."""
    image = store.get(image_id)
    with Spool() as spool:
        tree = read_tree(store, image.id, spool)
        layers: dict[str, Callable[[], Iterable[bytes]]] = {"layer.tar": lambda: tar_of(tree)}
        if over is not None:
            layers["over.tar"] = lambda: chain([_root_header()], tar_of(over))
        found = {name: _hashed(pieces()) for name, pieces in layers.items()}
        labelled = _image_config(image.manifest, *(digest for digest, _ in found.values()))
        labelled["config"]["Labels"] = {ID_KEY: image.id}
        config = _json(labelled)
        stated = f"{_digest(config).removeprefix('sha256:')}.json"
        manifest = _json([{"Config": stated, "Layers": list(layers), "RepoTags": None}])
        files: list[_File] = [
            (stated, len(config), [config]),
            *((name, found[name][1], pieces()) for name, pieces in layers.items()),
            ("manifest.json", len(manifest), [manifest]),
        ]
        yield DockerArchive(_digest(config), stream_of(_archive(files)))


def _root_header() -> bytes:
    """Of the root itself, by the one name that all systems heed. Podman takes a root of which no
    layer says anything for one that nobody may write to."""
    info = tarfile.TarInfo("/")
    info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info.tobuf(tarfile.GNU_FORMAT)


def _image_config(manifest: Manifest, *diff_ids: str) -> dict[str, Any]:
    given = manifest.config
    config: dict[str, Any] = {
        "Entrypoint": given.entrypoint or None,
        "Env": [f"{name}={value}" for name, value in sorted(given.env.items())],
        "User": given.user,
        "WorkingDir": given.workdir,
    }
    return {
        "architecture": docker_arch(manifest.arch),
        "config": config,
        "created": NO_TIME,
        "os": manifest.os,
        "rootfs": {"diff_ids": diff_ids, "type": "layers"},
    }


def _archive(files: list[_File]) -> Iterator[bytes]:
    """A plain tar of these files."""
    for name, size, pieces in files:
        yield file_header(name, size)
        yield from pieces
        yield padding(size)
    yield END


def _hashed(pieces: Iterable[bytes]) -> tuple[str, int]:
    """Digest and length."""
    hasher, size = hashlib.sha256(), 0
    for piece in pieces:
        hasher.update(piece)
        size += len(piece)
    return f"sha256:{hasher.hexdigest()}", size


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(media: str, data: bytes) -> dict[str, Any]:
    return {"digest": _digest(data), "mediaType": media, "size": len(data)}


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value, order="sorted")
