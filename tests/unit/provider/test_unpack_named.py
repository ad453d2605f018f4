"""An image is not had by calling it an archive of files: who may run it is judged elsewhere."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from guactors.images.manifest import encode_manifest, parse_manifest
from guactors.images.store import ImageStore
from guactors.provider_fetch import ImageTrouble
from guactors.provider_images import QUOTA, Images
from guactors.runtime_env.description import ARCHIVE
from guactors.runtime_env.packing import Archive, pack_file


def store(place: Path, archive: Archive, manifest: bytes) -> str:
    kept = ImageStore(place, quota=QUOTA, now=time.time)
    partial = kept.open_partial(parse_manifest(manifest).blobs[0])
    partial.write(0, archive.chunks[0])
    partial.seal()
    partial.close()
    return kept.add_image(manifest)


@pytest.mark.parametrize("name", [ARCHIVE, "secret-tools"])
def test_only_archives_of_files_are_unpacked_as_such(tmp_path: Path, name: str) -> None:
    archive = pack_file("file", b"content")
    manifest = encode_manifest(replace(parse_manifest(archive.manifest), name=name))
    image = store(tmp_path / "store", archive, manifest)
    images = Images(tmp_path / "store", tmp_path / "roots", lambda _: None, lambda _: None)
    target = tmp_path / "target"
    if name == ARCHIVE:
        images.unpack_named(image, ARCHIVE, target)
        assert (target / "file").read_bytes() == b"content"
        return
    with pytest.raises(ImageTrouble, match="is an image, and no archive"):
        images.unpack_named(image, ARCHIVE, target)
    assert not target.exists()
