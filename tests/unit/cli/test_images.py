"""``gu image`` on this machine: which image is meant, and what each command does to the store."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from guactors.cli import image_choice, images
from guactors.cli.image_choice import HERE, THERE, resolve
from guactors.errors import ImageRefused, UsageError
from guactors.images.store import StoredImage
from guactors.security.key_files import key_path, new_key_file, save_key
from guactors.security.keys import Kind
from guactors.transport.zmq_link import new_keypair

ONE, TWO, NEAR = (f"sha3-256:{start}{'0' * (64 - len(start))}" for start in ("ab12", "cd34", "ab1"))
KNOWN = {ONE: ["tools", "cd34cd34"], TWO: ["other"], NEAR: []}

Run = Callable[..., str]


@pytest.fixture
def run() -> Run:
    """``run("list")``: what the command prints on stdout; errors come out as they are."""

    def run(*words: str) -> str:
        result = CliRunner().invoke(images.app, words, standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "rootfs"
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "tool").write_bytes(b"#!/bin/sh\n")
    return path


def only() -> StoredImage:
    [image] = image_choice.open_store().list()
    return image


# --- which image ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "image"),
    [
        ("tools", ONE),
        ("other", TWO),
        (TWO, TWO),
        (TWO.upper().replace("SHA3", "sha3"), TWO),
        ("ab120000", ONE),
        ("sha3-256:AB120000", ONE),
        ("cd340000", TWO),
        # A name goes first: it was given here, by this user.
        ("cd34cd34", ONE),
        ("sha3-256:" + "ee" * 32, "sha3-256:" + "ee" * 32),
    ],
)
def test_an_image_is_meant_by_id_name_or_beginning(given: str, image: str) -> None:
    assert resolve(given, KNOWN, HERE) == image


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("", "no image"),
        ("nobody", "gu image list shows"),
        ("ab12", "too short"),
        ("ab1", "too short"),
        ("sha3-256:ab12", "too short"),
        ("ab1000000", None),
        ("ab99999999", "no image"),
        ("ef56ef56ef", "no image"),
        ("sha256:" + "0" * 64, "no image"),
        ("sha3-256:" + "0" * 65, "65"),
        ("sha3-256:" + "0" * 63 + "g", "no image id"),
    ],
)
def test_what_means_none_says_why(given: str, word: str | None) -> None:
    if word is None:
        assert resolve(given, KNOWN, HERE) == NEAR
        return
    with pytest.raises(UsageError, match=word):
        resolve(given, KNOWN, HERE)


def test_a_beginning_of_several_names_them() -> None:
    known: dict[str, list[str]] = {f"sha3-256:{'ab' * 5}{number:054x}": [] for number in range(6)}
    with pytest.raises(UsageError, match="6 images") as raised:
        resolve("ab" * 5, known, HERE)
    assert sum(image in str(raised.value) for image in known) == 4


def test_names_of_a_hub_mean_nothing() -> None:
    with pytest.raises(UsageError, match="names mean nothing there"):
        resolve("tools", {ONE: ()}, THERE)


# --- commands ------------------------------------------------------------------------------------


def test_build_says_the_id_and_keeps_what_was_asked_for(run: Run, root: Path) -> None:
    printed = run(
        "build", str(root), "--name", "tools", "--entrypoint", "/bin/tool --at 'a b'",
        "--env", "A=1", "--env", "B=x=y", "--workdir", "/bin", "--python", "3.11", "--media", "tar",
    )  # fmt: skip
    image = only()
    assert printed == f"{image.id}\n"
    config = image.manifest.config
    assert config.entrypoint == ["/bin/tool", "--at", "a b"]
    assert config.env == {"A": "1", "B": "x=y"}
    assert (config.workdir, config.python) == ("/bin", "3.11")
    assert image.names == ["tools"]
    assert image.manifest.blobs[0].media == "tar"
    shown = run("show", "tools")
    assert "/bin/tool --at 'a b'" in shown
    assert "A=1 B=x=y" in shown


def test_build_finds_the_python_and_the_name(run: Run, root: Path) -> None:
    (root / "bin" / "python3.12").write_bytes(b"elf")
    (root / "bin" / "python3").symlink_to("python3.12")
    run("build", str(root), "--media", "tar")
    assert only().names == ["rootfs"]
    assert only().manifest.config.python == "3.12"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--env", "A"], typer.BadParameter),
        (["--entrypoint", "'"], typer.BadParameter),
        (["--workdir", "bin"], ImageRefused),
        (["--python", "2.7"], ImageRefused),
        (["--name", "a b"], ImageRefused),
    ],
)
def test_what_cannot_be_in_a_manifest_makes_no_image(
    run: Run, root: Path, words: list[str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run("build", str(root), "--media", "tar", *words)
    assert image_choice.open_store().list() == []


def test_import_and_remove(run: Run, root: Path, tmp_path: Path) -> None:
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, ".")
    printed = run("import", str(archive), "--name", "imported", "--media", "tar")
    assert printed == f"{only().id}\n"
    assert only().manifest.name == "imported"
    run("remove", "imported")
    assert image_choice.open_store().list() == []
    with pytest.raises(UsageError, match="no image"):
        run("remove", "imported")


def test_a_signature_is_by_a_signer_and_shows(run: Run, root: Path) -> None:
    run("build", str(root), "--name", "tools", "--media", "tar")
    with pytest.raises(UsageError, match="no signer key"):
        run("sign", "tools")
    keys = {}
    for kind, name in ((Kind.SIGNER, "one"), (Kind.SIGNER, "two"), (Kind.APP, "three")):
        keys[name] = new_key_file(kind, name, new_keypair, os.urandom, int(time.time()))
        save_key(key_path(kind, name), keys[name])
    with pytest.raises(UsageError, match="2 keys"):
        run("sign", "tools")
    with pytest.raises(UsageError, match="three"):
        run("sign", "tools", "--key", "three")
    text = keys["one"].public.text
    assert run("sign", "tools", "--key", "one") == f"{text}\n"
    assert only().signers == {text}
    assert run("verify", "tools") == f"{text}\n"
    assert run("verify", "tools", "--signer", "one", "--signer", text) == f"{text}\n"
    with pytest.raises(ImageRefused, match="not signed by"):
        run("verify", "tools", "--signer", "two")


def test_verify_hashes_all_of_it(run: Run, root: Path) -> None:
    run("build", str(root), "--name", "tools", "--media", "tar")
    name = only().manifest.blobs[0].sha3_256
    [path] = [
        path
        for path in Path(os.environ["GU_HOME"], "images", "blobs").rglob("*")
        if path.name == name
    ]
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageRefused, match="damaged"):
        run("verify", "tools")


def test_export_writes_no_half_file_and_over_nothing(
    run: Run, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("build", str(root), "--name", "tools", "--media", "tar")
    target = tmp_path / "out.tar"
    target.write_bytes(b"mine")
    with pytest.raises(UsageError, match="already"):
        run("export", "tools", str(target))
    assert target.read_bytes() == b"mine"
    other = tmp_path / "other.tar"
    with monkeypatch.context() as broken:
        broken.setattr(shutil, "copyfileobj", _fail)
        with pytest.raises(OSError, match="full"):
            run("export", "tools", str(other))
    assert not list(tmp_path.glob("other*"))
    assert run("export", "tools", str(other), "--format", "docker").startswith("sha256:")
    with tarfile.open(other) as tar:
        assert "manifest.json" in tar.getnames()


def _fail(*_args: object) -> None:
    raise OSError("the disk is full")


def test_json_and_tables(run: Run, root: Path) -> None:
    run("build", str(root), "--name", "tools", "--media", "tar")
    image = only().id
    for words in (["list"], ["list", "--json"], ["show", "tools"], ["show", "tools", "--json"]):
        assert image in run(*words)


def test_build_takes_what_containers_are_made_of(run: Run, root: Path, tmp_path: Path) -> None:
    built = run("build", str(root), "--name", "tools", "--media", "tar").strip()
    saved = tmp_path / "saved"
    run("export", built, str(saved), "--format", "docker")
    layout = tmp_path / "layout"
    run("export", built, str(layout), "--format", "oci")
    for source in (saved, layout):
        assert run("build", str(source), "--name", "again", "--media", "tar").startswith(
            "sha3-256:"
        )
    with pytest.raises(UsageError, match="says itself how it runs"):
        run("build", str(saved), "--workdir", "/tmp")


@pytest.mark.parametrize("words", [(), ("there", "--debian", "python3-minimal")])
def test_build_wants_one_source(run: Run, words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="one source"):
        run("build", *words)
