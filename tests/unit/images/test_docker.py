"""Docker's archives, in and out (``images/docker.py``, ``exporting.py``)."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guactors.errors import ImageRefused, UsageError
from guactors.images.exporting import ID_KEY, docker_archive
from guactors.images.importing import detect_kind, import_image
from guactors.images.store import ImageStore
from tests.unit.images.archives import (
    Layout,
    as_json,
    file,
    folder,
    image_listing,
    link,
    new_store,
    pack,
    padded,
    pax,
    sha256,
    stored_names,
    tar,
)

BASE = tar(file("etc/passwd", b"app:x:7:8:::\n"), file("gone"))
UPPER = tar(file(".wh.gone"), file("new", b"2"))
CONFIG = {"Env": ["A=b"], "Cmd": ["sh"], "WorkingDir": "/w", "User": "app"}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return new_store(tmp_path)


@pytest.fixture
def fetch(tmp_path: Path, store: ImageStore) -> Callable[..., str]:
    def fetch(data: bytes, **options: Any) -> str:
        (tmp_path / "image").write_bytes(data)
        return import_image(
            tmp_path / "image", store, **({"name": "app", "media": "tar"} | options)
        )

    return fetch


def config_of(*layers: bytes) -> bytes:
    ids = [f"sha256:{sha256(one)}" for one in layers]
    return as_json({
        "architecture": "arm64",
        "os": "linux",
        "config": CONFIG,
        "rootfs": {"type": "layers", "diff_ids": ids},
    })  # fmt: skip


def saved(*layers: bytes, tags: list[str] | None = None) -> dict[str, bytes]:
    """The files of ``docker save`` before release 25."""
    config = config_of(*layers)
    files = {f"{sha256(config)}.json": config}
    names = []
    for number, data in enumerate(layers):
        names.append(f"{number:064x}/layer.tar")
        files |= {f"{number:064x}/VERSION": b"1.0", f"{number:064x}/json": b"{}", names[-1]: data}
    entry = {"Config": f"{sha256(config)}.json", "RepoTags": tags, "Layers": names}
    files["manifest.json"] = as_json([entry])
    files["repositories"] = as_json({})
    return files


def of_2015(*layers: bytes) -> dict[str, bytes]:
    """The files of the first releases: each layer names its parent."""
    files: dict[str, bytes] = {}
    parent = ""
    for number, data in enumerate(layers):
        name = f"{number:064x}"
        found: dict[str, Any] = {"id": name, "os": "linux", "architecture": "amd64"}
        if parent:
            found["parent"] = parent
        if number == len(layers) - 1:
            found["config"] = CONFIG
        files |= {f"{name}/json": as_json(found), f"{name}/layer.tar": data}
        parent = name
    files["repositories"] = as_json({"app": {"latest": parent}})
    return files


def both(*layers: bytes) -> dict[str, bytes]:
    """The files of release 25 and later: an OCI layout with a manifest.json."""
    made = Layout()
    made.image(*layers, config=CONFIG, compress="plain")
    files = made.files()
    manifest = json.loads(made.blobs[made.manifests[0]["digest"]])

    def place(one: dict[str, Any]) -> str:
        return "blobs/" + str(one["digest"]).replace(":", "/")

    entry = {
        "Config": place(manifest["config"]),
        "RepoTags": ["app:latest"],
        "Layers": [place(one) for one in manifest["layers"]],
    }
    return files | {"manifest.json": as_json([entry]), "repositories": as_json({})}


@pytest.mark.parametrize(
    ("form", "kind", "arch"),
    [(saved, "docker", "aarch64"), (of_2015, "docker", "x86_64"), (both, "oci", "x86_64")],
)
def test_every_form_of_docker_save(
    form: Callable[..., dict[str, bytes]],
    kind: str,
    arch: str,
    store: ImageStore,
    fetch: Callable[..., str],
    tmp_path: Path,
) -> None:
    image = fetch(pack(form(BASE, UPPER)))
    assert detect_kind(tmp_path / "image") == kind
    assert stored_names(store, image) == {"etc", "etc/passwd", "new"}
    found = store.get(image).manifest
    assert (found.config.user, found.config.entrypoint, found.arch) == ("7:8", ["sh"], arch)
    assert (found.config.workdir, found.config.env) == ("/w", {"A": "b"})


def test_the_new_form_is_also_read_by_its_manifest_json(
    store: ImageStore, fetch: Callable[..., str]
) -> None:
    data = pack(both(BASE, UPPER))
    one, other = fetch(data, kind="docker"), fetch(data, kind="oci")
    assert image_listing(store, one) == image_listing(store, other)


def test_an_image_is_chosen_by_its_tag(store: ImageStore, fetch: Callable[..., str]) -> None:
    users = file("etc/passwd", b"app:x:7:8:::\n")
    one = saved(tar(file("one"), users), tags=["a:1"])
    two = saved(tar(file("two"), users), tags=["b:latest"])
    # The layers of both have the same names: those of the second are moved.
    [second] = json.loads(two["manifest.json"])
    second["Layers"] = ["f" * 64 + "/layer.tar"]
    files = one | {second["Config"]: two[second["Config"]]}
    files |= {second["Layers"][0]: two[f"{0:064x}/layer.tar"]}
    files["manifest.json"] = as_json([*json.loads(one["manifest.json"]), second])
    data = pack(files)
    assert stored_names(store, fetch(data, select="a:1")) >= {"one"}
    assert stored_names(store, fetch(data, select="b")) >= {"two"}
    with pytest.raises(UsageError, match="2 images: choose one by its tag: a:1, b:latest"):
        fetch(data)
    with pytest.raises(UsageError, match="no image 'c', it has: a:1, b:latest"):
        fetch(data, select="c")


def test_a_layer_may_be_a_link_to_one_that_is_there(
    store: ImageStore, fetch: Callable[..., str]
) -> None:
    files = saved(BASE, UPPER, BASE)
    third = f"{2:064x}/layer.tar"
    members = [
        (pax(path=name) if len(name) > 100 else b"") + file(name, data)
        for name, data in files.items()
        if name != third
    ]
    data = tar(*members, link(third, f"../{0:064x}/layer.tar"))
    assert stored_names(store, fetch(data)) == {"etc", "etc/passwd", "new", "gone"}
    for target in ("../../etc/passwd", "/etc/passwd", "layer.tar", "../nothing"):
        with pytest.raises(ImageRefused, match="it is missing"):
            fetch(tar(*members, link(third, target)))


def test_a_changed_layer_or_configuration(fetch: Callable[..., str], store: ImageStore) -> None:
    files = saved(BASE, UPPER)
    layer = f"{1:064x}/layer.tar"
    with pytest.raises(ImageRefused, match="it is damaged or was changed"):
        fetch(pack(files | {layer: tar(file("other"))}))
    [config] = [name for name in files if name.endswith(".json") and len(name) == 69]
    with pytest.raises(ImageRefused, match="does not have the content that its name states"):
        fetch(pack(files | {config: files[config].replace(b"/w", b"/x")}))
    assert store.list() == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"manifest.json": b"{}"}, "manifest.json is damaged"),
        ({"manifest.json": b"[]"}, "has 0 images"),
        ({"manifest.json": b'[{"Config":"c.json","Layers":[]}]'}, "'c.json': it is missing"),
        ({"manifest.json": b'[{"Config":"c","Layers":[]}]', "c": b"{}"}, "an image of 0 layers"),
        ({"manifest.json": b'[{"Config":"c","Layers":["x"]}]', "c": b"{}"}, "1 layers, but 0 dig"),
        (
            {"manifest.json": b'[{"Config":"c","Layers":["../../etc/passwd"]}]',
             "c": config_of(BASE)},
            "it is missing",
        ),
    ],
)  # fmt: skip
def test_damaged_archives(changes: dict[str, bytes], rule: str, fetch: Callable[..., str]) -> None:
    with pytest.raises((ImageRefused, UsageError), match=rule):
        fetch(pack(saved(BASE) | changes), kind="docker")


@pytest.mark.parametrize(
    ("layer", "parent", "rule"),
    [
        (0, f"{0:064x}", "cannot be a layer"),
        (0, f"{1:064x}", "cannot be a layer"),
        (0, "../" * 5, "cannot be a layer"),
        (0, "a" * 64, "it is missing"),
    ],
)
def test_old_layers_whose_parents_are_wrong(
    layer: int, parent: str, rule: str, fetch: Callable[..., str]
) -> None:
    files = of_2015(BASE, UPPER)
    files[f"{layer:064x}/json"] = as_json({"parent": parent})
    with pytest.raises(ImageRefused, match=rule):
        fetch(pack(files))


def test_docker_export_is_a_plain_tar(
    store: ImageStore, fetch: Callable[..., str], tmp_path: Path
) -> None:
    image = fetch(tar(file(".dockerenv"), folder("dev"), file("dev/console"), folder("proc")))
    assert detect_kind(tmp_path / "image") == "tar"
    assert stored_names(store, image) == {".dockerenv", "dev", "dev/console", "proc"}
    assert store.get(image).manifest.config.user == "0:0"


# --- out ------------------------------------------------------------------------------------------


def test_the_archive_for_docker_is_the_same_every_time(
    store: ImageStore, fetch: Callable[..., str]
) -> None:
    image = fetch(pack(saved(BASE, UPPER)))
    with docker_archive(store, image) as archive:
        data, name = archive.stream.read(), archive.id
    with docker_archive(store, image) as archive:
        assert (archive.stream.read(), archive.id) == (data, name)
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        files = {one.name: opened.extractfile(one).read() for one in opened}  # type: ignore[union-attr]
    config = files[f"{name.removeprefix('sha256:')}.json"]
    assert f"sha256:{sha256(config)}" == name
    described = json.loads(config)
    assert described["created"] == "1970-01-01T00:00:00Z"
    assert described["architecture"] == "arm64"
    assert described["rootfs"]["diff_ids"] == [f"sha256:{sha256(files['layer.tar'])}"]
    assert described["config"] == {
        "Entrypoint": ["sh"],
        "Env": ["A=b"],
        "Labels": {ID_KEY: image},
        "User": "7:8",
        "WorkingDir": "/w",
    }
    [entry] = json.loads(files["manifest.json"])
    assert entry == {
        "Config": f"{name.removeprefix('sha256:')}.json",
        "Layers": ["layer.tar"],
        "RepoTags": None,
    }


def test_what_goes_to_docker_comes_back_as_the_same_files(
    store: ImageStore, fetch: Callable[..., str]
) -> None:
    image = fetch(
        tar(folder("a", 0o1777), file("a/b", b"x", uid=5, gid=6, mtime=7), link("l", "a"))
    )
    with docker_archive(store, image) as archive:
        again = fetch(archive.stream.read())
    assert store.get(again).manifest.blobs == store.get(image).manifest.blobs


def test_an_image_that_breaks_the_rules_is_not_handed_on(store: ImageStore, tmp_path: Path) -> None:
    """A blob is what somebody signed, and not for that a tree that may be unpacked."""
    from guactors.images.build import add_rootfs

    blob = store.ingest([tar(link("l", "../x"))], role="rootfs", media="tar")
    image = add_rootfs(store, blob, name="x")
    with pytest.raises(ImageRefused, match="a link out of the root"), docker_archive(store, image):
        pass


def test_padding_of_the_outer_archive_is_right() -> None:
    assert len(padded(b"x" * 513)) == 1024
