"""What tests of deployments share: images with busybox, and their way to the hub.

Owns: how they are built. Must never: use images of the machine.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Literal

from guactors.grid_client import GridClient
from guactors.image_client import push
from guactors.images.build import build_image
from guactors.images.store import ImageStore
from tests.e2e.keyed_grid import WITHIN, KeyedGrid

NAMES = (
    "cat", "dd", "echo", "env", "head", "id", "ls", "mkdir", "printf", "rm", "seq", "sh", "sleep",
    "tr", "true", "wc", "yes",
)  # fmt: skip
UPLOADS = ["submit", "read_stats", "upload_images"]


def new_store(path: Path) -> ImageStore:
    return ImageStore(path / "images", quota=1 << 30, now=time.time)


def shell_image(
    store: ImageStore, path: Path, note: str = "", media: Literal["tar", "squashfs"] = "tar"
) -> str:
    """The id of an image with busybox under its names; ``note`` makes it another one."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    root = path / f"root{note}"
    for name in ("bin", "etc", "tmp", "data"):
        (root / name).mkdir(parents=True)
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in NAMES:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nguest:x:1000:1000::/:/bin/sh\n")
    (root / "etc" / "note").write_text(note)
    return build_image(root, store, name=f"shell{note}", media=media)


def upload(grid: KeyedGrid, app: Path, store: ImageStore, image: str) -> None:
    """By an app that may."""
    with GridClient(grid.address, key=str(app), timeout=WITHIN) as client:
        push(client, store, image)
