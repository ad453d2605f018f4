"""The manifest: one spelling, nothing unknown, and hashes that agree (``images/manifest.py``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from guactors.errors import ImageRefused, UsageError
from guactors.images.manifest import (
    CHUNK,
    IMAGE_TYPE,
    MOST_CHUNKS,
    TREE,
    Config,
    Source,
    blob_hash,
    check_first_chunk,
    chunk_hash,
    encode_manifest,
    image_id,
    merge_signatures,
    new_blob,
    parse_image_id,
    parse_manifest,
    sign_image,
    signers_of,
)
from guactors.security import signing
from guactors.security.keys import Kind
from tests.unit.images.making import (
    CREATED,
    blob_of,
    content,
    fake_blob,
    manifest_bytes,
    manifest_of,
    signer,
)

HEX = "0123456789abcdef" * 4
NOW = 1_800_000_000.0


def document(**changes: Any) -> dict[str, Any]:
    """A manifest as plain values."""
    found: dict[str, Any] = json.loads(manifest_bytes())
    return found | changes


def blob_document(**changes: Any) -> dict[str, Any]:
    return document(blobs=[document()["blobs"][0] | changes])


def written(value: Any, *, sort: bool = True) -> bytes:
    return json.dumps(value, sort_keys=sort, separators=(",", ":"), ensure_ascii=False).encode()


# The form.


def test_the_form_on_the_page() -> None:
    root = blob_of(b"root")
    data = encode_manifest(
        manifest_of(root, source=Source("sha256:" + HEX), runtimes=["qemu"], not_after=5)
    )
    assert json.loads(data) == {
        "format": "guactors.image/1",
        "name": "py311",
        "arch": "x86_64",
        "os": "linux",
        "created": CREATED,
        "config": {
            "entrypoint": ["/bin/sh"],
            "env": {"PATH": "/bin"},
            "workdir": "/",
            "user": "0:0",
            "python": "3.11",
            "agent": "L1",
        },
        "blobs": [
            {
                "role": "rootfs",
                "media": "squashfs",
                "size": 4,
                "sha3_256": hashlib.sha3_256(b"root").hexdigest(),
                "chunk": 4194304,
                "chunks": [hashlib.sha3_256(b"root").hexdigest()],
            }
        ],
        "source": {"oci": "sha256:" + HEX},
        "runtimes": ["qemu"],
        "not_after": 5,
    }
    assert data == written(json.loads(data))
    assert image_id(data) == "sha3-256:" + hashlib.sha3_256(data).hexdigest()


sizes = st.one_of(st.integers(1, 3 * CHUNK), st.sampled_from([1, CHUNK - 1, CHUNK, CHUNK + 1]))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(
    st.lists(sizes, min_size=1, max_size=4),
    st.builds(
        Config,
        entrypoint=st.lists(texts, max_size=3),
        env=st.dictionaries(texts.filter(lambda t: t and "=" not in t), texts, max_size=3),
        user=st.sampled_from(["0:0", "1000:100"]),
        agent=st.sampled_from(["", "L0", "L1"]),
    ),
    st.none() | st.integers(0, 2**40),
)
def test_round_trip(lengths: list[int], config: Config, not_after: int | None) -> None:
    roles = ["rootfs", "kernel", "initrd", "data"]
    blobs = [fake_blob(size, role, size) for size, role in zip(lengths, roles, strict=False)]  # type: ignore[arg-type]
    manifest = manifest_of(*blobs, config=config, not_after=not_after)
    data = encode_manifest(manifest)
    assert parse_manifest(data) == manifest
    assert encode_manifest(parse_manifest(data)) == data
    for blob in blobs:
        lengths_of = [blob.length(index) for index in range(len(blob.chunks))]
        assert sum(lengths_of) == blob.size
        assert set(lengths_of[:-1]) <= {CHUNK}
        assert 0 < lengths_of[-1] <= CHUNK


def test_one_blob_under_two_roles_counts_once() -> None:
    one = fake_blob(10)
    manifest = manifest_of(one, replace(one, role="data"), fake_blob(3, "kernel", 1))
    assert parse_manifest(encode_manifest(manifest)).size == 13


def test_a_missing_role_is_named() -> None:
    assert manifest_of().blob("rootfs").size == 10
    with pytest.raises(ImageRefused, match=r"no blob 'kernel', it has: rootfs"):
        manifest_of().blob("kernel")


NOT_CANONICAL: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("no JSON", b"manifest"),
    ("cut short", manifest_bytes()[:-1]),
    ("something behind it", manifest_bytes() + b"\n"),
    ("spaces", json.dumps(document(), sort_keys=True).encode()),
    ("another order", written(dict(reversed(document().items())), sort=False)),
    ("a list", b"[]"),
    ("no UTF-8", manifest_bytes().replace(b"py311", b"py\xff11")),
    ("a repeated field", manifest_bytes().replace(b'"os":', b'"name":"x","os":')),
    ("a repeated format", b'{"format":"guactors.image/0",' + manifest_bytes()[1:]),
    ("another escape", manifest_bytes().replace(b"py311", b"\\u0070y311")),
    ("a float", manifest_bytes().replace(b'"size":10', b'"size":10.0')),
    ("a power of ten", manifest_bytes().replace(b'"size":10', b'"size":1e1')),
    ("too large", manifest_bytes().replace(b"py311", b"p" * 262_144)),
    ("too deep", b"[" * 100_000),
]


@pytest.mark.parametrize(("_what", "data"), NOT_CANONICAL, ids=[what for what, _ in NOT_CANONICAL])
def test_another_spelling_is_refused(_what: str, data: bytes) -> None:
    with pytest.raises(ImageRefused, match="image manifest"):
        parse_manifest(data)


REFUSED: list[tuple[str, Callable[[], dict[str, Any]]]] = [
    (r"its format is 'guactors.image/2'", lambda: document(format="guactors.image/2")),
    ("unknown field", lambda: document(extra=1)),
    ("unknown field", lambda: document(config=document()["config"] | {"shell": "x"})),
    ("unknown field", lambda: blob_document(url="x")),
    ("`name`", lambda: {k: v for k, v in document().items() if k != "name"}),
    ("canonical", lambda: {k: v for k, v in document().items() if k != "not_after"}),
    ("canonical", lambda: document(config={})),
    ("name 'a b'", lambda: document(name="a b")),
    ("name ''", lambda: document(name="")),
    ("name", lambda: document(name="x" * 129)),
    ("name", lambda: document(name="..\x00")),
    ("arch", lambda: document(arch="x86 64")),
    ("windows", lambda: document(os="windows")),
    ("created", lambda: document(created="2026-01-02")),
    ("created", lambda: document(created="2026-01-02T03:04:05+00:00")),
    ("no such time", lambda: document(created="2026-02-30T03:04:05Z")),
    ("source.oci", lambda: document(source={"oci": "latest"})),
    ("'wasm' is none of", lambda: document(runtimes=["wasm"])),
    ("stands twice", lambda: document(runtimes=["qemu", "qemu"])),
    ("not_after", lambda: document(not_after=-1)),
    ("more than 64 bits", lambda: document(not_after=2**70)),
    ("user", lambda: document(config=document()["config"] | {"user": "root"})),
    ("python", lambda: document(config=document()["config"] | {"python": "2.7"})),
    ("agent", lambda: document(config=document()["config"] | {"agent": "L9"})),
    ("workdir", lambda: document(config=document()["config"] | {"workdir": "tmp"})),
    ("workdir", lambda: document(config=document()["config"] | {"workdir": "/a/../b"})),
    ("zero byte", lambda: document(config=document()["config"] | {"entrypoint": ["a\0b"]})),
    ("too long", lambda: document(config=document()["config"] | {"env": {"a": "b" * 5000}})),
    ("more than", lambda: document(config=document()["config"] | {"entrypoint": ["a"] * 1025})),
    ("environment", lambda: document(config=document()["config"] | {"env": {"a=b": "c"}})),
    ("environment", lambda: document(config=document()["config"] | {"env": {"": "c"}})),
    ("no blobs", lambda: document(blobs=[])),
    ("a role stands twice", lambda: document(blobs=document()["blobs"] * 2)),
    ("role", lambda: blob_document(role="firmware")),
    ("media", lambda: blob_document(media="zip")),
    ("0 bytes", lambda: blob_document(size=0)),
    ("-1 bytes", lambda: blob_document(size=-1)),
    ("float", lambda: blob_document(size=10.5)),
    ("bytes, possible are", lambda: blob_document(size=MOST_CHUNKS * CHUNK + 1)),
    ("bytes, possible are", lambda: blob_document(size=2**62)),
    ("has 2 chunks, 1 are given", lambda: blob_document(size=CHUNK + 1)),
    ("has 1 chunks, 0 are given", lambda: blob_document(chunks=[])),
    ("has 1 chunks, 2 are given", lambda: blob_document(chunks=[HEX, HEX])),
    ("chunks of 1024 bytes", lambda: blob_document(chunk=1024)),
    ("chunks of 0 bytes", lambda: blob_document(chunk=0)),
    ("is no hash", lambda: blob_document(sha3_256=HEX.upper())),
    ("is no hash", lambda: blob_document(sha3_256=HEX[:-1])),
    ("is no hash", lambda: blob_document(chunks=["g" * 64])),
    ("is no hash", lambda: blob_document(chunks=["../../etc/passwd"], sha3_256="../../etc")),
    (f"is named {HEX}, but", lambda: blob_document(sha3_256=HEX)),
]


@pytest.mark.parametrize(("complaint", "make"), REFUSED)
def test_what_a_manifest_may_not_say(complaint: str, make: Callable[[], dict[str, Any]]) -> None:
    with pytest.raises(ImageRefused) as caught:
        parse_manifest(written(make()))
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 1000


@given(st.data())
def test_one_changed_byte_is_refused_or_another_image(data: st.DataObject) -> None:
    original = manifest_bytes(fake_blob(CHUNK + 1))
    place = data.draw(st.integers(0, len(original) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != original[place]))
    changed = original[:place] + bytes([byte]) + original[place + 1 :]
    assert image_id(changed) != image_id(original)
    try:
        found = parse_manifest(changed)
    except ImageRefused:
        return
    assert encode_manifest(found) == changed
    assert found != parse_manifest(original)


def test_what_cannot_be_read_is_not_written() -> None:
    with pytest.raises(ImageRefused, match="no blobs"):
        encode_manifest(manifest_of(blobs=[]))
    with pytest.raises(ImageRefused, match="surrogate"):
        encode_manifest(manifest_of(config=Config(entrypoint=["\ud800"])))
    with pytest.raises(ImageRefused, match="too large"):
        encode_manifest(manifest_of(fake_blob(3990 * CHUNK)))


# Hashes.


@pytest.mark.parametrize("size", [1, 5, CHUNK])
def test_a_blob_of_one_chunk_has_the_plain_hash(size: int) -> None:
    data = content(size)
    assert blob_of(data).sha3_256 == hashlib.sha3_256(data).hexdigest()


def test_a_larger_blob_has_the_hash_of_its_tree() -> None:
    data = content(2 * CHUNK + 3)
    parts = [data[:CHUNK], data[CHUNK : 2 * CHUNK], data[2 * CHUNK :]]
    size, chunk = (2 * CHUNK + 3).to_bytes(8, "big"), CHUNK.to_bytes(8, "big")
    leaves = b"".join(hashlib.sha3_256(part).digest() for part in parts)
    expected = hashlib.sha3_256(TREE + size + chunk + leaves).hexdigest()
    assert blob_of(data).sha3_256 == expected
    assert blob_of(data).chunks == [hashlib.sha3_256(part).hexdigest() for part in parts]


def test_the_size_is_part_of_the_name() -> None:
    hashes = fake_blob(2 * CHUNK).chunks
    assert blob_hash(2 * CHUNK, hashes) != blob_hash(2 * CHUNK - 1, hashes)


def test_no_small_blob_poses_as_a_large_one() -> None:
    large = fake_blob(2 * CHUNK)
    forged = TREE + (2 * CHUNK).to_bytes(8, "big") + CHUNK.to_bytes(8, "big")
    forged += bytes.fromhex("".join(large.chunks))
    assert chunk_hash(forged) == large.sha3_256
    with pytest.raises(ImageRefused, match="could be taken for another"):
        check_first_chunk(len(forged), forged)
    check_first_chunk(CHUNK + 1, forged)
    check_first_chunk(len(forged), forged[1:])


def test_the_description_of_an_impossible_blob() -> None:
    with pytest.raises(ImageRefused, match="0 bytes"):
        new_blob("data", "raw", 0, [])
    with pytest.raises(ImageRefused, match="has 1 chunks"):
        new_blob("data", "raw", 5, [HEX, HEX])


# Ids.


@pytest.mark.parametrize(
    "text", ["sha3-256:" + HEX, "SHA3-256:" + HEX.upper(), f"  sha3-256:{HEX}\n"]
)
def test_an_id_has_one_normal_form(text: str) -> None:
    assert parse_image_id(text) == "sha3-256:" + HEX


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("py311", "names and tags are not trusted"),
        ("registry/py311:latest", "names and tags are not trusted"),
        ("", "names and tags are not trusted"),
        ("sha3-256:" + HEX[:-1], "there are 63"),
        ("sha3-256:" + HEX + "0", "there are 65"),
        ("sha3-256:" + "g" * 64, "64 hex digits"),
        ("sha3-256:" + "٠" * 64, "64 hex digits"),
        ("sha3-256:" + HEX + "@http://x", "64 hex digits"),
        ("sha3-256:../../" + HEX[:58], "64 hex digits"),
        ("sha256:" + HEX, "digest of an OCI image"),
        ("SHA3:" + HEX[:56], "hash of a file"),
        ("hash:sha3:" + HEX[:56] + ":http://x", "hash of a file"),
    ],
)
def test_what_is_no_id(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_image_id(text)
    assert hint in str(caught.value)


# Signatures.


def test_signers() -> None:
    data = manifest_bytes()
    one, two = signer(1), signer(2)
    assert signers_of(data, sign_image(one, data), NOW) == {one.public.text}
    assert signers_of(data, sign_image([one, two], data), NOW) == {
        one.public.text,
        two.public.text,
    }
    assert signers_of(data, None, NOW) == frozenset()
    assert signers_of(data, b"", NOW) == frozenset()


def test_signatures_expire_with_the_image() -> None:
    data = manifest_bytes(not_after=int(NOW))
    signed = sign_image(signer(1), data)
    assert len(signers_of(data, signed, NOW)) == 1
    assert signers_of(data, signed, NOW + 1) == frozenset()


def test_a_signature_is_for_one_manifest() -> None:
    signed = sign_image(signer(1), manifest_bytes())
    other = manifest_bytes(name="other")
    with pytest.raises(ImageRefused, match=image_id(other)):
        signers_of(other, signed, NOW)


@pytest.mark.parametrize("damage", [b"{}", b"junk", b'{"payload_type":"x","signatures":[]}'])
def test_damaged_signatures(damage: bytes) -> None:
    with pytest.raises(ImageRefused, match="signature"):
        signers_of(manifest_bytes(), damage, NOW)


def test_one_wrong_signature_spoils_all() -> None:
    data = manifest_bytes()
    good, bad = sign_image(signer(1), data), sign_image(signer(2), manifest_bytes(name="other"))
    both = json.loads(good)
    both["signatures"] += json.loads(bad)["signatures"]
    with pytest.raises(ImageRefused, match=signer(2).public.text):
        signers_of(data, written(both), NOW)


def test_only_signers_sign_images() -> None:
    data = manifest_bytes()
    owner = signer(1, Kind.OWNER)
    with pytest.raises(UsageError, match="kind owner"):
        sign_image(owner, data)
    signed = signing.sign_detached([owner], IMAGE_TYPE, data)
    with pytest.raises(ImageRefused, match="kind owner"):
        signers_of(data, signed, NOW)


def test_another_type_of_document_is_no_image_signature() -> None:
    data = manifest_bytes()
    signed = signing.sign_detached([signer(1)], "application/vnd.guactors.grant.v1+json", data)
    with pytest.raises(ImageRefused, match="type"):
        signers_of(data, signed, NOW)
    relabelled = signed.replace(b"grant", b"image")
    with pytest.raises(ImageRefused, match="wrong"):
        signers_of(data, relabelled, NOW)


def test_junk_is_not_signed() -> None:
    with pytest.raises(ImageRefused):
        sign_image(signer(1), b"{}")


def test_merging() -> None:
    data = manifest_bytes(not_after=5)
    one, two = sign_image(signer(1), data), sign_image(signer(2), data)
    both = merge_signatures(data, one, two)
    assert signers_of(data, both, 5) == {signer(1).public.text, signer(2).public.text}
    assert merge_signatures(data, both, one) == both
    assert merge_signatures(data, None, one) == one
    eight = sign_image([signer(number) for number in range(1, 9)], data)
    with pytest.raises(ImageRefused, match="9 signatures"):
        merge_signatures(data, eight, sign_image(signer(9), data))
    with pytest.raises(ImageRefused):
        merge_signatures(data, one, sign_image(signer(2), manifest_bytes(name="other")))
