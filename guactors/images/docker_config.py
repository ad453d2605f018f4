"""What Docker and OCI say of an image besides its files, in the words of a manifest.

Owns: the fields that are read (Env, Entrypoint, Cmd, WorkingDir, User) and what they become. Must
never: pass on what a manifest has no word for, or guess at what is malformed.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from guactors.errors import ImageRefused
from guactors.images.manifest import Config
from guactors.images.users import user_numbers
from guactors.security.canonical import shown

DOCUMENT_MOST: Final = 4 * 2**20
"""Bytes of a manifest, an index or a configuration."""
T = TypeVar("T")


class ContainerConfig(Struct, frozen=True, rename="pascal"):
    """Docker's ContainerConfig, as far as it is used; null and missing mean empty."""

    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None


class RootLayers(Struct, frozen=True):
    """SHA-256 of each layer without its compression."""

    diff_ids: list[str] = []


class ImageConfig(Struct, frozen=True):
    """The configuration of an image, which its SHA-256 names."""

    architecture: str = ""
    os: str = "linux"
    created: str | None = None
    config: ContainerConfig | None = None
    rootfs: RootLayers = RootLayers()


def decode(data: bytes, form: type[T], what: str) -> T:
    """A JSON document as ``form``; unknown fields are passed over. Raises ImageRefused."""
    try:
        return msgspec.json.decode(data, type=form)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as fault:
        raise ImageRefused(f"{what} is damaged: {shown(str(fault))}") from None


def image_config(
    found: ContainerConfig | None, read: Callable[[str], bytes | None], what: str
) -> Config:
    """The configuration in the words of a manifest. ``read``: the content of a file of the image,
    for the numbers of its users. Raises ImageRefused for what cannot be meant."""
    found = found or ContainerConfig()
    env: dict[str, str] = {}
    for text in found.env or []:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ImageRefused(f"{what}: {shown(text)!r} is no NAME=VALUE of an environment")
        env[name] = value
    return Config(
        entrypoint=[*(found.entrypoint or []), *(found.cmd or [])],
        env=env,
        workdir=posixpath.normpath("/" + (found.working_dir or "")).replace("//", "/", 1),
        user=user_numbers(found.user or "", read, what),
    )
