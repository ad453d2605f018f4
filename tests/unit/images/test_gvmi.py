"""Golem's images: the trailer, and what becomes of its configuration (``images/gvmi.py``)."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import ImageRefused, UsageError
from guactors.images.gvmi import read_trailer
from guactors.images.importing import detect_kind, import_image
from guactors.images.manifest import Config
from guactors.images.squashfs import Superblock
from guactors.images.store import ImageStore
from tests.unit.images.archives import as_json, gvmi, new_store, squashfs_head

CONFIG = {
    "Hostname": "x",
    "Env": ["PATH=/usr/bin:/bin", "A=1"],
    "Cmd": ["/bin/run", "--all"],
    "Entrypoint": None,
    "WorkingDir": "/golem/work",
    "User": "1000:1000",
    "Volumes": {"/golem/work": {}},
}
PLAIN = squashfs_head(5000).ljust(5000, b"s")
PADDED = PLAIN.ljust(8192, b"\0")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return new_store(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image.gvmi"


@pytest.mark.parametrize("squashfs", [PLAIN, PADDED], ids=["plain", "padded"])
@pytest.mark.parametrize("checksum", [True, False])
def test_a_gvmi_is_imported(squashfs: bytes, checksum: bool, store: ImageStore, path: Path) -> None:
    path.write_bytes(gvmi(squashfs, CONFIG, checksum=checksum))
    assert detect_kind(path) == "gvmi"
    image = import_image(path, store, name="golem", arch="x86_64")
    found = store.get(image).manifest
    assert found.config == Config(
        entrypoint=["/bin/run", "--all"],
        env={"PATH": "/usr/bin:/bin", "A": "1"},
        workdir="/golem/work",
        user="1000:1000",
    )
    with store.open_blob(image, "rootfs") as file:
        assert file.read() == PADDED, "the trailer is cut"


def test_the_squashfs_inside_is_the_same_blob_as_the_squashfs_alone(
    store: ImageStore, path: Path
) -> None:
    path.write_bytes(gvmi(PLAIN, CONFIG))
    one = import_image(path, store, name="golem")
    path.write_bytes(PADDED)
    other = import_image(path, store, name="golem")
    assert store.get(one).manifest.blobs == store.get(other).manifest.blobs


def test_a_configuration_of_nothing(store: ImageStore, path: Path) -> None:
    path.write_bytes(gvmi(PLAIN, {}))
    assert store.get(import_image(path, store, name="golem")).manifest.config == Config()


@pytest.mark.parametrize("squashfs", [PLAIN, PADDED], ids=["plain", "padded"])
def test_a_wrong_checksum(squashfs: bytes, store: ImageStore, path: Path) -> None:
    data = bytearray(gvmi(squashfs, CONFIG))
    data[len(squashfs)] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageRefused, match="the checksum of its JSON is wrong"):
        import_image(path, store, name="golem")
    data = bytearray(gvmi(squashfs, CONFIG))
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageRefused, match="the checksum of its JSON is wrong"):
        import_image(path, store, name="golem")
    assert store.list() == []


@pytest.mark.parametrize("digits", [b"99999999", b"00010000", b"04194305"])
def test_a_length_that_reaches_into_the_squashfs(
    digits: bytes, store: ImageStore, path: Path
) -> None:
    path.write_bytes(gvmi(PLAIN, CONFIG)[:-8] + digits)
    with pytest.raises(ImageRefused, match="bytes of JSON are stated"):
        import_image(path, store, name="golem")


@pytest.mark.parametrize("digits", [b"00000000", b"00000005", b"00000100"])
def test_a_length_that_is_too_small(digits: bytes, store: ImageStore, path: Path) -> None:
    path.write_bytes(gvmi(PLAIN, CONFIG)[:-8] + digits)
    with pytest.raises(ImageRefused, match="the checksum of its JSON is wrong"):
        import_image(path, store, name="golem")


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ("text", "is damaged"),
        ([1], "is damaged"),
        ({"Env": [1]}, "is damaged"),
        ({"Env": ["x"]}, "no NAME=VALUE"),
        ({"User": ":"}, "neither USER nor USER:GROUP"),
        ({"Cmd": ["a\0b"]}, "zero byte"),
    ],
)
def test_configurations_that_are_refused(
    config: Any, rule: str, store: ImageStore, path: Path
) -> None:
    path.write_bytes(gvmi(PLAIN, config))
    with pytest.raises(ImageRefused, match=rule):
        import_image(path, store, name="golem")


def test_a_file_that_is_none(store: ImageStore, path: Path) -> None:
    path.write_bytes(PLAIN + b"no digits")
    assert detect_kind(path) == "squashfs"
    with pytest.raises(ImageRefused, match=r"is no \.gvmi"):
        import_image(path, store, name="golem", kind="gvmi")
    path.write_bytes(as_json(CONFIG) + b"%08d" % len(as_json(CONFIG)))
    with pytest.raises(UsageError, match="is no image"):
        import_image(path, store, name="golem")


def test_a_named_user_needs_the_tools(
    store: ImageStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number stands in the image, which only unsquashfs can read."""
    monkeypatch.setattr("guactors.runtimes.tools.find_tool", lambda name: None)
    for user in ("app", "1000"):
        path.write_bytes(gvmi(PLAIN, CONFIG | {"User": user}))
        with pytest.raises(UsageError, match="needs the program unsquashfs"):
            import_image(path, store, name="golem")


@given(st.binary(max_size=100), st.integers(0, 100))
def test_garbage_at_the_end_is_refused_and_nothing_else(noise: bytes, cut: int) -> None:
    data = gvmi(PLAIN, CONFIG)
    whole = data[: max(5000, len(data) - cut)] + noise
    superblock = Superblock(5000, 131072, "zstd", 1)
    with suppress(ImageRefused):
        read_trailer(io.BytesIO(whole), len(whole), superblock, "x")
