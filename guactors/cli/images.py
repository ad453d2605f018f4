"""``gu image``: images made, imported, signed and looked at here, sent to a hub and fetched.

Owns: the commands. Must never: load what packs and unpacks images for commands that do not.
"""

from __future__ import annotations

import enum
import shlex
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec
import typer

from guactors import image_client
from guactors.cli import authority, image_choice
from guactors.cli.authority import Key, Passphrase, date, open_hub
from guactors.cli.console import note, plain, print_json, size, waiting
from guactors.cli.options import Address, AsJson, parse_pairs
from guactors.errors import ImageRefused, UsageError
from guactors.images.manifest import (
    Config,
    Manifest,
    parse_manifest,
    sign_image,
    signers_of,
)
from guactors.security.key_files import load_key
from guactors.security.keys import Kind

app = typer.Typer(no_args_is_help=True, help="Images: build, import, sign, push, pull, show.")


class Media(enum.StrEnum):
    """How the root file system is packed."""

    AUTO = "auto"
    SQUASHFS = "squashfs"
    TAR = "tar"
    TAR_GZIP = "tar+gzip"


class ImageKind(enum.StrEnum):
    """What is imported."""

    AUTO = "auto"
    DIRECTORY = "directory"
    TAR = "tar"
    OCI = "oci"
    DOCKER = "docker"
    SQUASHFS = "squashfs"
    GVMI = "gvmi"


class Archive(enum.StrEnum):
    """What is exported."""

    OCI = "oci"
    DOCKER = "docker"


Image = Annotated[
    str, typer.Argument(metavar="IMAGE", help="An id, its first 8 or more digits, or a local name.")
]
Name = Annotated[
    str, typer.Option("--name", help="What it is called.", show_default="the file's own name")
]
AsMedia = Annotated[Media, typer.Option("--media", help="How its files are packed.")]
Arch = Annotated[
    str, typer.Option("--arch", help="For which processors.", show_default="this machine's")
]
AtHub = Annotated[bool, typer.Option("--hub", help="At the hub, not on this machine.")]


# --- here ----------------------------------------------------------------------------------------


@app.command()
def build(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="The root file system; or an OCI layout, or an archive of docker save.",
        ),
    ] = None,
    debian: Annotated[
        str,
        typer.Option(
            metavar="PACKAGE,...",
            help="Of these Debian packages and what they need, from apt's sources.",
        ),
    ] = "",
    name: Name = "",
    entrypoint: Annotated[
        str, typer.Option(metavar="COMMAND", help="What runs, quoted as in a shell.")
    ] = "",
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    workdir: Annotated[str, typer.Option(help="Where it runs.")] = "/",
    python: Annotated[
        str | None, typer.Option(metavar="3.MINOR", show_default="the one that is found in there")
    ] = None,
    media: AsMedia = Media.AUTO,
    arch: Arch = "",
) -> None:
    """Make an image of a directory, of a container's image or of Debian packages. The same source
    gives the same id."""
    if (source is None) is not bool(debian):
        raise UsageError("name one source: a path, or packages with --debian")
    try:
        words = shlex.split(entrypoint)
    except ValueError as error:
        raise typer.BadParameter(f"--entrypoint {entrypoint!r}: {error}") from None
    config = Config(words, parse_pairs(env or [], "--env"), workdir, python=python or "")
    if source is None:
        _build_debian(debian, name, config, media, arch)
        return
    from guactors.images.importing import detect_kind

    if source.exists() and detect_kind(source) != "directory":
        if config != Config():
            raise UsageError(
                f"{source} says itself how it runs: --entrypoint, --env, --workdir and --python "
                "are for directories and packages"
            )
        import_(source, name=name, media=media, arch=arch)
        return
    _build_directory(source, name, config, python, media, arch)


def _build_directory(
    directory: Path, name: str, config: Config, python: str | None, media: Media, arch: str
) -> None:
    from guactors.images.build import build_image, python_of
    from guactors.images.directory import scan_directory

    with waiting(f"making an image of {directory}"):
        if python is None:
            found = python_of(scan_directory(directory))
            config = msgspec.structs.replace(config, python=found)
        called = name or directory.resolve().name
        store = image_choice.open_store()
        image = build_image(
            directory, store, name=called, config=config, media=media.value, arch=arch
        )
        store.set_name(called, image)
    typer.echo(image)


def _build_debian(debian: str, name: str, config: Config, media: Media, arch: str) -> None:
    from guactors.images.debian import build_debian

    packages = [one.strip() for one in debian.split(",") if one.strip()]
    called = name or (packages[0].partition("=")[0] if packages else "")
    store = image_choice.open_store()
    with waiting(f"making an image of {debian}"):
        image = build_debian(
            packages, store, name=called, config=config, media=media.value, arch=arch
        )
        store.set_name(called, image)
    typer.echo(image)


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(help="A directory, an archive, a squashfs, a .gvmi.")],
    kind: Annotated[ImageKind, typer.Option(help="What it is.")] = ImageKind.AUTO,
    name: Name = "",
    select: Annotated[
        str, typer.Option(metavar="TAG", help="Which one, of an archive with several.")
    ] = "",
    media: AsMedia = Media.AUTO,
    arch: Arch = "",
) -> None:
    """Make an image of another system's: Docker, OCI, Golem, or plain files."""
    from guactors.images.importing import import_image

    called = name or path.resolve().name
    store = image_choice.open_store()
    with waiting(f"importing {path}"):
        image = import_image(
            path, store, kind=kind.value, name=called, select=select, media=media.value, arch=arch
        )
        store.set_name(called, image)
    typer.echo(image)


@app.command()
def sign(
    image: Image,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="NAME|PATH", help="A signer's.", show_default="the only one there is"
        ),
    ] = None,
) -> None:
    """Sign an image: whoever trusts the signer may run it. Push it again if the hub has it."""
    store = image_choice.open_store()
    found = image_choice.local(store, image)
    path = authority.key_file(key, (Kind.SIGNER,))
    signer = load_key(path, Kind.SIGNER, ask=Passphrase(path))
    store.add_signature(found, sign_image(signer.secret, store.get(found).manifest_bytes))
    typer.echo(signer.public.text)


@app.command()
def verify(
    image: Image,
    signer: Annotated[
        list[str] | None,
        typer.Option("--signer", metavar="KEY", help="Must have signed it. May be repeated."),
    ] = None,
) -> None:
    """Hash all of an image and check its signatures. Prints the signers, one on a line."""
    store = image_choice.open_store()
    found = store.get(image_choice.local(store, image))
    rows = authority.local_keys((Kind.SIGNER,))
    wanted = [authority.pick_key(one, rows, Kind.SIGNER).text for one in signer or ()]
    with waiting("hashing"):
        for blob in found.manifest.blobs:
            store.open_blob(found.id, blob.role, paranoid=True).close()
    for one in wanted:
        if one not in found.signers:
            by = ", ".join(sorted(found.signers)) or "nobody"
            raise ImageRefused(f"{found.id} is not signed by {one}, but by {by}")
    for one in sorted(found.signers):
        typer.echo(one)
    note(f"all {size(found.size)} are what the id says, signed by {len(found.signers)} keys")


@app.command()
def export(
    image: Image,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write.")],
    form: Annotated[
        Archive, typer.Option("--format", help="An OCI layout in a tar, or for docker load.")
    ] = Archive.OCI,
) -> None:
    """Write an image to a file for other systems. The same image gives the same file."""
    from guactors.images.exporting import docker_archive, oci_archive

    store = image_choice.open_store()
    found = image_choice.local(store, image)
    if path.exists():
        raise UsageError(f"{path} is there already: move it away, or give another name")
    with waiting(f"writing {path}"):
        if form is Archive.OCI:
            with oci_archive(store, found) as stream:
                _write(stream, path)
            return
        with docker_archive(store, found) as archive:
            _write(archive.stream, path)
            typer.echo(archive.id)


def _write(stream: BinaryIO, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("xb") as file:
            shutil.copyfileobj(stream, file, 2**20)
        part.rename(path)
    except FileExistsError:
        raise UsageError(f"{part} is there: another export writes it, or was killed") from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise


# --- here or at the hub --------------------------------------------------------------------------


@app.command("list")
def list_(
    hub: AtHub = False, address: Address = None, key: Key = None, as_json: AsJson = False
) -> None:
    """List the images on this machine, or those at the hub that you may use."""
    if hub:
        with open_hub(address, key) as client:
            rows = image_client.list_images(client)
        if as_json:
            print_json(rows)
            return
        _table((row.image, row.name, "", row.size, row.signers, row.last_used) for row in rows)
        return
    images = image_choice.open_store().list()
    if as_json:
        print_json([
            {
                "image": one.id, "name": one.manifest.name, "local_names": one.names,
                "size": one.size, "created": one.manifest.created,
                "signers": sorted(one.signers), "last_used": one.last_used,
            }
            for one in images
        ])  # fmt: skip
        return
    _table(
        (one.id, one.manifest.name, ", ".join(one.names), one.size, one.signers, one.last_used)
        for one in images
    )


def _table(rows: Iterable[tuple[str, str, str, int, Collection[str], float]]) -> None:
    authority.table(
        ("IMAGE", "NAME", "LOCAL NAMES", ">SIZE", ">SIGNERS", "USED"),
        (
            (image, name, names or "-", size(count), len(signers), date(used))
            for image, name, names, count, signers, used in rows
        ),
    )


@app.command()
def show(
    image: Image,
    hub: AtHub = False,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show what is in the manifest of an image, and who signed it."""
    if hub:
        with open_hub(address, key) as client:
            found = image_choice.remote(client, image)
            data, signatures = image_client.fetch_manifest(client, found)
        names: list[str] = []
        manifest, signers = parse_manifest(data), signers_of(data, signatures, time.time())
    else:
        store = image_choice.open_store()
        stored = store.get(image_choice.local(store, image))
        found, names = stored.id, stored.names
        manifest, signers = stored.manifest, stored.signers
    facts = {"image": found, "local_names": names, "signers": sorted(signers)}
    if as_json:
        print_json({**facts, "size": manifest.size, "manifest": manifest})
        return
    authority.table(("FIELD", "VALUE"), _facts({**facts, "size": size(manifest.size)}, manifest))


def _facts(facts: dict[str, object], manifest: Manifest) -> Iterator[tuple[str, object]]:
    fields = plain(manifest)
    assert isinstance(fields, dict)
    fields |= {f"config.{name}": value for name, value in fields.pop("config").items()}
    fields |= {f"source.{name}": value for name, value in fields.pop("source").items()}
    fields["config.entrypoint"] = shlex.join(manifest.config.entrypoint)
    del fields["blobs"]
    for name, value in (facts | fields).items():
        if isinstance(value, list):
            yield name, ", ".join(map(str, value)) or "-"
        elif isinstance(value, dict):
            yield name, " ".join(f"{key}={one}" for key, one in sorted(value.items())) or "-"
        else:
            yield name, "-" if value in {None, ""} else value
    for blob in manifest.blobs:
        yield f"blob {blob.role}", f"{blob.sha3_256} {blob.media}, {size(blob.size)}"


@app.command()
def remove(image: Image, hub: AtHub = False, address: Address = None, key: Key = None) -> None:
    """Remove an image from this machine, or with --hub from the hub."""
    if hub:
        with open_hub(address, key) as client:
            found = image_choice.remote(client, image)
            note(image_client.remove(client, found))
        return
    store = image_choice.open_store()
    found = image_choice.local(store, image)
    store.remove(found)
    note(f"{found} is removed from this machine")


# --- to and from the hub -------------------------------------------------------------------------


@app.command()
def push(image: Image, address: Address = None, key: Key = None) -> None:
    """Upload an image and its signatures to the hub. What was sent before is not sent again."""
    store = image_choice.open_store()
    found = image_choice.local(store, image)
    with image_choice.progress_bar("push") as progress:
        told = image_client.push_patiently(lambda: open_hub(address, key), store, found, progress)
    typer.echo(found)
    note(told)


@app.command()
def pull(
    image: Image,
    name: Annotated[str, typer.Option("--name", help="What to call it on this machine.")] = "",
    address: Address = None,
    key: Key = None,
) -> None:
    """Fetch an image and its signatures from the hub. What came before is not fetched again."""
    store = image_choice.open_store()
    with open_hub(address, key) as client:
        found = image_choice.remote(client, image)
    with image_choice.progress_bar("pull") as progress:
        image_client.pull_patiently(lambda: open_hub(address, key), store, found, progress)
    if name:
        store.set_name(name, found)
    typer.echo(found)
