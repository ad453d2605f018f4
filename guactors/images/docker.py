"""Archives of ``docker save``.

Owns: their three forms: with a ``manifest.json``; the same with an OCI layout around it, which is
read as such (``oci``); and that of before 2016, in which each layer names its parent. Must never:
take a layer on trust where the archive says what its content must be.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from msgspec import Struct

from guactors.errors import ImageRefused, UsageError
from guactors.images.docker_config import DOCUMENT_MOST, ContainerConfig, ImageConfig, decode
from guactors.images.oci import stack
from guactors.images.shelf import Shelf, read_small
from guactors.images.spool import Spool
from guactors.images.tree import Tree

_MOST: Final = 1000
"""Layers of an image; Docker itself stops at 127."""
_ID: Final = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?", re.ASCII)
_LAYER: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class _Saved(Struct, rename="pascal"):
    """An entry of manifest.json."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class _Layer(Struct):
    """``<id>/json`` of the oldest form."""

    parent: str = ""
    architecture: str = ""
    os: str = "linux"
    created: str | None = None
    config: ContainerConfig | None = None


class SavedImage(Struct):
    """One image: its configuration, the files of its layers from the lowest, and the digest of
    each; None in the oldest form, which has none."""

    config: ImageConfig
    layers: list[str]
    diff_ids: list[str] | None


def find_saved(shelf: Shelf, *, select: str = "") -> SavedImage:
    """The image of an archive that is meant: the only one, or the one with the tag ``select``.
    Raises UsageError when that is none or several."""
    if not shelf.has("manifest.json"):
        return _find_old(shelf, select)
    found = decode(read_small(shelf, "manifest.json", DOCUMENT_MOST), list[_Saved], "manifest.json")
    tagged = {tag: number for number, one in enumerate(found) for tag in one.repo_tags or []}
    chosen = found[_choose(shelf, tagged, len(found), select)]
    data = read_small(shelf, chosen.config, DOCUMENT_MOST)
    stated = _ID.fullmatch(chosen.config)
    if stated and hashlib.sha256(data).hexdigest() != stated[1]:
        raise ImageRefused(
            f"{shelf.what}: the configuration {chosen.config} does not have the content that its "
            "name states: it is damaged or was changed"
        )
    config = decode(data, ImageConfig, chosen.config)
    if not chosen.layers or len(chosen.layers) > _MOST:
        raise ImageRefused(f"{shelf.what}: an image of {len(chosen.layers)} layers")
    return SavedImage(config, chosen.layers, config.rootfs.diff_ids)


def flatten_saved(shelf: Shelf, image: SavedImage, spool: Spool) -> Tree:
    """The layers of an image on top of each other, each compared with the digest of its content.
    Drop the tree on any error."""
    return stack(shelf, image.layers, image.diff_ids, spool)


def _find_old(shelf: Shelf, select: str) -> SavedImage:
    data = read_small(shelf, "repositories", DOCUMENT_MOST)
    found = decode(data, dict[str, dict[str, str]], "repositories")
    tops = {f"{name}:{tag}": top for name, tags in found.items() for tag, top in tags.items()}
    ids = sorted(set(tops.values()))
    tagged = {tag: ids.index(top) for tag, top in tops.items()}
    top = layer = ids[_choose(shelf, tagged, len(ids), select)]
    layers: list[str] = []
    described: dict[str, _Layer] = {}
    while layer:
        if not _LAYER.fullmatch(layer) or layer in described or len(layers) == _MOST:
            raise ImageRefused(f"{shelf.what}: {layer[:80]!r} cannot be a layer of an image")
        name = f"{layer}/json"
        described[layer] = decode(read_small(shelf, name, DOCUMENT_MOST), _Layer, name)
        layers.append(f"{layer}/layer.tar")
        layer = described[layer].parent
    last = described[top]
    config = ImageConfig(last.architecture, last.os, last.created, last.config)
    return SavedImage(config, layers[::-1], None)


def _choose(shelf: Shelf, tagged: dict[str, int], count: int, select: str) -> int:
    if select:
        for tag in (select, f"{select}:latest"):
            if tag in tagged:
                return tagged[tag]
        raise UsageError(
            f"{shelf.what} has no image {select!r}, it has: {', '.join(sorted(tagged)) or 'none'}"
        )
    if count != 1:
        hint = f"choose one by its tag: {', '.join(sorted(tagged))}" if tagged else "save one alone"
        raise UsageError(f"{shelf.what} has {count} images: {hint}")
    return 0
