"""OCI layouts: which image is meant, every digest, the layers on top of each other, and the way
back (``images/oci.py``, ``shelf.py``, ``importing.py``, ``exporting.py``)."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guactors.errors import ImageRefused, UsageError
from guactors.images.exporting import ID_KEY, oci_archive
from guactors.images.importing import detect_kind, import_image
from guactors.images.manifest import Config
from guactors.images.members import Budget, Limits
from guactors.images.oci import blob_name
from guactors.images.store import ImageStore
from tests.unit.images.archives import (
    Layout,
    as_json,
    file,
    folder,
    hard,
    image_listing,
    link,
    new_store,
    pack,
    sha256,
    stored_names,
    tar,
)

BASE = tar(
    folder("etc"),
    file("etc/passwd", b"root:x:0:0:::\napp:x:1000:1001:::\n"),
    file("etc/group", b"root:x:0:\nstaff:x:50:app\n"),
    file("etc/old"),
    file("usr/bin/python3.12", b"elf", mode=0o755),
    link("usr/bin/python3", "python3.12"),
    link("bin", "usr/bin"),
)
UPPER = tar(file("etc/.wh.old"), file("etc/new", b"2"), hard("etc/same", "etc/new"))
CONFIG = {
    "Env": ["PATH=/bin", "A=b=c"],
    "Entrypoint": ["/bin/python3"],
    "Cmd": ["-m", "app"],
    "WorkingDir": "/srv/../srv/app/",
    "User": "app",
    "Volumes": {"/data": {}},
    "Labels": None,
}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return new_store(tmp_path)


@pytest.fixture
def fetch(tmp_path: Path, store: ImageStore) -> Callable[..., str]:
    def fetch(data: bytes | Path, **options: Any) -> str:
        path = data if isinstance(data, Path) else tmp_path / "image.of.unknown.kind"
        if isinstance(data, bytes):
            path.write_bytes(data)
        return import_image(path, store, **({"name": "app", "media": "tar"} | options))

    return fetch


def layout(**options: Any) -> Layout:
    found = Layout()
    found.image(BASE, UPPER, **({"config": CONFIG} | options))
    return found


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", ["gzip", "plain"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_layers_are_flattened_and_the_configuration_kept(
    compress: str, algorithm: str, store: ImageStore, fetch: Callable[..., str]
) -> None:
    made = layout(compress=compress, algorithm=algorithm)
    image = fetch(made.tar())
    found = store.get(image).manifest
    assert found.config == Config(
        entrypoint=["/bin/python3", "-m", "app"],
        env={"PATH": "/bin", "A": "b=c"},
        workdir="/srv/app",
        user="1000:1001",
        python="3.12",
    )
    assert (found.arch, found.os, found.name) == ("x86_64", "linux", "app")
    assert found.source.oci == made.manifests[0]["digest"]
    files = image_listing(store, image)
    assert sorted(files) == [
        "bin", "etc", "etc/group", "etc/new", "etc/passwd", "etc/same", "usr", "usr/bin",
        "usr/bin/python3", "usr/bin/python3.12",
    ]  # fmt: skip
    assert files["etc/same"] == files["etc/new"] == ("file", 0o644, b"2")


def test_directory_and_archive_plain_or_compressed_give_the_same_image(
    tmp_path: Path, fetch: Callable[..., str]
) -> None:
    import bz2
    import gzip

    made = layout()
    directory = made.directory(tmp_path / "layout")
    assert detect_kind(directory) == "oci"
    images = {fetch(one) for one in (directory, made.tar(), gzip.compress(made.tar()))}
    images.add(fetch(bz2.compress(made.tar()), kind="oci"))
    assert len(images) == 1


def test_an_image_is_chosen_by_name_or_by_architecture(
    store: ImageStore, fetch: Callable[..., str]
) -> None:
    made = Layout()
    made.image(tar(file("one")), name="one")
    made.image(tar(file("two")), name="two")
    assert stored_names(store, fetch(made.tar(), select="two")) == {"two"}
    with pytest.raises(UsageError, match="no image 'three', it has: one, two"):
        fetch(made.tar(), select="three")
    with pytest.raises(UsageError, match="has 2 images: choose one by its name: one, two"):
        fetch(made.tar())
    made = Layout()
    made.image(tar(file("intel")), arch="amd64")
    made.image(tar(file("arm")), arch="arm64")
    image = fetch(made.tar(), arch="aarch64")
    assert stored_names(store, image) == {"arm"}
    assert store.get(image).manifest.arch == "aarch64"
    with pytest.raises(UsageError, match="2 images: save one of them alone"):
        fetch(made.tar(), arch="riscv64")


def test_indexes_in_indexes_and_images_that_were_not_kept(
    store: ImageStore, fetch: Callable[..., str]
) -> None:
    made = Layout()
    inner = made.image(tar(file("one")))
    missing = dict(inner, digest="sha256:" + "0" * 64)
    proof = dict(inner, annotations={"vnd.docker.reference.type": "attestation-manifest"})
    for _ in range(7):
        index = {"schemaVersion": 2, "manifests": [inner, missing, proof, inner]}
        inner = made.blob(as_json(index))
    made.manifests = [inner]
    assert stored_names(store, fetch(made.tar())) == {"one"}


def test_indexes_too_deep(fetch: Callable[..., str]) -> None:
    made = Layout()
    inner = made.image(tar(file("one")))
    for _ in range(9):
        inner = made.blob(as_json({"schemaVersion": 2, "manifests": [inner]}))
    made.manifests = [inner]
    with pytest.raises(ImageRefused, match="indexes more than 8 deep"):
        fetch(made.tar())


def test_many_ways_to_the_same_index_are_one(fetch: Callable[..., str]) -> None:
    """Eight levels of a hundred equal entries would be read ten thousand million million times."""
    made = Layout()
    inner = made.image(tar(file("one")))
    for _ in range(7):
        inner = made.blob(as_json({"schemaVersion": 2, "manifests": [inner] * 100}))
    made.manifests = [inner]
    assert fetch(made.tar())


@pytest.mark.parametrize(
    ("user", "numbers"),
    [
        ("", "0:0"),
        ("app", "1000:1001"),
        ("1000", "1000:1001"),
        ("7", "7:0"),
        ("7:8", "7:8"),
        ("app:staff", "1000:50"),
        ("0:staff", "0:50"),
        ("app:9", "1000:9"),
    ],
)
def test_users_are_looked_up_in_the_image(
    user: str, numbers: str, store: ImageStore, fetch: Callable[..., str]
) -> None:
    image = fetch(layout(config={"User": user}).tar())
    assert store.get(image).manifest.config.user == numbers


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({"User": "nobody"}, "its user 'nobody' is not in its etc/passwd"),
        ({"User": "app:wheel"}, "its group 'wheel' is not in its etc/group"),
        ({"User": "app:"}, "neither USER nor USER:GROUP"),
        ({"User": ":0"}, "neither USER nor USER:GROUP"),
        ({"User": "99999999999:0"}, "is not in its etc/passwd"),
        ({"Env": ["NOVALUE"]}, "no NAME=VALUE"),
        ({"Env": ["=x"]}, "no NAME=VALUE"),
        ({"Env": "PATH=/bin"}, "damaged"),
        ({"Entrypoint": "sh"}, "damaged"),
        ({"Env": [f"A{number}=" for number in range(2000)]}, "more than 1024 words"),
    ],
)
def test_configurations_that_cannot_be_meant(
    config: dict[str, Any], rule: str, fetch: Callable[..., str], store: ImageStore
) -> None:
    with pytest.raises(ImageRefused, match=rule):
        fetch(layout(config=config).tar())
    assert store.list() == []


def test_times_and_systems(store: ImageStore, fetch: Callable[..., str]) -> None:
    def changed(**fields: str) -> bytes:
        made = Layout()
        found = made.image(BASE)
        manifest = json.loads(made.blobs[found["digest"]])
        config = json.loads(made.blobs[manifest["config"]["digest"]]) | fields
        manifest["config"] = made.blob(as_json(config))
        made.manifests = [made.blob(as_json(manifest))]
        return made.tar()

    image = fetch(changed(created="2024-02-29T12:34:56.789Z"))
    assert store.get(image).manifest.created == "2024-02-29T12:34:56Z"
    image = fetch(changed(created="yesterday"))
    assert store.get(image).manifest.created == "1970-01-01T00:00:00Z"
    with pytest.raises(ImageRefused, match="an image for 'windows'"):
        fetch(changed(os="windows"))


# --- what is refused ------------------------------------------------------------------------------


def flipped(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["layer 1", "layer 2", "config", "manifest"])
def test_oci_digest_mismatch(which: int, fetch: Callable[..., str], store: ImageStore) -> None:
    made = layout(compress="plain")
    digests = list(made.blobs)
    manifest = json.loads(made.blobs[digests[3]])
    order = [one["digest"] for one in manifest["layers"]]
    order += [manifest["config"]["digest"], digests[3]]
    # A flipped bit of the padding: the archive stays readable.
    made.blobs[order[which]] = flipped(made.blobs[order[which]])
    with pytest.raises(ImageRefused, match=r"has another digest, .*: it is damaged or was changed"):
        fetch(made.tar())
    assert store.list() == []


def test_a_layer_that_goes_on_after_its_end_has_another_digest(fetch: Callable[..., str]) -> None:
    made = layout(compress="plain")
    [digest] = [one for one, data in made.blobs.items() if data == BASE]
    made.blobs[digest] = BASE + bytes(512)
    with pytest.raises(ImageRefused, match="has another digest"):
        fetch(made.tar())


def test_a_layer_of_another_size(fetch: Callable[..., str]) -> None:
    made = layout()
    found = made.manifests[0]
    manifest = json.loads(made.blobs[found["digest"]])
    manifest["layers"][0]["size"] += 1
    made.manifests = [made.blob(as_json(manifest))]
    with pytest.raises(ImageRefused, match="are stated"):
        fetch(made.tar())


def test_a_layer_whose_content_is_not_what_the_configuration_states(
    fetch: Callable[..., str],
) -> None:
    with pytest.raises(ImageRefused, match="the image's configuration states sha256:0000"):
        fetch(layout(diff_ids=["sha256:" + "0" * 64, f"sha256:{sha256(UPPER)}"]).tar())
    for ids in ([], [f"sha256:{sha256(BASE)}"]):
        with pytest.raises(ImageRefused, match=f"2 layers, but {len(ids)} digests"):
            fetch(layout(diff_ids=ids).tar())


@pytest.mark.parametrize(
    "digest",
    ["md5:" + "0" * 32, "sha256:../../etc/passwd", "sha256:" + "A" * 64, "sha512:" + "0" * 64, ""],
)
def test_digests_that_are_not_registered(digest: str, fetch: Callable[..., str]) -> None:
    with pytest.raises(ImageRefused, match="is no digest"):
        blob_name(digest)
    made = layout()
    made.manifests[0]["digest"] = digest
    with pytest.raises(ImageRefused, match="is no digest"):
        fetch(made.tar())


def changed_manifest(change: Callable[[dict[str, Any]], None]) -> bytes:
    made = layout()
    manifest = json.loads(made.blobs[made.manifests[0]["digest"]])
    change(manifest)
    made.manifests = [made.blob(as_json(manifest))]
    return made.tar()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda one: one.update(manifests=[]), "both of an index and a manifest"),
        (lambda one: one.pop("layers"), "either neither or both"),
        (lambda one: one.pop("config"), "is no image"),
        (lambda one: one.update(schemaVersion=1), "has the schema 1"),
        (lambda one: one.update(layers=one["layers"] * 501), "too many layers"),
        (lambda one: one["layers"][0].update(mediaType="text/plain"), "is no known layer"),
        (lambda one: one["layers"][0].update(digest="sha256:" + "1" * 64), "it is missing"),
        (lambda one: one["config"].update(digest="sha256:" + "1" * 64), "it is missing"),
        (lambda one: one["layers"][0].update(size="10"), "damaged"),
    ],
)
def test_damaged_manifests(
    change: Callable[[dict[str, Any]], None], rule: str, fetch: Callable[..., str]
) -> None:
    with pytest.raises(ImageRefused, match=rule):
        fetch(changed_manifest(change))


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("oci-layout", b'{"imageLayoutVersion":"2.0.0"}', "not of version 1.0.0"),
        ("oci-layout", b"[]", "oci-layout is damaged"),
        ("index.json", b'{"schemaVersion":2,"layers":[]}', "is no index"),
        ("index.json", b'{"schemaVersion":2,"manifests":[]}', "has no image"),
        ("index.json", b"[" * 100_000, "index.json is damaged"),
        ("index.json", b" " * (4 * 2**20 + 1), "at most 4194304 are read"),
        ("index.json", b'{"schemaVersion":2,"manifests":[{}]}', "index.json is damaged"),
    ],
)
def test_damaged_layouts(name: str, data: bytes, rule: str, fetch: Callable[..., str]) -> None:
    with pytest.raises((ImageRefused, UsageError), match=rule):
        fetch(pack(layout().files() | {name: data}))


def test_whiteout_escaping_its_layer(fetch: Callable[..., str], store: ImageStore) -> None:
    for mark in ("etc/.wh...", ".wh...", "../.wh.etc"):
        made = Layout()
        made.image(BASE, tar(file(mark)))
        with pytest.raises(ImageRefused):
            fetch(made.tar())
    assert store.list() == []


def test_layers_share_one_budget(
    fetch: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small layers are one large image."""
    monkeypatch.setattr("guactors.images.oci.Budget", lambda: Budget(Limits(members=50)))
    one, other = (tar(*(file(f"{name}{n}") for n in range(30))) for name in "ab")
    for layers in ([one], [other]):
        made = Layout()
        made.image(*layers)
        assert fetch(made.tar())
    made = Layout()
    made.image(one, other)
    with pytest.raises(ImageRefused, match="more than 50 members"):
        fetch(made.tar())


@pytest.mark.needs("posix")
def test_links_in_a_layout_directory_are_not_followed(
    tmp_path: Path, fetch: Callable[..., str]
) -> None:
    made = layout()
    directory = made.directory(tmp_path / "layout")
    blob = directory / blob_name(made.manifests[0]["digest"])
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ImageRefused, match="a link, which may lead anywhere"):
        fetch(directory)
    blob.unlink()
    os.mkfifo(blob)
    with pytest.raises(ImageRefused, match="no plain file"):
        fetch(directory)


def test_a_file_twice_in_the_archive(fetch: Callable[..., str]) -> None:
    data = layout().tar()
    twice = data[:-1024] + tar(file("index.json", b"{}"))
    with pytest.raises(ImageRefused, match=r"'index.json': it is there twice"):
        fetch(twice, kind="oci")


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [True, False])
def test_what_is_exported_is_imported_as_the_same_files(
    compress: bool, store: ImageStore, fetch: Callable[..., str]
) -> None:
    image = fetch(layout().tar())
    with oci_archive(store, image, compress=compress) as stream:
        data = stream.read()
    with oci_archive(store, image, compress=compress) as stream:
        assert stream.read() == data, "the same bytes each time"
    again = fetch(data)
    assert image_listing(store, again) == image_listing(store, image)
    one, other = store.get(image).manifest, store.get(again).manifest
    assert other.blobs == one.blobs
    assert (other.config, other.arch, other.name) == (one.config, one.arch, one.name)


def test_an_export_carries_the_image_id_where_nobody_takes_it_for_a_digest(
    store: ImageStore, fetch: Callable[..., str]
) -> None:
    image = fetch(layout().tar())
    with (
        oci_archive(store, image) as stream,
        tarfile.open(fileobj=io.BytesIO(stream.read())) as tar_,
    ):
        files = {one.name: tar_.extractfile(one).read() for one in tar_}  # type: ignore[union-attr]
        assert {(one.mtime, one.uid, one.mode) for one in tar_.getmembers()} == {(0, 0, 0o644)}
    index = json.loads(files["index.json"])
    [descriptor] = index["manifests"]
    assert descriptor["annotations"][ID_KEY] == image
    manifest = json.loads(files[blob_name(descriptor["digest"])])
    assert manifest["annotations"][ID_KEY] == image
    for one in (descriptor, manifest["config"], *manifest["layers"]):
        data = files[blob_name(one["digest"])]
        assert (one["digest"], one["size"]) == (f"sha256:{sha256(data)}", len(data))
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
