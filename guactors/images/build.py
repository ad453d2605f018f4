"""An image made of a directory.

Owns: the steps from a tree to an image in the store. Must never: put a time, an owner or a name of
this machine into an image unless asked to: the same directory must give the same id.
"""

from __future__ import annotations

import logging
import platform
import re
from pathlib import Path
from typing import Final

from guactors.images.directory import scan_directory
from guactors.images.manifest import Blob, Config, Manifest, Source, encode_manifest
from guactors.images.rootfs import RootMedia, check_media, write_rootfs
from guactors.images.store import ImageStore
from guactors.images.tree import Tree

NO_TIME: Final = "1970-01-01T00:00:00Z"
"""When an image was made is not told: it would change the id."""
_ARCHS: Final = {
    "amd64": "x86_64",
    "x64": "x86_64",
    "arm64": "aarch64",
    "386": "i686",
    "arm": "armv7l",
}
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_PYTHON: Final = re.compile(r"python(3\.[0-9]{1,3})", re.ASCII)
log = logging.getLogger("guactors.images")


def build_image(
    source_dir: Path,
    store: ImageStore,
    *,
    name: str,
    config: Config | None = None,
    media: RootMedia = "auto",
    arch: str = "",
    owners: bool = False,
) -> str:
    """Make an image of a directory and add it to the store; returns its id.

    ``config``: none means a shell's, with the version of the Python that is found in there.
    ``media``: ``auto`` is squashfs where mksquashfs is installed, tar+gzip elsewhere. ``arch``: for
    which processors its programs are, this machine's if empty. All times in it are 0, all owners 0
    unless ``owners``: the same directory gives the same id with the same releases of mksquashfs or
    zlib, and as ``tar`` everywhere. (Compiled Python files record the time of their source and are
    compiled anew where that is 0: make them with ``python -m compileall --invalidation-mode
    unchecked-hash``.) Raises UsageError for what cannot be in an image."""
    wanted = check_media(media)
    tree = scan_directory(Path(source_dir), owners=owners)
    report(tree)
    config = config or Config(python=python_of(tree))
    blob = write_rootfs(tree, store, wanted, str(source_dir))
    return add_rootfs(store, blob, name=name, config=config, arch=arch)


def add_rootfs(
    store: ImageStore,
    blob: Blob,
    *,
    name: str,
    config: Config | None = None,
    arch: str = "",
    created: str = NO_TIME,
    source: Source | None = None,
) -> str:
    """Add the image whose root file system is ``blob``; returns its id. Raises ImageRefused for a
    manifest that cannot be."""
    manifest = Manifest(
        name=name,
        arch=arch_word(arch or platform.machine()),
        created=created,
        config=config or Config(),
        blobs=[blob],
        source=source or Source(),
    )
    return store.add_image(encode_manifest(manifest))


def arch_word(text: str) -> str:
    """The kernel's name of an architecture, of its other names."""
    return _ARCHS.get(text.lower(), text.lower())


def python_of(tree: Tree, path: str = "") -> str:
    """``3.MINOR`` of the ``python3`` that is found first along ``path``, a list as of PATH; empty
    when there is none, or its file is not named after its version."""
    for directory in (path or _PATH).split(":"):
        found = tree.real_path(f"{directory}/python3")
        if found:
            named = _PYTHON.fullmatch(found[-1])
            return named[1] if named else ""
    return ""


def report(tree: Tree) -> None:
    """Log what is allowed, but looks wrong."""
    for warning in tree.warnings:
        log.warning("%s: other systems cannot tell them apart", warning)
