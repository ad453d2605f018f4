"""A real provider process with a key and a policy, under a hub that may be honest or not."""

from __future__ import annotations

import io
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guactors import home
from guactors.config import Seal
from guactors.images.manifest import (
    Manifest,
    chunk_hash,
    encode_manifest,
    image_id,
    new_blob,
    sign_image,
)
from guactors.messages import (
    AskChunk,
    AskImage,
    ChunkIs,
    Fault,
    ImageIs,
    LeaseEnded,
    LeaseStarted,
    Offer,
    Report,
    StopLease,
    Warrant,
)
from guactors.security.grants import Grant
from guactors.security.keys import Kind
from tests.integration.scripted_hub import Hub, Provider, eventually, lease
from tests.unit.provider.authority import HUB, OWN, policy_bytes, revoked, warrant, wide
from tests.unit.security.samples import public, secret

SIGNER = secret(Kind.SIGNER)
GUARDED: dict[str, Any] = {
    "seal": Seal(OWN.public.text, OWN.text),
    "hub_key": HUB.text,
    "policy": policy_bytes(),
}


def show(*grants: Grant, **options: Any) -> Warrant:
    """A warrant of this moment."""
    return warrant(*grants, **{"at": time.time(), **options})


def grant(**fields: Any) -> Grant:
    """A wide grant that is valid at this moment."""
    return wide(**{"now": time.time() - 60, **fields})


def small_image() -> tuple[bytes, bytes]:
    """A manifest, and the one chunk of its root file system."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        info = tarfile.TarInfo("hello")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    data = held.getvalue()
    blob = new_blob("rootfs", "tar", len(data), [chunk_hash(data)])
    manifest = Manifest(name="small", arch="x86_64", created="2026-01-02T03:04:05Z", blobs=[blob])
    return encode_manifest(manifest), data


@pytest.fixture
def place() -> Iterator[Path]:
    path = home.new_run_dir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def hub(place: Path) -> Iterator[Hub]:
    made = Hub(place, key=HUB)
    yield made
    made.close()


@pytest.fixture
def provider(place: Path, hub: Hub) -> Iterator[Provider]:
    made = Provider(place, hub, **GUARDED)
    yield made
    made.close()


def test_it_shows_its_key_before_it_says_anything_else(hub: Hub, provider: Provider) -> None:
    assert provider.report()["event"] == "ready"
    assert hub.hellos[0].key == OWN.public.text
    assert hub.strays == []
    hub.expect(Offer)


def test_a_session_runs_by_its_own_signature_and_an_owners_grant(
    hub: Hub, provider: Provider
) -> None:
    provider.report()
    hub.send(show(grant()))
    hub.send(lease())
    assert hub.expect(LeaseStarted).lease == "l-1"


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (show(grant(), key=secret(Kind.APP, 2)), "no_grant"),
        (show(), "no_grant"),
        (
            show(grant(issuer=public(Kind.OWNER, 2).text), issuer=secret(Kind.OWNER, 2)),
            "no_grant",
        ),
        (show(grant(), at=time.time() - 40 * 86400), "bad_signature"),
        (
            Warrant(msgspec.structs.replace(show(grant()).warrant, key=public(Kind.APP, 2).text)),
            "bad_signature",
        ),
        (Warrant(msgspec.structs.replace(show(grant()).warrant, key="")), "local_policy"),
    ],
    ids=["another's grant", "no grant", "another owner", "too old", "another's key", "local"],
)
def test_a_taken_over_hub_cannot_make_it_run_anything(
    hub: Hub, provider: Provider, shown: Warrant, reason: str
) -> None:
    provider.report()
    hub.send(shown)
    hub.send(lease())
    ended = hub.expect(LeaseEnded)
    assert ended.death.cause == "refused"
    assert hub.expect(Report).reason == reason


def test_what_is_revoked_is_stopped_within_two_seconds(hub: Hub, provider: Provider) -> None:
    provider.report()
    shown = show(grant())
    hub.send(shown)
    hub.send(lease())
    hub.expect(LeaseStarted)
    hub.send(revoked(shown.warrant.key))
    assert hub.expect(LeaseEnded, within=2.0).death.cause == "revoked"


def test_an_image_comes_from_the_hub_and_its_directory_goes_with_the_worker(
    place: Path, hub: Hub, provider: Provider
) -> None:
    manifest, data = small_image()
    image = image_id(manifest)
    provider.report()
    hub.send(show(grant(image_hashes=[], image_signers=[SIGNER.public.text])))
    hub.send(lease("l-1", image=image))
    asked = hub.expect(AskImage)
    assert asked.image == image
    hub.send(ImageIs(asked.request, manifest, sign_image(SIGNER, manifest)))
    wanted = hub.expect(AskChunk)
    hub.send(ChunkIs(wanted.request, data))
    worker = hub.expect(LeaseStarted).worker
    root = place / "roots" / worker
    assert (root / "hello").read_bytes() == b"hello"
    hub.send(StopLease("l-1", kill=True))
    hub.expect(LeaseEnded)
    eventually(lambda: not root.exists(), 5.0, "the directory is gone")


def test_an_image_with_another_content_than_its_id_never_runs(hub: Hub, provider: Provider) -> None:
    manifest, _ = small_image()
    provider.report()
    hub.send(show(grant()))
    hub.send(lease("l-1", image="sha3-256:" + "0" * 64))
    asked = hub.expect(AskImage)
    hub.send(ImageIs(asked.request, manifest))
    ended = hub.expect(LeaseEnded)
    assert ended.death.cause == "refused"
    assert "not honest" in ended.death.detail
    assert hub.expect(Report).reason == "image"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": b"{}"}, "policy"),
        ({"policy": policy_bytes(tests=[{"expect": "runtime"}])}, "test 1"),
        ({"seal": Seal(OWN.public.text, secret(Kind.PROVIDER, 2).text)}, "secret of"),
    ],
)
def test_a_policy_or_key_that_cannot_be_used_is_told_in_one_line(
    place: Path, hub: Hub, options: dict[str, Any], said: str
) -> None:
    provider = Provider(place, hub, **{**GUARDED, **options})
    try:
        report = provider.report()
        assert (report["event"], report["kind"]) == ("error", "UsageError")
        assert said in report["text"]
        assert provider.process.wait(5.0) == 1
        assert hub.hellos == []
    finally:
        provider.close()


def test_a_hub_with_another_key_is_not_served(place: Path) -> None:
    hub = Hub(place, key=public(Kind.HUB, 2))
    provider = Provider(place, hub, **GUARDED)
    try:
        report = provider.report()
        assert (report["event"], report["kind"]) == ("error", "AuthFailed")
        assert "not the hub" in report["text"]
    finally:
        provider.close()
        hub.close()


def test_a_provider_that_waits_for_approval_says_how_to_give_it(place: Path) -> None:
    hub = Hub(place, refuse=Fault("PendingApproval", "not yet"), key=HUB)
    provider = Provider(place, hub, **GUARDED)

    def told() -> bool:
        hub.pump()
        return f"gu key approve {OWN.public.text}" in provider.log.read_text()

    try:
        eventually(told, 10.0, "the command is in the log")
        hub.refuse = None
        assert provider.report()["event"] == "ready"
        assert provider.log.read_text().count("gu key approve") == 1
    finally:
        provider.close()
        hub.close()
