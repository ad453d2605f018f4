"""Images over a real hub: push, pull, what is refused, and what survives a kill."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guactors import image_client, join
from guactors import messages as m
from guactors.config import HubConfig, Identity, Seal
from guactors.errors import ImageRefused, PermissionDenied, UsageError
from guactors.grid_client import GridClient
from guactors.grid_file import write_grid_file
from guactors.images.manifest import CHUNK, chunk_hash, encode_manifest, image_id, sign_image
from guactors.images.store import ImageStore
from guactors.security.grants import Quotas, build_grant, sign_grant
from guactors.security.key_files import KeyFile, new_key_file, save_key
from guactors.security.keys import Kind
from guactors.transport.zmq_link import new_keypair
from tests.command import gu, refused
from tests.integration.hub_peer import ROOT, TIMING, HubProcess
from tests.unit.images.making import content, manifest_of, signer

SIZE = 5 * CHUNK + 1000


@pytest.fixture
def run_dir(run_root: Path, tmp_path: Path) -> Path:
    path = run_root / f"img-{tmp_path.name[-12:]}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


Start = Callable[..., HubProcess]
OWNER, HUB = (
    new_key_file(kind, "x", new_keypair, os.urandom, 0) for kind in (Kind.OWNER, Kind.HUB)
)


@pytest.fixture
def start(run_dir: Path, tmp_path: Path, permanent_threads: None) -> Iterator[Start]:
    """``start()``: a hub, which is the grid of this machine; ``data=""``: one that keeps nothing;
    ``approved``: keys that may come over TCP."""
    started: list[HubProcess] = []

    def start(data: str | None = None, approved: list[str] | None = None) -> HubProcess:
        listen = [f"ipc://{run_dir}/hub"]
        if approved:
            # A given port is one for both lanes, as join addresses need it.
            with socket.create_server(("127.0.0.1", 0)) as taken:
                listen.append(f"tcp://127.0.0.1:{taken.getsockname()[1]}")
        identity = Identity("", "", HUB.transport_public, HUB.transport_secret)
        config = HubConfig(
            "h-1", listen, str(run_dir), identity, TIMING,
            seal=Seal(HUB.public.text, HUB.secret.text), owners=[OWNER.public.text],
            data=str(tmp_path / "hub") if data is None else data, approved=approved or [],
        )  # fmt: skip
        hub = HubProcess(config)
        started.append(hub)
        assert hub.report["event"] == "ready", hub.report
        write_grid_file(
            address_of(hub), hub.endpoints[:1], hub.process.pid, str(run_dir / "none"), {}
        )
        return hub

    yield start
    for one in started:
        one.close()


def address_of(hub: HubProcess) -> str:
    port = int(hub.endpoints[-1].control.rpartition(":")[2]) if len(hub.endpoints) > 1 else 1
    keys = HUB.transport_public, HUB.public.text, OWNER.public.text
    return join.format_join(join.JoinAddress("127.0.0.1", port, *keys))


def new_store(path: Path) -> ImageStore:
    return ImageStore(path, quota=1 << 30, now=time.time)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return new_store(tmp_path / "mine")


def add(store: ImageStore, size: int = SIZE, seed: str = "") -> str:
    blob = store.ingest([content(size, seed)], role="rootfs", media="raw")
    return store.add_image(encode_manifest(manifest_of(blob)))


# --- there and back ------------------------------------------------------------------------------


def test_push_list_pull_remove(start: Start, store: ImageStore, tmp_path: Path) -> None:
    hub = start()
    image = add(store)
    data = store.get(image).manifest_bytes
    store.add_signature(image, sign_image(signer(1), data))
    seen: list[tuple[int, int]] = []
    other = new_store(tmp_path / "other")
    with GridClient() as client:
        assert image in image_client.push(client, store, image, lambda *x: seen.append(x))
        assert (seen[0], seen[-1]) == ((0, SIZE), (SIZE, SIZE))
        [row] = image_client.list_images(client)
        assert (row.image, row.size) == (image, SIZE)
        assert row.signers == [signer(1).public.text]
        assert "already" in image_client.push(client, store, image)
        image_client.pull(client, other, image)
        assert other.get(image).signers == {signer(1).public.text}
        with other.open_blob(image, "rootfs", paranoid=True) as file:
            assert file.read() == content(SIZE)
        image_client.remove(client, image)
        assert image_client.list_images(client) == []
        with pytest.raises(ImageRefused):
            image_client.pull(client, new_store(tmp_path / "third"), image)
    hub.process.terminate()
    assert hub.ended() == (0, "")


def test_a_hub_without_data_keeps_no_images(start: Start, store: ImageStore) -> None:
    start("")
    image = add(store, 10)
    with GridClient() as client, pytest.raises(ImageRefused, match="--data"):
        image_client.push(client, store, image)


def test_the_hub_answers_others_while_it_hashes(start: Start, store: ImageStore) -> None:
    """Forty megabytes are hashed and written; a question to the hub does not wait for that."""
    start()
    image = add(store, 10 * CHUNK)
    blob = store.get(image).manifest.blobs[0]
    with GridClient() as one, GridClient() as other:
        one.ask(m.OfferImage(0, store.get(image).manifest_bytes))
        chunks = content(10 * CHUNK)
        puts = [
            m.PutChunk(0, image, blob.sha3_256, index, chunks[index * CHUNK : (index + 1) * CHUNK])
            for index in range(10)
        ]
        longest = 0.0
        for _ in one.ask_many(puts, window=10, timeout=20):
            before = time.monotonic()
            other.grid()
            longest = max(longest, time.monotonic() - before)
        assert longest < 1.0


def test_the_commands(start: Start, tmp_path: Path, gu_home: Path) -> None:
    start()
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "tool").write_bytes(b"tool")
    gu("key", "new", "signer")
    image = gu("image", "build", str(root), "--name", "tools", "--media", "tar").stdout.strip()
    signer_key = gu("image", "sign", "tools").stdout.strip()
    pushed = gu("image", "push", "tools")
    assert pushed.stdout.strip() == image
    assert image in pushed.stderr
    [row] = json.loads(gu("image", "list", "--hub", "--json").stdout)
    assert (row["image"], row["signers"]) == (image, [signer_key])
    digits = image.removeprefix("sha3-256:")[:12]
    assert json.loads(gu("image", "show", digits, "--hub", "--json").stdout)["image"] == image
    assert "names mean nothing" in refused("image", "show", "tools", "--hub")
    gu("image", "remove", "tools")
    assert json.loads(gu("image", "list", "--json").stdout) == []
    assert gu("image", "pull", digits, "--name", "back").stdout.strip() == image
    assert gu("image", "verify", "back", "--signer", "main").stdout.strip() == signer_key
    gu("image", "remove", digits, "--hub")
    assert "no such image" in refused("image", "pull", image)
    out = tmp_path / "out.tar"
    gu("image", "export", "back", str(out))
    assert "already" in refused("image", "export", image, str(out))
    gu("image", "import", str(out), "--name", "again", "--media", "tar")
    blobs = [one.sha3_256 for one in new_store(gu_home / "images").get(image).manifest.blobs]
    again = json.loads(gu("image", "show", "again", "--json").stdout)
    assert [blob["sha3_256"] for blob in again["manifest"]["blobs"]] == blobs


# --- what is broken ------------------------------------------------------------------------------

PUSH = """
import os, sys, time
from pathlib import Path
from guactors import image_client
from guactors.grid_client import GridClient
from guactors.images.store import ImageStore

def progress(done, total):
    if done >= 3 * 4 * 2**20:
        print(done, flush=True)
        time.sleep(60)

store = ImageStore(Path(sys.argv[1]), quota=1 << 30, now=time.time)
with GridClient() as client:
    image_client.push(client, store, sys.argv[2], progress)
"""


@pytest.mark.parametrize("hub_too", [False, True], ids=["client", "client and hub"])
def test_an_upload_goes_on_after_a_kill(
    start: Start, store: ImageStore, tmp_path: Path, hub_too: bool
) -> None:
    hub = start()
    image = add(store)
    arguments = [sys.executable, "-c", PUSH, str(tmp_path / "mine"), image]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        sent = int(process.stdout.readline())
        process.kill()
    assert sent >= 3 * CHUNK
    if hub_too:
        hub.process.kill()
        hub.close()
        start()
    seen: list[int] = []
    with GridClient() as client:
        assert image_client.list_images(client) == []
        image_client.push(client, store, image, lambda done, _: seen.append(done))
        assert seen[0] >= sent
        assert [row.image for row in image_client.list_images(client)] == [image]


def test_a_broken_connection_is_dialled_again(
    start: Start, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_client, "PAUSE", 0.01)
    hub = start()
    image = add(store)
    seen: list[int] = []
    hubs = [hub]

    def progress(done: int, _total: int) -> None:
        seen.append(done)
        if len(hubs) == 1 and done >= 2 * CHUNK:
            hub.process.kill()
            hub.close()
            hubs.append(start())

    image_client.push_patiently(GridClient, store, image, progress)
    assert len(hubs) == 2
    assert seen.count(0) == 1
    with GridClient() as client:
        assert [row.image for row in image_client.list_images(client)] == [image]


def test_a_pull_goes_on_where_it_stopped(start: Start, store: ImageStore, tmp_path: Path) -> None:
    start()
    image = add(store)
    image_client.push_patiently(GridClient, store, image)
    other = new_store(tmp_path / "other")

    class Interrupted(Exception):
        pass

    def interrupt(done: int, _total: int) -> None:
        if done >= 2 * CHUNK:
            raise Interrupted

    with pytest.raises(Interrupted):
        image_client.pull_patiently(GridClient, other, image, interrupt)
    assert not other.has(image)
    seen: list[int] = []
    image_client.pull_patiently(GridClient, other, image, lambda done, _: seen.append(done))
    assert seen[0] >= 2 * CHUNK
    with other.open_blob(image, "rootfs", paranoid=True) as file:
        assert chunk_hash(file.read()) == chunk_hash(content(SIZE))


def test_nobody_waits_for_a_hub_that_was_never_there(start: Start, store: ImageStore) -> None:
    hub = start()
    image = add(store, 10)
    hub.close()
    before = time.monotonic()
    with pytest.raises(Exception, match="ended"):
        image_client.push_patiently(GridClient, store, image)
    assert time.monotonic() - before < 1.0


# --- what is refused -----------------------------------------------------------------------------


def test_wrong_chunks_and_wrong_words_are_refused_and_cost_nothing(
    start: Start, store: ImageStore
) -> None:
    start()
    image = add(store, 2 * CHUNK)
    stored = store.get(image)
    name = stored.manifest.blobs[0].sha3_256
    data = content(2 * CHUNK)
    with GridClient() as client:
        with pytest.raises(ImageRefused, match="manifest"):
            client.ask(m.OfferImage(0, stored.manifest_bytes + b" "))
        with pytest.raises(ImageRefused, match="signature"):
            client.ask(m.OfferImage(0, stored.manifest_bytes, b"{}"))
        with pytest.raises(UsageError, match="offer"):
            client.ask(m.PutChunk(0, image, name, 0, data[:CHUNK]))
        client.ask(m.OfferImage(0, stored.manifest_bytes))
        for wrong in (data[:CHUNK][::-1], data[: CHUNK - 1], b"", data):
            with pytest.raises(ImageRefused):
                client.ask(m.PutChunk(0, image, name, 1, wrong))
        with pytest.raises(ImageRefused, match="incomplete"):
            client.ask(m.SealImage(0, image))
        assert "is stored" in image_client.push(client, store, image)


def test_a_manifest_of_another_image_is_not_kept(
    start: Start, store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    image, other = add(store, 10), add(store, 11)
    target = new_store(tmp_path / "other")
    with GridClient() as client:
        image_client.push(client, store, image)
        lie = m.ImageIs(0, store.get(image).manifest_bytes)
        monkeypatch.setattr(client, "ask", lambda *_args, **_more: lie)
        with pytest.raises(ImageRefused, match="sent the manifest of"):
            image_client.pull(client, target, other)
    assert target.list() == []


# --- with keys -----------------------------------------------------------------------------------


@pytest.fixture
def apps(tmp_path: Path) -> list[KeyFile]:
    """Two apps with key files ``app-1.key`` and ``app-2.key``."""
    made = []
    for number in (1, 2):
        key = new_key_file(Kind.APP, f"app-{number}", new_keypair, os.urandom, 0)
        save_key(tmp_path / f"app-{number}.key", key)
        made.append(key)
    return made


def permit(app: KeyFile, serial: int, **fields: object) -> m.PutGrant:
    grant = build_grant(
        hub=HUB.public.text, app=app.public.text, issuer=OWNER.public.text, serial=serial,
        now=time.time(), actions=["upload_images"], **fields,
    )  # fmt: skip
    return m.PutGrant(0, sign_grant(grant, OWNER.secret))


def test_two_apps_upload_one_image_and_each_sees_its_own(
    start: Start, store: ImageStore, apps: list[KeyFile], tmp_path: Path
) -> None:
    hub = start(approved=[app.public.text for app in apps])
    image, large = add(store), add(store, CHUNK, "large")
    address = address_of(hub)
    keys = [str(tmp_path / f"app-{number}.key") for number in (1, 2)]
    with GridClient(address, key=keys[0]) as one, GridClient(address, key=keys[1]) as two:
        with pytest.raises(PermissionDenied, match="grant"):
            image_client.push(one, store, image)
        with GridClient() as local:
            for number, app in enumerate(apps):
                local.ask(permit(app, number + 1, quotas=Quotas(storage=SIZE + 100_000)))
        seen: list[int] = []
        image_client.push(one, store, image)
        assert image_client.list_images(two) == []
        with pytest.raises(ImageRefused, match="no such image"):
            image_client.pull(two, store, image)
        with pytest.raises(ImageRefused, match="no such image"):
            image_client.remove(two, image)
        # It shows that it has the content, and does not learn that the hub has it, too.
        image_client.push(two, store, image, lambda done, _: seen.append(done))
        assert seen[0] == 0
        with pytest.raises(PermissionDenied, match="bytes of images"):
            image_client.push(two, store, large)
        assert "others" in image_client.remove(one, image)
        assert image_client.list_images(one) == []
        assert [row.image for row in image_client.list_images(two)] == [image]
    assert image == image_id(store.get(image).manifest_bytes)
