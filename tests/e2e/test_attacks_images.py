"""The attacks of the threat model on images, one test each, over real sockets against a real hub
and provider; where the hub is the attacker, against a real provider under a hub that lies.

Every attack must fail its attacker, leave a line in the audit log, and leave everybody else
working: the fixture ``grid`` runs an honest app's image after each."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from msgspec.structs import replace

import guactors as gu
from guactors import errors, home, image_client
from guactors import messages as m
from guactors.config import Seal
from guactors.grid_client import GridClient
from guactors.images.manifest import CHUNK, IMAGE_TYPE, chunk_hash, image_id, sign_image
from guactors.remote_function import image_program
from guactors.security import canonical
from guactors.security.grants import GRANT_TYPE, Quotas
from guactors.security.keys import Kind, SecretKey
from guactors.security.policy import default_policy
from guactors.security.signing import Detached, sign_detached
from tests import command, leaks
from tests.e2e.keyed_grid import KeyedGrid
from tests.integration.scripted_hub import Hub, Provider, lease
from tests.unit.cli import stand_in_hub as own_cli
from tests.unit.images.archives import END, file, folder, hard, header, link, new_store, pax, tar
from tests.unit.images.making import blob_of, chunks, manifest_bytes, signer
from tests.unit.provider.authority import HUB, OWN, policy_bytes, warrant, wide

pytestmark = [pytest.mark.may_keep(*leaks.KINDS), pytest.mark.needs("posix")]

SIGNER, OTHER_SIGNER = signer(101), signer(102)
IMAGES: dict[str, Any] = {
    "runtimes": ["native"],
    "image_signers": [SIGNER.public.text],
    "actions": ["submit", "upload_images"],
}
"""A grant for images that SIGNER signed."""


class Image(NamedTuple):
    """``data``: its root file system, packed."""

    id: str
    manifest: bytes
    data: bytes

    @property
    def blob(self) -> str:
        """The name of its one blob."""
        return str(json.loads(self.manifest)["blobs"][0]["sha3_256"])

    def signed(self, key: SecretKey = SIGNER) -> bytes:
        return sign_image(key, self.manifest)


def image_of(data: bytes, name: str = "attack", media: Any = "tar") -> Image:
    manifest = manifest_bytes(blob_of(data, "rootfs", media), name=name)
    return Image(image_id(manifest), manifest, data)


def program(says: str, salt: str = "") -> bytes:
    """An archive with the program ``hello``; ``salt`` makes it another."""
    return tar(file("hello", f"#!/bin/sh\necho {says}\n# {salt}\n".encode(), mode=0o755))


def offer(client: GridClient, image: Image, signatures: bytes = b"") -> m.Message:
    return client.ask(m.OfferImage(0, image.manifest, signatures))


def upload(client: GridClient, image: Image, signatures: bytes = b"") -> None:
    """As an honest client does, whatever is in the image."""
    if isinstance(offer(client, image, signatures), m.WantChunks):
        for index, data in enumerate(chunks(image.data)):
            client.ask(m.PutChunk(0, image.id, image.blob, index, data))
        client.ask(m.SealImage(0, image.id))


def run(grid: KeyedGrid, app: Path, image: Image, **options: Any) -> str:
    """What the image's program says."""
    shape = {"runtime": "native", "image": image.id, "max_retries": 0, "num_cpus": 1, **options}
    with grid.session(app):
        stream = image_program(shape).remote(["hello"], {}, "")
        found = [gu.get(ref, timeout=20) for ref in stream]
    return b"".join(data for kind, data in found if kind == "out").decode()


def not_run(grid: KeyedGrid, app: Path, image: Image, **options: Any) -> str:
    """It is refused; why."""
    with pytest.raises(errors.GuactorsError) as caught:
        run(grid, app, image, **options)
    assert isinstance(caught.value, errors.PermissionDenied), repr(caught.value)
    return str(caught.value)


def listed(client: GridClient) -> set[str]:
    return {row.image for row in image_client.list_images(client)}


HONEST = image_of(program("fine"), "honest")


@pytest.fixture(scope="module")
def world(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[KeyedGrid, Path]]:
    root = tmp_path_factory.mktemp("grid")
    before = leaks.take(root, run_root)
    with KeyedGrid(root) as grid:
        grid.add_provider("box")
        app = grid.add_app(**IMAGES)
        with GridClient(grid.address, key=str(app)) as client:
            upload(client, HONEST, HONEST.signed())
        yield grid, app
    found = leaks.settle(before, root, run_root, leaks.KINDS)
    if found:
        pytest.fail("the grid left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture
def honest(world: tuple[KeyedGrid, Path]) -> Path:
    """The app that does no harm."""
    return world[1]


@pytest.fixture
def grid(world: tuple[KeyedGrid, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyedGrid]:
    """The grid to attack; afterwards everybody else still works."""
    grid, app = world
    monkeypatch.setenv("GU_TRANSPORT", "tcp")
    yield grid
    assert run(grid, app, HONEST) == "fine\n"


@pytest.fixture
def app(grid: KeyedGrid) -> Path:
    """The attacker: it may upload, and run what SIGNER signed."""
    return grid.add_app(**IMAGES)


@pytest.fixture
def client(grid: KeyedGrid, app: Path) -> Iterator[GridClient]:
    """The attacker's line to the hub."""
    with GridClient(grid.address, key=str(app)) as line:
        yield line


def who(grid: KeyedGrid, app: Path) -> str:
    return grid.key(app).public.text


def refused_by_box(grid: KeyedGrid, app: Path, image: Image, reason: str = "image") -> None:
    """The provider's report of it is in the hub's log."""
    grid.logged(
        action="submit", reason=reason, who=who(grid, app), object=image.id,
        where=grid.providers["box"],
    )  # fmt: skip


# --- content and hashes ---------------------------------------------------------------------------


def test_a_chunk_that_is_not_what_its_hash_says(
    grid: KeyedGrid, app: Path, client: GridClient
) -> None:
    image = image_of(tar(file("large", os.urandom(CHUNK))) + program("large"), "chunks")
    first, second = chunks(image.data)
    offer(client, image, image.signed())
    for index, wrong in ((0, second), (0, first[:-1]), (0, b""), (1, first), (1, second[::-1])):
        with pytest.raises(errors.ImageRefused):
            client.ask(m.PutChunk(0, image.id, image.blob, index, wrong))
    for index in (2, 2**40):
        with pytest.raises((errors.ImageRefused, errors.UsageError)):
            client.ask(m.PutChunk(0, image.id, image.blob, index, first))
    grid.logged(action="upload", reason="image", who=who(grid, app))
    client.ask(m.PutChunk(0, image.id, image.blob, 0, first))
    with pytest.raises(errors.ImageRefused, match="incomplete"):
        client.ask(m.SealImage(0, image.id))
    assert image.id not in listed(client)
    client.ask(m.PutChunk(0, image.id, image.blob, 1, second))
    client.ask(m.SealImage(0, image.id))
    assert image.id in listed(client)


def test_a_manifest_that_is_not_what_its_hashes_say(
    grid: KeyedGrid, app: Path, client: GridClient
) -> None:
    """Other bytes under the same chunks, another name for the blob, two readings of one text."""
    text = image_of(program("lies"), "manifest").manifest
    size, hash_ = len(program("lies")), chunk_hash(program("lies"))
    wrong = [
        text.replace(f'"size":{size}'.encode(), f'"size":{CHUNK + 1}'.encode()),
        text.replace(b'"sha3_256":"' + hash_.encode(), b'"sha3_256":"' + b"0" * 64),
        text.replace(b'"name":"manifest"', b'"name":"manifest","name":"other"'),
        text.replace(b'"role":"rootfs"', b'"role":"rootfs","path":"../../etc/passwd"'),
        text.replace(b'"format":"guactors.image/1"', b'"format":"guactors.image/2"'),
        text.replace(hash_.encode(), b"../" * 21 + b"."),
        text.replace(b'"workdir":"/"', b'"workdir":"/../.."'),
        text + b" ",
    ]
    for data in wrong:
        assert data != text
        with pytest.raises(errors.ImageRefused):
            client.ask(m.OfferImage(0, data, b""))
        # A chunk of something that was not taken is not taken, either.
        with pytest.raises(errors.UsageError):
            client.ask(m.PutChunk(0, image_id(data), hash_, 0, program("lies")))
    grid.logged(action="upload", reason="image", who=who(grid, app))


# --- signatures -----------------------------------------------------------------------------------


def detached(data: bytes) -> Detached:
    return canonical.decode(sign_image(SIGNER, data), Detached, what="it")


def twice(data: bytes) -> bytes:
    made = detached(data)
    return canonical.encode(replace(made, signatures=made.signatures * 2))


def in_the_name_of(key: SecretKey, data: bytes) -> bytes:
    made = detached(data)
    [signature] = made.signatures
    return canonical.encode(replace(made, signatures=[replace(signature, key=key.public.text)]))


def relabelled(data: bytes) -> bytes:
    made = canonical.decode(sign_detached([SIGNER], GRANT_TYPE, data), Detached, what="it")
    return canonical.encode(replace(made, payload_type=IMAGE_TYPE))


WRONG_SIGNATURES: dict[str, Callable[[bytes], bytes]] = {
    "of another payload type": lambda data: sign_detached([SIGNER], GRANT_TYPE, data),
    "of another type, said to be of this": relabelled,
    "of another manifest": lambda _: sign_image(SIGNER, HONEST.manifest),
    "of an app": lambda data: sign_detached([signer(103, Kind.APP)], IMAGE_TYPE, data),
    "in the name of somebody else": lambda data: in_the_name_of(OTHER_SIGNER, data),
    "that stands twice": twice,
    "that is none": lambda _: b"trust me",
}


@pytest.mark.parametrize("what", WRONG_SIGNATURES)
def test_a_signature(grid: KeyedGrid, app: Path, client: GridClient, what: str) -> None:
    image = image_of(program("unsigned"), "unsigned")
    with pytest.raises(errors.ImageRefused):
        offer(client, image, WRONG_SIGNATURES[what](image.manifest))
    grid.logged(action="upload", reason="image", who=who(grid, app), object=image.id)
    # Without it the image may be kept, and not run.
    upload(client, image)
    not_run(grid, app, image)
    refused_by_box(grid, app, image, "image_signer")


# --- archives -------------------------------------------------------------------------------------


def zip_bomb() -> bytes:
    """200 KB that would be 200 MB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(header("hello", b"0", 200 << 20))
    return bomb + b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()


def million_members() -> bytes:
    """A million times the same directory, under names that differ: nothing to be written, and much
    to be read."""
    chance = random.Random(1)
    heads = [folder("./" + "".join(chance.choices(["/", "./"], k=40)) + "d") for _ in range(1000)]
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    pieces = [packer.compress(b"".join(chance.choices(heads, k=10_000))) for _ in range(100)]
    return b"".join(pieces) + packer.compress(END) + packer.flush()


ARCHIVES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "dotdot": (lambda _: tar(file("../canary/sings", b"dies")), "'..' in a name"),
    "an absolute name": (
        lambda canary: tar(pax(path=f"{canary}/sings") + file("x", b"dies")), "an absolute name",
    ),
    "a link out": (
        lambda _: tar(link("up", "../../canary"), file("up/sings", b"dies")), "out of the root",
    ),
    "a link that becomes one": (
        lambda _: tar(folder("a/b"), link("a/b/up", "../.."), link("out", "a/b/up/../canary"),
                      file("out/sings", b"dies")), "out of the root",
    ),
    "a hard link out": (lambda _: tar(hard("h", "../canary/sings")), "'..' in a name"),
    "a hard link to an absolute name": (
        lambda canary: tar(pax(linkpath=f"{canary}/sings") + hard("h", "x")), "an absolute name",
    ),
    "a disk": (lambda _: tar(header("sda", b"4", mode=0o666)), "a block device"),
    "a terminal": (lambda _: tar(header("tty", b"3", mode=0o666)), "a character device"),
    "a pipe": (lambda _: tar(header("pipe", b"6", mode=0o666)), "a named pipe"),
    "a zip bomb": (lambda _: zip_bomb(), "over 100 to 1"),
    "a million members": (lambda _: million_members(), "more than 200000 members"),
    "a half of itself": (lambda _: program("half")[:540], "cut short"),
}  # fmt: skip
PACKED = {"a zip bomb", "a million members"}


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory that archives try to reach."""
    path = tmp_path / "canary"
    path.mkdir()
    (path / "sings").write_text("sings")
    yield path
    assert [one.name for one in path.iterdir()] == ["sings"]
    assert (path / "sings").read_text() == "sings"
    assert (path / "sings").stat().st_nlink == 1


@pytest.mark.parametrize("what", ARCHIVES)
def test_an_archive_with(
    grid: KeyedGrid, app: Path, client: GridClient, canary: Path, tmp_path: Path, what: str
) -> None:
    """Into one's own store, and, with a signature that counts, at a provider."""
    make, words = ARCHIVES[what]
    data = make(canary)
    (tmp_path / "archive").write_bytes(data)
    said = own_cli.refused("image", "import", str(tmp_path / "archive"), "--kind", "tar")
    assert words in said
    assert json.loads(own_cli.gu("image", "list", "--json").out) == []
    image = image_of(data, "archive", "tar+gzip" if what in PACKED else "tar")
    upload(client, image, image.signed())
    assert words in not_run(grid, app, image)
    refused_by_box(grid, app, image)


def test_a_link_to_an_absolute_name(
    grid: KeyedGrid, app: Path, client: GridClient, canary: Path
) -> None:
    """It stays, and leads to the same place inside the image: nothing there can be run."""
    tempting = canary.parent / "tempting"
    tempting.write_text(f"#!/bin/sh\nrm {canary}/sings\n")
    tempting.chmod(0o755)
    image = image_of(tar(pax(linkpath=str(tempting)) + link("hello", "x")), "absolute")
    upload(client, image, image.signed())
    with pytest.raises(errors.GuactorsError, match="leads to nothing"):
        run(grid, app, image)


# --- swapped between check and use ----------------------------------------------------------------

Swap = Callable[[Path, bytes], None]


def by_a_file(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    other.chmod(0o444)
    other.replace(path)


def by_a_link(path: Path, data: bytes) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(data)
    path.unlink()
    path.symlink_to(elsewhere)


def in_place(path: Path, data: bytes) -> None:
    """Times and mode as before, as far as they can be set."""
    before = path.stat()
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


SWAPS: dict[str, Swap] = {"file": by_a_file, "link": by_a_link, "in place": in_place}


def blob_path(store: Path, image: Image) -> Path:
    return store / "blobs" / "sha3-256" / image.blob[:2] / image.blob


def good_and_evil() -> tuple[Image, bytes]:
    """An image with a blob of its own, and what is put in its place."""
    salt = secrets.token_hex(8)
    return image_of(program("good", salt), "good"), program("evil", salt)


@pytest.mark.parametrize("how", SWAPS)
def test_a_blob_swapped_in_the_hubs_store(
    grid: KeyedGrid, app: Path, client: GridClient, tmp_path: Path, how: str
) -> None:
    """Nobody gets the other bytes; who has the right ones can mend it."""
    image, evil = good_and_evil()
    upload(client, image, image.signed())
    SWAPS[how](blob_path(grid.home / "hub" / "images", image), evil)
    store = new_store(tmp_path)
    with pytest.raises(errors.ImageRefused):
        image_client.pull(client, store, image.id)
    assert store.list() == []
    upload(client, image, image.signed())
    image_client.pull(client, store, image.id)
    with store.open_blob(image.id, "rootfs", paranoid=True) as blob:
        assert blob.read() == image.data
    assert run(grid, app, image) == "good\n"


@pytest.mark.parametrize("how", SWAPS)
def test_a_blob_swapped_in_the_providers_store(
    grid: KeyedGrid, app: Path, client: GridClient, how: str
) -> None:
    image, evil = good_and_evil()
    upload(client, image, image.signed())
    assert run(grid, app, image) == "good\n"
    SWAPS[how](blob_path(grid.root / "box" / "provider" / "images", image), evil)
    assert "quarantine" in not_run(grid, app, image)
    refused_by_box(grid, app, image)
    # It is fetched anew.
    assert run(grid, app, image) == "good\n"


# --- beyond the grant, by every route -------------------------------------------------------------

OUTSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "another image": ({"image_hashes": ["sha3-256:" + "6" * 64], "image_signers": []}, "image"),
    "another signer": ({"image_signers": [OTHER_SIGNER.public.text]}, "image_signer"),
    "only one of two": (
        {"image_hashes": ["sha3-256:" + "6" * 64], "image_mode": "all"}, "image",
    ),
    "no images": ({"image_signers": []}, "image"),
}  # fmt: skip


@pytest.mark.parametrize("what", OUTSIDE)
def test_outside_the_grant(grid: KeyedGrid, what: str) -> None:
    grant, reason = OUTSIDE[what]
    app = grid.add_app(**{**IMAGES, **grant})
    assert HONEST.id in not_run(grid, app, HONEST)
    grid.logged(action="submit", reason=reason, who=who(grid, app), object=HONEST.id)
    shape = m.Shape({"CPU": 1.0}, runtime="native", image=HONEST.id)
    with grid.raw(app) as peer:
        peer.enter(session=f"s-{secrets.token_hex(8)}")
        peer.say(m.SetDemand("d", shape, 1))
        told = peer.wait(m.DemandInfeasible)
        assert (told.kind, HONEST.id in told.reason) == ("PermissionDenied", True)
    assert not grid.owner.grid().leases


def test_outside_the_grant_by_the_command_line(grid: KeyedGrid) -> None:
    app = grid.add_app(**{**IMAGES, "image_signers": [OTHER_SIGNER.public.text]})
    line = command.refused("run", "--runtime", "native", "--image", HONEST.id, "--address",
                           grid.address, "--key", str(app), "--", "hello")  # fmt: skip
    assert "signed by" in line


def test_outside_the_machines_policy(grid: KeyedGrid) -> None:
    """What the grant allows and the machine's owner does not."""
    policy = replace(
        default_policy([grid.owner_key.public.text]),
        image_hashes=[], image_signers=[OTHER_SIGNER.public.text],
    )  # fmt: skip
    strict = grid.add_provider("strict", policy=msgspec.to_builtins(policy))
    app = grid.add_app(**IMAGES)
    not_run(grid, app, HONEST, provider="strict")
    grid.logged(action="submit", reason="local_policy", who=who(grid, app), where=strict)
    assert run(grid, app, HONEST, provider="box") == "fine\n"


def test_uploads_without_a_right(grid: KeyedGrid) -> None:
    image = image_of(program("large") + bytes(5000), "large")
    for grant, reason in (
        ({"actions": ["submit"]}, "action"),
        ({"quotas": Quotas("*", "*", "*", 5000, "*")}, "quota"),
    ):
        app = grid.add_app(**{**IMAGES, **grant})
        with GridClient(grid.address, key=str(app)) as client:
            for ask in (
                lambda line=client: upload(line, image, image.signed()),
                lambda line=client: line.ask(m.PutChunk(0, image.id, image.blob, 0, image.data)),
                lambda line=client: line.ask(m.SealImage(0, image.id)),
            ):
                with pytest.raises((errors.PermissionDenied, errors.UsageError)):
                    ask()
            assert image.id not in listed(client)
        grid.logged(action="upload", reason=reason, who=who(grid, app), object=image.id)


def test_a_grant_revoked_in_the_middle_of_an_upload(grid: KeyedGrid) -> None:
    app = grid.add_app()
    serial = grid.grant(app, **IMAGES)
    image = image_of(tar(file("large", os.urandom(CHUNK))), "revoked")
    with GridClient(grid.address, key=str(app)) as client:
        offer(client, image, image.signed())
        first, second = chunks(image.data)
        client.ask(m.PutChunk(0, image.id, image.blob, 0, first))
        grid.done(m.RevokeGrant(0, grid.owner_key.public.text, serial))
        with pytest.raises(errors.PermissionDenied):
            client.ask(m.PutChunk(0, image.id, image.blob, 1, second))
        with pytest.raises(errors.GuactorsError):
            client.ask(m.SealImage(0, image.id))
    grid.logged(action="upload", reason="no_grant", who=who(grid, app))


# --- others' images -------------------------------------------------------------------------------


def told(client: GridClient, question: m.Message, image: Image) -> str:
    """The refusal, without the image's id."""
    with pytest.raises(errors.ImageRefused) as caught:
        client.ask(question)
    return str(caught.value).replace(image.id, "ID")


def test_anothers_image(grid: KeyedGrid, app: Path, client: GridClient) -> None:
    """Not listed, not fetched, not removed, and not told from one that is not there."""
    image, nothing = image_of(program("mine"), "mine"), image_of(program("none"), "none")
    upload(client, image, image.signed())
    thief = grid.add_app(**{**IMAGES, "image_signers": [OTHER_SIGNER.public.text]})
    with GridClient(grid.address, key=str(thief)) as line:
        assert image.id not in listed(line)
        for question in (
            lambda one: m.AskImage(0, one.id),
            lambda one: m.AskChunk(0, one.id, one.blob, 0),
            lambda one: m.RemoveImage(0, one.id),
        ):
            assert told(line, question(image), image) == told(line, question(nothing), nothing)
        # Who has the manifest must still show that he has the content.
        wanted = offer(line, image)
        assert isinstance(wanted, m.WantChunks)
        assert [part.chunks for part in wanted.missing] == [[0]]
    for action in ("download", "remove"):
        grid.logged(action=action, who=who(grid, thief), object=image.id)
    assert image.id in listed(client)
    assert run(grid, app, image) == "mine\n"


def test_anothers_upload(grid: KeyedGrid, app: Path, client: GridClient) -> None:
    """Nobody puts chunks into it, ends it, or hangs his signature on it."""
    image = image_of(program("half way"), "half-way")
    offer(client, image)
    thief = grid.add_app(**IMAGES)
    with GridClient(grid.address, key=str(thief)) as line:
        for question in (
            m.PutChunk(0, image.id, image.blob, 0, image.data), m.SealImage(0, image.id),
        ):  # fmt: skip
            with pytest.raises(errors.UsageError, match="offer"):
                line.ask(question)
        upload(client, image)
        # He may run what SIGNER signed, and this is not: it is not there for him.
        assert image.id not in listed(line)
        assert isinstance(offer(line, image, image.signed(OTHER_SIGNER)), m.WantChunks)
    [row] = [row for row in image_client.list_images(client) if row.image == image.id]
    assert row.signers == []


def test_an_image_that_one_may_use_is_not_ones_own(
    grid: KeyedGrid, app: Path, client: GridClient
) -> None:
    assert HONEST.id in listed(client)
    with pytest.raises(errors.PermissionDenied, match="uploaded"):
        client.ask(m.RemoveImage(0, HONEST.id))
    grid.logged(action="remove", reason="action", who=who(grid, app), object=HONEST.id)


# --- a hub that was taken over --------------------------------------------------------------------


@pytest.fixture
def lair(permanent_threads: None) -> Iterator[Path]:
    path = home.new_run_dir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def liar(lair: Path) -> Iterator[Hub]:
    """Has the key of the real hub, and says what the test says."""
    hub = Hub(lair, key=HUB)
    yield hub
    hub.close()


@pytest.fixture
def provider(lair: Path, liar: Hub) -> Iterator[Provider]:
    seal = Seal(OWN.public.text, OWN.text)
    made = Provider(lair, liar, seal=seal, hub_key=HUB.text, policy=policy_bytes())
    yield made
    made.close()


class Lie(NamedTuple):
    """What the hub sends for HONEST, and the reason that the provider reports."""

    manifest: bytes
    signatures: bytes
    data: bytes
    reason: str
    whole: bool = False
    """The provider has all of it, and will not ask for it again."""


LIES = {
    "without its signature": Lie(HONEST.manifest, b"", HONEST.data, "image_signer", True),
    "signed by somebody else": Lie(
        HONEST.manifest, HONEST.signed(OTHER_SIGNER), HONEST.data, "image_signer", True
    ),
    "signed as another": Lie(
        HONEST.manifest, sign_image(SIGNER, image_of(program("other")).manifest), b"", "image"
    ),
    "with another manifest": Lie(
        image_of(program("evil")).manifest, image_of(program("evil")).signed(), b"", "image"
    ),
    "with other bytes": Lie(
        HONEST.manifest, HONEST.signed(), HONEST.data.replace(b"fine", b"evil"), "image"
    ),
}


def serve(hub: Hub, lie: Lie) -> None:
    """Answer what the provider asks about HONEST."""
    asked = hub.expect(m.AskImage)
    assert asked.image == HONEST.id
    hub.send(m.ImageIs(asked.request, lie.manifest, lie.signatures))
    if lie.data:
        hub.send(m.ChunkIs(hub.expect(m.AskChunk).request, lie.data))


@pytest.mark.parametrize("what", LIES)
def test_a_hub_that_hands_out_an_image(
    lair: Path, liar: Hub, provider: Provider, what: str
) -> None:
    assert provider.report()["event"] == "ready"
    grant = wide(now=time.time() - 60, image_hashes=[], image_signers=[SIGNER.public.text])
    liar.send(warrant(grant, at=time.time()))
    liar.send(lease("l-1", image=HONEST.id))
    serve(liar, LIES[what])
    assert liar.expect(m.LeaseEnded).death.cause == "refused"
    report = liar.expect(m.Report)
    assert (report.reason, report.object) == (LIES[what].reason, HONEST.id)
    assert not list(lair.glob("roots/*"))
    # Honest again, it is served again.
    liar.send(lease("l-2", image=HONEST.id))
    data = b"" if LIES[what].whole else HONEST.data
    serve(liar, Lie(HONEST.manifest, HONEST.signed(), data, ""))
    worker = liar.expect(m.LeaseStarted).worker
    assert b"echo fine" in (lair / "roots" / worker / "hello").read_bytes()
