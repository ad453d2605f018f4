"""The image store: nothing unverified goes in or out, and it stays in its bounds
(``images/store.py`` and what it is made of)."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guactors.errors import ImageRefused, UsageError
from guactors.images import disk
from guactors.images.manifest import CHUNK, TREE, Blob, image_id, parse_manifest, sign_image
from guactors.images.partial import WrongChunk
from guactors.images.store import STALE, ImageStore
from tests.unit.images.making import (
    blob_of,
    chunks,
    content,
    fake_blob,
    manifest_bytes,
    pieces,
    signer,
)

SIZES = [1, 1000, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7]
LARGE = content(2 * CHUNK + 5, "large")


class Clock:
    """The present, and what a test adds to it: files carry real times."""

    def __init__(self) -> None:
        self.added = 0.0

    def __call__(self) -> float:
        return time.time() + self.added


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_store(tmp_path: Path, clock: Clock) -> Callable[..., ImageStore]:
    """The store, or, as another process would have it, the same once more."""

    def open_store(quota: int = 2**30) -> ImageStore:
        return ImageStore(tmp_path / "store", quota=quota, now=clock)

    return open_store


@pytest.fixture
def store(open_store: Callable[..., ImageStore]) -> ImageStore:
    return open_store()


def files(root: Path) -> list[Path]:
    """All but records, locks and pins."""
    return sorted(
        path.relative_to(root)
        for path in root.rglob("*")
        if path.is_file() and path.suffix != ".seal" and path.name != "lock"
    )


def blob_path(tmp_path: Path, blob: Blob) -> Path:
    return tmp_path / "store" / "blobs" / "sha3-256" / blob.sha3_256[:2] / blob.sha3_256


def add(store: ImageStore, *data: bytes, name: str = "image") -> str:
    """An image with these blobs."""
    roles = ("rootfs", "kernel", "initrd", "data")
    blobs = [store.ingest([one], role=role) for one, role in zip(data, roles, strict=False)]
    return store.add_image(manifest_bytes(*blobs, name=name))


def read(store: ImageStore, image: str, role: str = "rootfs", **options: bool) -> bytes:
    with store.open_blob(image, role, **options) as file:
        return file.read()


# Streams.


class OnlyRead:
    """A stream that gives little at a time."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, 1_000_003))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "stream",
    [
        lambda data: [data],
        lambda data: pieces(data, [1_000_003, 0, 17]),
        lambda data: pieces(data, [2 * CHUNK]),
        io.BytesIO,
        OnlyRead,
    ],
)
def test_ingest(
    store: ImageStore, tmp_path: Path, size: int, stream: Callable[[bytes], Iterator[bytes]]
) -> None:
    data = content(size)
    blob = store.ingest(stream(data), role="kernel", media="raw")
    assert blob == blob_of(data, "kernel", "raw")
    path = blob_path(tmp_path, blob)
    assert path.read_bytes() == data
    assert files(tmp_path / "store") == [path.relative_to(tmp_path / "store")]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_modes(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, LARGE)
    with store.pin(image), store.open_partial(fake_blob(10)):
        for path in [tmp_path / "store", *(tmp_path / "store").rglob("*")]:
            sealed = path.parent.parent.name == "sha3-256" and not path.suffix
            wanted = 0o700 if path.is_dir() else 0o444 if sealed else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_nothing_is_no_blob(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match="0 bytes"):
        store.ingest([b"", b""])
    assert not files(tmp_path / "store")


def test_a_blob_that_poses_as_another_is_refused(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match="could be taken for another"):
        store.ingest([TREE + b"..."])
    forged = blob_of(TREE)
    with (
        store.open_partial(forged) as partial,
        pytest.raises(ImageRefused, match="could be taken for another"),
    ):
        partial.write(0, TREE)
    assert not any("blobs" in path.parts for path in files(tmp_path / "store"))


class Broken(Exception):
    pass


def broken(data: bytes) -> Iterator[bytes]:
    """Ends badly after the data."""
    yield data
    raise Broken


def test_errors_of_the_stream_pass_and_leave_nothing(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(Broken):
        store.ingest(broken(LARGE))
    assert not files(tmp_path / "store")
    assert store.storage_used() == 0


def test_an_expected_blob(store: ImageStore) -> None:
    blob = blob_of(LARGE, "initrd", "raw")
    assert store.ingest(pieces(LARGE, [999_999]), expect=blob) == blob
    assert store.ingest(broken(b""), expect=blob) == blob, "one that is there is not read"


def test_an_expected_blob_that_is_another(store: ImageStore) -> None:
    blob = blob_of(LARGE)
    wrong = LARGE[:CHUNK] + b"x" + LARGE[CHUNK + 1 :]
    with pytest.raises(ImageRefused) as caught:
        store.ingest([wrong], expect=blob)
    for part in (f"chunk 1 of the blob {blob.sha3_256}", blob.chunks[1], blob_of(wrong).chunks[1]):
        assert part in str(caught.value)
    assert store.missing_blobs(parse_manifest(manifest_bytes(blob))) == [blob]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (LARGE[: 2 * CHUNK], f"ends after {2 * CHUNK} bytes, not {len(LARGE)}"),
        (LARGE[:-1], "chunk 2 .* expected 5 bytes .* found 4"),
        (LARGE + b"x", "chunk 2 .* expected 5 bytes .* found 6"),
        (b"", "ends after 0 bytes"),
    ],
)
def test_an_expected_blob_of_another_length(store: ImageStore, data: bytes, complaint: str) -> None:
    with pytest.raises(ImageRefused, match=complaint):
        store.ingest([data], expect=blob_of(LARGE))


def test_an_expected_blob_with_more_behind_it(store: ImageStore) -> None:
    data = LARGE[: 2 * CHUNK]
    with pytest.raises(ImageRefused, match="has 2 chunks, there is no 2"):
        store.ingest([data, b"more"], expect=blob_of(data))


def test_an_expected_stream_is_resumed(store: ImageStore) -> None:
    blob = blob_of(LARGE)
    with pytest.raises(Broken):
        store.ingest(broken(LARGE[: CHUNK + 1]), expect=blob)
    with store.open_partial(blob) as partial:
        assert partial.missing() == [1, 2]
    assert store.ingest([LARGE], expect=blob) == blob


# Chunks.


def test_chunks_in_any_order_over_several_tries(open_store: Callable[..., ImageStore]) -> None:
    blob, parts = blob_of(LARGE), chunks(LARGE)
    with open_store().open_partial(blob) as partial:
        assert partial.missing() == [0, 1, 2]
        partial.write(2, parts[2])
        assert partial.missing() == [0, 1]
        with pytest.raises(ImageRefused, match="incomplete: 2 of 3 chunks"):
            partial.seal()
    with open_store().open_partial(blob) as partial:
        assert partial.missing() == [0, 1]
        partial.write(0, memoryview(parts[0]))
        partial.write(0, parts[0])
        partial.write(1, bytearray(parts[1]))
        assert partial.missing() == []
        assert not partial.sealed
        assert partial.seal() == blob
        assert partial.sealed
        assert partial.seal() == blob
    with open_store().open_partial(blob) as partial:
        assert partial.missing() == []
        assert partial.sealed
        assert partial.seal() == blob
    store = open_store()
    assert read(store, store.add_image(manifest_bytes(blob))) == LARGE


@pytest.mark.parametrize(
    ("index", "data"),
    [(0, b"wrong"), (0, b""), (1, LARGE[:CHUNK]), (2, LARGE[-4:]), (2, LARGE[-6:])],
)
def test_a_wrong_chunk_changes_nothing(store: ImageStore, index: int, data: bytes) -> None:
    blob = blob_of(LARGE)
    with store.open_partial(blob) as partial:
        with pytest.raises(WrongChunk) as caught:
            partial.write(index, data)
        assert f"chunk {index} of the blob {blob.sha3_256} is wrong" in str(caught.value)
        assert blob.chunks[index] in str(caught.value)
        assert partial.missing() == [0, 1, 2]


@pytest.mark.parametrize("index", [-1, 3])
def test_no_such_chunk(store: ImageStore, index: int) -> None:
    with (
        store.open_partial(blob_of(LARGE)) as partial,
        pytest.raises(ImageRefused, match=f"has 3 chunks, there is no {index}"),
    ):
        partial.write(index, b"")


def test_what_was_left_is_hashed_again(store: ImageStore, tmp_path: Path) -> None:
    blob, parts = blob_of(LARGE), chunks(LARGE)
    with store.open_partial(blob) as partial:
        partial.write(0, parts[0])
        partial.write(1, parts[1])
    path = tmp_path / "store" / "partial" / blob.sha3_256
    with path.open("r+b") as file:
        file.seek(CHUNK)
        file.write(b"?")
    with store.open_partial(blob) as partial:
        assert partial.missing() == [1, 2]


@pytest.mark.parametrize("length", [0, 1, CHUNK, 20 * CHUNK])
def test_an_unfinished_file_of_any_length(store: ImageStore, tmp_path: Path, length: int) -> None:
    blob = blob_of(LARGE)
    path = tmp_path / "store" / "partial" / blob.sha3_256
    path.write_bytes(LARGE[:length].ljust(length, b"-"))
    assert store.ingest([LARGE], expect=blob) == blob


def test_a_chunk_of_zeros_is_a_chunk(store: ImageStore) -> None:
    data = bytes(CHUNK) + b"x"
    blob = blob_of(data)
    with store.open_partial(blob) as partial:
        partial.write(0, data[:CHUNK])
    with store.open_partial(blob) as partial:
        assert partial.missing() == [1]
        partial.write(1, b"x")
        partial.seal()


def test_one_writer_at_a_time(store: ImageStore, open_store: Callable[..., ImageStore]) -> None:
    blob = blob_of(LARGE)
    with store.open_partial(blob):
        for other in (store, open_store()):
            with pytest.raises(ImageRefused, match="being written by another"):
                other.open_partial(blob)
    store.open_partial(blob).close()


def test_who_waits_finds_it_done(store: ImageStore, open_store: Callable[..., ImageStore]) -> None:
    blob = blob_of(LARGE)
    with ThreadPoolExecutor(1) as pool:
        with store.open_partial(blob) as first:
            waiting = pool.submit(open_store().open_partial, blob, wait=30)
            for index, part in enumerate(chunks(LARGE)):
                first.write(index, part)
            first.seal()
        with waiting.result() as second:
            assert second.sealed


def test_many_threads_write_one_blob(store: ImageStore) -> None:
    blob, parts = blob_of(LARGE), chunks(LARGE)
    with store.open_partial(blob) as partial, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: partial.write(index % 3, parts[index % 3]), range(9)))
        partial.seal()
    assert read(store, store.add_image(manifest_bytes(blob))) == LARGE


def test_after_the_end_nothing_is_written(store: ImageStore) -> None:
    partial = store.open_partial(blob_of(LARGE))
    partial.close()
    partial.close()
    with pytest.raises(UsageError, match="sealed or closed"):
        partial.write(0, LARGE[:CHUNK])


def test_a_blob_that_does_not_agree_with_itself(store: ImageStore, tmp_path: Path) -> None:
    blob = blob_of(LARGE)
    with pytest.raises(ImageRefused, match="is named"):
        store.open_partial(Blob(blob.role, blob.media, 5, "0" * 64, CHUNK, ["1" * 64]))
    with pytest.raises(ImageRefused, match="no hash"):
        store.open_partial(Blob(blob.role, blob.media, 5, "../../x", CHUNK, ["../../x"]))
    assert not files(tmp_path / "store")


@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "reopen", "damage", "wrong"]), st.integers(0, 2)),
        max_size=12,
    )
)
@settings(max_examples=20, deadline=None)
def test_whatever_happened_before_it_can_be_finished(steps: list[tuple[str, int]]) -> None:
    blob, parts = blob_of(LARGE), chunks(LARGE)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        store = ImageStore(Path(directory), quota=2**30, now=time.time)
        partial = stack.enter_context(store.open_partial(blob))
        expected = {0, 1, 2}
        for step, index in steps:
            if step == "write":
                partial.write(index, parts[index])
                expected.discard(index)
            elif step == "wrong":
                with pytest.raises(ImageRefused):
                    partial.write(index, b"wrong")
            else:
                partial.close()
                if step == "damage":
                    with (Path(directory) / "partial" / blob.sha3_256).open("r+b") as file:
                        file.seek(index * CHUNK)
                        file.write(b"??")
                    expected.add(index)
                partial = stack.enter_context(store.open_partial(blob))
            assert partial.missing() == sorted(expected)
        for index in partial.missing():
            partial.write(index, parts[index])
        partial.seal()
        assert read(store, store.add_image(manifest_bytes(blob)), paranoid=True) == LARGE


# Images.


def test_an_image(store: ImageStore, clock: Clock) -> None:
    root, kernel = store.ingest([LARGE], role="rootfs"), store.ingest([b"kernel"], role="kernel")
    data = manifest_bytes(root, kernel)
    image = store.add_image(data)
    assert image == image_id(data)
    found = store.get(image.upper())
    assert found.id == image
    assert found.manifest == parse_manifest(data)
    assert found.manifest_bytes == data
    assert found.signatures == b""
    assert found.signers == frozenset()
    assert found.size == len(LARGE) + len(b"kernel")
    assert abs(found.last_used - clock()) < 60
    assert found.names == []
    assert [one.id for one in store.list()] == [image]
    assert read(store, image) == LARGE
    assert read(store, image, "kernel") == b"kernel"
    assert store.has(image)
    assert store.add_image(data) == image


def test_an_image_needs_its_blobs(store: ImageStore) -> None:
    there, missing = store.ingest([b"root"], role="rootfs"), fake_blob(9, "kernel")
    data = manifest_bytes(there, missing)
    assert store.missing_blobs(parse_manifest(data)) == [missing]
    with pytest.raises(ImageRefused, match=f"kernel blob {missing.sha3_256} is not in this store"):
        store.add_image(data)
    assert not store.has(image_id(data))
    assert store.list() == []


def test_what_is_not_there(store: ImageStore) -> None:
    image = image_id(b"")
    for call in (store.get, store.remove, store.pin, lambda image: store.open_blob(image, "data")):
        with pytest.raises(ImageRefused, match="is not in this store"):
            call(image)
        with pytest.raises(UsageError, match="names and tags"):
            call("py311:latest")
    with pytest.raises(ImageRefused, match="no blob 'kernel'"):
        store.open_blob(add(store, b"root"), "kernel")


def test_junk_is_no_image(store: ImageStore) -> None:
    with pytest.raises(ImageRefused, match="image manifest"):
        store.add_image(b"{}")


def test_signatures(store: ImageStore, clock: Clock) -> None:
    blob = store.ingest([b"root"], role="rootfs")
    expires = int(clock()) + 1000
    data = manifest_bytes(blob, not_after=expires)
    one, two = (sign_image(signer(number), data) for number in (1, 2))
    image = store.add_image(data, one)
    assert store.get(image).signers == {signer(1).public.text}
    store.add_image(data)
    assert store.get(image).signers == {signer(1).public.text}, "adding it again takes none away"
    store.add_signature(image, two)
    store.add_image(data, one)
    both = {signer(1).public.text, signer(2).public.text}
    assert store.get(image).signers == both
    clock.added = 2000
    assert store.get(image).signers == frozenset()
    store.add_signature(image, sign_image(signer(3), data))
    clock.added = 0
    assert store.get(image).signers == both | {signer(3).public.text}


def test_wrong_signatures_are_not_kept(store: ImageStore) -> None:
    blob = store.ingest([b"root"], role="rootfs")
    data = manifest_bytes(blob)
    wrong = sign_image(signer(1), manifest_bytes(blob, name="other"))
    with pytest.raises(ImageRefused, match="signature"):
        store.add_image(data, wrong)
    assert not store.has(image_id(data))
    image = store.add_image(data)
    with pytest.raises(ImageRefused, match="signature"):
        store.add_signature(image, wrong)
    assert store.get(image).signatures == b""


def test_names_are_local(store: ImageStore) -> None:
    one, two = add(store, b"1", name="one"), add(store, b"2", name="two")
    store.set_name("py", one)
    store.set_name("dev", one)
    assert store.resolve("py") == store.resolve(one) == one
    used = store.get(one).last_used
    store.set_name("py", two)
    assert store.resolve("py") == two
    assert store.get(one).names == ["dev"]
    assert store.get(one).last_used == used
    with pytest.raises(UsageError, match="names and tags"):
        store.resolve("one")
    for name in ("", "a\nb", two, two.upper()):
        with pytest.raises(UsageError, match="cannot be the name"):
            store.set_name(name, one)


def test_the_last_used_comes_first(store: ImageStore, clock: Clock) -> None:
    images = []
    for number in range(3):
        clock.added = 10.0 * number
        images.append(add(store, bytes([number]) * 9, name=f"n{number}"))
    clock.added = 100
    read(store, images[0])
    clock.added = 200
    store.pin(images[1]).close()
    assert [one.id for one in store.list()] == [images[1], images[0], images[2]]


def test_removal_keeps_what_others_need(store: ImageStore, tmp_path: Path) -> None:
    one, two = add(store, LARGE, b"kernel", name="one"), add(store, b"r", b"kernel", name="two")
    store.remove(one)
    assert not store.has(one)
    assert read(store, two, "kernel") == b"kernel"
    assert not blob_path(tmp_path, blob_of(LARGE)).exists()
    store.remove(two)
    assert not files(tmp_path / "store")
    assert store.storage_used() == 0


# Damage.


def swap(path: Path, data: bytes) -> None:
    """Another file in its place, of the same size and times as far as they can be set."""
    was = path.stat()
    other = path.with_name("other")
    other.write_bytes(data)
    other.chmod(0o444)
    os.utime(other, ns=(was.st_atime_ns, was.st_mtime_ns))
    other.replace(path)


def overwrite(path: Path, data: bytes) -> None:
    """Other data in the same file, of the same size and times."""
    was = path.stat()
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


def link(path: Path, data: bytes) -> None:
    """A symbolic link to a file with the right content."""
    target = path.parent.parent / "target"
    target.write_bytes(LARGE)
    path.unlink()
    path.symlink_to(target)


OTHER = LARGE[:-1] + b"?"


@pytest.mark.parametrize("change", [swap, overwrite, link])
def test_another_file_is_caught(
    store: ImageStore, tmp_path: Path, change: Callable[[Path, bytes], None]
) -> None:
    image = add(store, LARGE)
    blob = store.get(image).manifest.blob("rootfs")
    assert read(store, image) == LARGE
    change(blob_path(tmp_path, blob), OTHER)
    with pytest.raises(ImageRefused, match=f"the blob {blob.sha3_256} is damaged"):
        store.open_blob(image, "rootfs")
    assert not blob_path(tmp_path, blob).exists()
    assert list((tmp_path / "store" / "quarantine").iterdir())
    with pytest.raises(ImageRefused, match="fetch or import its image again"):
        store.open_blob(image, "rootfs")
    assert store.missing_blobs(store.get(image).manifest) == [blob]
    store.ingest([LARGE], expect=blob)
    assert read(store, image) == LARGE


def test_a_file_swapped_after_the_check_is_not_read(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, LARGE)
    with store.open_blob(image, "rootfs") as file:
        swap(blob_path(tmp_path, blob_of(LARGE)), OTHER)
        assert file.read() == LARGE


@pytest.mark.parametrize("data", [b"", LARGE[:-1], LARGE + b"x"])
def test_another_size_is_caught(store: ImageStore, tmp_path: Path, data: bytes) -> None:
    image = add(store, LARGE)
    swap(blob_path(tmp_path, blob_of(LARGE)), data)
    with pytest.raises(ImageRefused, match=f"it has {len(data)} bytes, not {len(LARGE)}"):
        store.open_blob(image, "rootfs")


def test_a_forged_record_deceives_all_but_the_paranoid(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, LARGE)
    path = blob_path(tmp_path, blob_of(LARGE))
    swap(path, OTHER)
    marks = disk.marks_of(path.stat())
    path.with_suffix(".seal").write_text(
        f'{{"size":{marks.size},"mtime_ns":{marks.mtime_ns},"ctime_ns":{marks.ctime_ns},'
        f'"inode":{marks.inode}}}'
    )
    assert read(store, image) == OTHER, "else this test shows nothing"
    with pytest.raises(ImageRefused, match="is damaged"):
        store.open_blob(image, "rootfs", paranoid=True)


@pytest.mark.parametrize("record", [None, b"", b"{}", b"\xff"])
def test_without_a_record_it_is_hashed(
    store: ImageStore, tmp_path: Path, record: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = add(store, LARGE)
    path = blob_path(tmp_path, blob_of(LARGE)).with_suffix(".seal")
    path.unlink()
    if record is not None:
        path.write_bytes(record)
    assert read(store, image) == LARGE
    monkeypatch.setattr("guactors.images.blobs.each_chunk", None)
    assert read(store, image) == LARGE, "the second time nothing is hashed"


def test_touching_is_no_damage(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, LARGE)
    path = blob_path(tmp_path, blob_of(LARGE))
    os.utime(path)
    os.link(path, tmp_path / "backup")
    assert read(store, image) == LARGE


def test_a_damaged_blob_is_replaced_by_a_good_one(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, LARGE)
    swap(blob_path(tmp_path, blob_of(LARGE)), OTHER)
    store.ingest([LARGE])
    assert read(store, image, paranoid=True) == LARGE


def test_a_damaged_blob_is_fetched_again(store: ImageStore, tmp_path: Path) -> None:
    image = add(store, LARGE)
    swap(blob_path(tmp_path, blob_of(LARGE)), OTHER)
    with store.open_partial(blob_of(LARGE)) as partial:
        assert partial.missing() == [0, 1, 2]
    store.ingest([LARGE], expect=blob_of(LARGE))
    assert read(store, image) == LARGE


@pytest.mark.parametrize("name", ["manifest.json", "meta"])
@pytest.mark.parametrize("data", [None, b"", b"{}x"])
def test_a_damaged_image_is_put_aside(
    store: ImageStore, tmp_path: Path, name: str, data: bytes | None
) -> None:
    good, image = add(store, b"good"), add(store, b"root", name="bad")
    path = tmp_path / "store" / "images" / image.removeprefix("sha3-256:") / name
    manifest = store.get(image).manifest_bytes
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    assert [one.id for one in store.list()] == [good]
    with pytest.raises(ImageRefused, match="is not in this store"):
        store.get(image)
    assert store.add_image(manifest) == image
    assert read(store, image) == b"root"


def test_damaged_signatures_count_for_nothing(store: ImageStore, tmp_path: Path) -> None:
    data = manifest_bytes(store.ingest([b"root"], role="rootfs"))
    signed = sign_image(signer(1), data)
    image = store.add_image(data, signed)
    path = tmp_path / "store" / "images" / image.removeprefix("sha3-256:") / "manifest.sig"
    path.write_bytes(signed[:-9])
    assert store.get(image).signers == frozenset()
    assert [one.signers for one in store.list()] == [frozenset()]
    store.add_signature(image, signed)
    assert store.get(image).signers == {signer(1).public.text}


# Room.


def test_what_is_in_use_stays(store: ImageStore, open_store: Callable[..., ImageStore]) -> None:
    image = add(store, LARGE)
    first, second = store.pin(image), open_store().pin(image)
    for pin in (first, second):
        with pytest.raises(ImageRefused, match="is in use"):
            store.remove(image)
        with pytest.raises(ImageRefused, match=r"full.*\(1 of 1 are in use\)"):
            store.collect(need=2**30)
        pin.close()
        pin.close()
    store.remove(image)


def test_the_longest_unused_goes_first(open_store: Callable[..., ImageStore], clock: Clock) -> None:
    store = open_store(quota=10 * 2**20)
    images = []
    for number in range(3):
        clock.added = 10.0 * number
        images.append(add(store, content(3 * 2**20, str(number)), name=f"n{number}"))
    clock.added = 100
    read(store, images[0])
    with store.pin(images[2]):
        images.append(add(store, content(3 * 2**20, "3"), name="n3"))
        assert {one.id for one in store.list()} == {images[0], images[2], images[3]}
        clock.added = 200
        add(store, content(6 * 2**20, "4"), name="n4")
        assert [one.manifest.name for one in store.list()] == ["n4", "n2"]
    assert store.storage_used() <= 10 * 2**20


def test_shared_blobs_count_once(open_store: Callable[..., ImageStore]) -> None:
    store = open_store(quota=13 * 2**20)  # the hash of a stream is known at its end
    shared = content(6 * 2**20)
    for number in range(5):
        add(store, shared, bytes([number]), name=f"n{number}")
    assert len(store.list()) == 5
    assert 6 * 2**20 < store.storage_used() < 6.1 * 2**20


@pytest.mark.parametrize("known", [True, False])
def test_what_cannot_fit_is_refused_and_removes_nothing(
    open_store: Callable[..., ImageStore], known: bool, tmp_path: Path
) -> None:
    store = open_store(quota=9 * 2**20)
    busy, idle = add(store, content(3 * 2**20, "1")), add(store, content(2**20, "2"), name="two")
    before = files(tmp_path / "store")
    with store.pin(busy), pytest.raises(ImageRefused, match=r"full.*larger quota"):
        store.ingest([LARGE], expect=blob_of(LARGE) if known else None)
    assert store.has(idle)
    assert files(tmp_path / "store") == before
    assert store.storage_used() < 5 * 2**20


def test_unfinished_blobs_have_their_room(open_store: Callable[..., ImageStore]) -> None:
    store = open_store(quota=10 * 2**20)
    with store.open_partial(fake_blob(8 * 2**20)):
        assert store.storage_used() == 8 * 2**20
        with pytest.raises(ImageRefused, match=r"full: .*transfers under way"):
            store.open_partial(fake_blob(3 * 2**20, seed=1))
    store.open_partial(fake_blob(8 * 2**20)).close()


def test_a_mere_wish_removes_nothing(open_store: Callable[..., ImageStore]) -> None:
    store = open_store(quota=10 * 2**20)
    image = add(store, content(8 * 2**20))
    store.ingest([b"small, but room is made for more at a time"])
    assert store.has(image)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["write_at", "fsync"])
@pytest.mark.parametrize("known", [True, False])
def test_a_full_disk(
    store: ImageStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    call: str,
    known: bool,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    blob = blob_of(LARGE)
    with monkeypatch.context() as patch:
        patch.setattr(disk if call == "write_at" else os, call, fail)
        expected = "cannot be stored" if code == errno.EIO else "free space on that disk"
        with pytest.raises(ImageRefused, match=expected) as caught:
            store.ingest([LARGE], expect=blob if known else None)
        assert not isinstance(caught.value, WrongChunk), "the disk is to blame"
    assert not blob_path(tmp_path, blob).exists()
    if call == "fsync":
        assert not files(tmp_path / "store"), "what was not synced may not be what was written"
    assert store.ingest([LARGE], expect=blob) == blob


def test_a_full_disk_leaves_no_half_image(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    data = manifest_bytes(store.ingest([b"root"], role="rootfs"))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ImageRefused, match="does not fit"):
        store.add_image(data)
    assert list((tmp_path / "store" / "images").iterdir()) == []


def test_a_blob_is_not_endless(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guactors.images.blobs.MOST_CHUNKS", 2)
    with pytest.raises(ImageRefused, match=f"more than {2 * CHUNK} bytes"):
        store.ingest(iter(lambda: bytes(CHUNK), None))


def test_collecting_what_nobody_needs(store: ImageStore, tmp_path: Path, clock: Clock) -> None:
    image = add(store, LARGE)
    store.ingest([b"orphan"])
    store.open_partial(fake_blob(1000)).close()
    swap(blob_path(tmp_path, store.ingest([b"broken"])), b"xroken")
    assert store.missing_blobs(parse_manifest(manifest_bytes(blob_of(b"broken"))))
    assert store.collect() == 0, "it may still be wanted"
    with store.open_partial(fake_blob(2000, seed=1)):
        clock.added = STALE + 100
        assert store.collect() >= 1000 + len(b"orphan") + len(b"broken")
    names = {path.name for path in files(tmp_path / "store")}
    assert names == {
        blob_of(LARGE).sha3_256,
        fake_blob(2000, seed=1).sha3_256,
        "manifest.json",
        "meta",
    }
    assert read(store, image) == LARGE
    assert store.collect(stale=0) == 2000


def test_what_is_wanted_again_is_young_again(
    store: ImageStore, tmp_path: Path, clock: Clock
) -> None:
    blobs = [store.ingest([data]) for data in (b"1", b"22", b"333")]
    for blob in blobs:
        old = time.time() - 2 * STALE
        os.utime(blob_path(tmp_path, blob).with_suffix(".seal"), (old, old))
    store.ingest([b"1"])
    store.open_partial(blobs[1]).close()
    store.collect()
    assert blob_path(tmp_path, blobs[0]).exists()
    assert blob_path(tmp_path, blobs[1]).exists()
    assert not blob_path(tmp_path, blobs[2]).exists()


def test_quarantine_gives_way(open_store: Callable[..., ImageStore], tmp_path: Path) -> None:
    store = open_store(quota=10 * 2**20)
    image = add(store, LARGE)
    swap(blob_path(tmp_path, blob_of(LARGE)), OTHER)
    with pytest.raises(ImageRefused):
        store.open_blob(image, "rootfs")
    store.ingest([LARGE], expect=blob_of(LARGE))
    assert read(store, image) == LARGE


def test_somebody_elses_file_in_the_way(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(UsageError, match="is needed as a directory"):
        ImageStore(tmp_path / "store", quota=1, now=clock)
