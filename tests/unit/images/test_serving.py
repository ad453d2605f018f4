"""The disk work of the hub's images: what stays, what fits, and threads that meet."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guactors.errors import ImageRefused
from guactors.image_state import jobs
from guactors.images import disk
from guactors.images.manifest import CHUNK, encode_manifest, image_id, sign_image
from guactors.images.partial import Partial
from guactors.images.serving import ImageServing
from tests.unit.images.making import blob_of, chunks, content, manifest_of, signer

QUOTA = 5 * CHUNK


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ImageServing]:
    made = ImageServing(tmp_path / "hub", quota=QUOTA, now=time.time)
    yield made
    made.close()


class Image:
    def __init__(self, size: int, seed: str = "") -> None:
        self.content = content(size, seed)
        self.blob = blob_of(self.content)
        self.manifest = manifest_of(self.blob)
        self.data = encode_manifest(self.manifest)
        self.id = image_id(self.data)

    def puts(self) -> list[jobs.Put]:
        return [jobs.Put(self.blob, *both) for both in enumerate(chunks(self.content))]

    def seal(self, signatures: bytes = b"") -> jobs.Seal:
        return jobs.Seal(self.manifest, self.data, signatures)

    def upload(self, serving: ImageServing) -> None:
        serving.do(jobs.Open(self.manifest))
        for put in self.puts():
            serving.do(put)
        serving.do(self.seal())


def test_an_image_from_open_to_read_and_removal(serving: ImageServing) -> None:
    image = Image(CHUNK + 7)
    name = image.blob.sha3_256
    assert serving.do(jobs.Examine(image.data, b"")).there is None
    assert serving.do(jobs.Open(image.manifest)) == {name: [0, 1]}
    second, first = reversed(image.puts())
    serving.do(second)
    assert serving.do(jobs.Open(image.manifest)) == {name: [0]}
    with pytest.raises(ImageRefused, match="incomplete"):
        serving.do(image.seal())
    serving.do(first)
    signature = sign_image(signer(1), image.data)
    serving.do(image.seal(signature))
    examined = serving.do(jobs.Examine(image.data, signature))
    assert examined.there == examined.signers == {signer(1).public.text}
    assert serving.do(jobs.Look(image.id)).data == image.data
    assert [facts.image for facts in serving.do(jobs.ListAll())] == [image.id]
    assert serving.do(jobs.Load()) == jobs.Loaded(b"", [image.id])
    assert serving.do(jobs.Read(image.id, image.blob, 1)) == image.content[CHUNK:]
    with pytest.raises(ImageRefused, match="in use"):
        serving.do(jobs.Remove(image.id))
    serving.do(jobs.LetGo(image.id))
    assert serving.do(jobs.Remove(image.id)) is True
    assert serving.do(jobs.Remove(image.id)) is False
    assert serving.do(jobs.Look(image.id)) is None
    with pytest.raises(ImageRefused, match="not in this store"):
        serving.do(jobs.Read(image.id, image.blob, 1))


def test_what_is_left_is_there_for_the_next_hub(serving: ImageServing, tmp_path: Path) -> None:
    image = Image(CHUNK + 7)
    serving.do(jobs.Open(image.manifest))
    serving.do(image.puts()[1])
    serving.do(jobs.Close([image.blob.sha3_256]))
    other = ImageServing(tmp_path / "hub", quota=QUOTA, now=time.time)
    assert other.do(jobs.Open(image.manifest)) == {image.blob.sha3_256: [0]}
    other.close()
    # One that was closed meanwhile is opened again.
    serving.do(image.puts()[0])
    serving.do(image.seal())


def test_no_image_makes_way_for_another(serving: ImageServing) -> None:
    kept, more = Image(3 * CHUNK, "kept"), Image(3 * CHUNK, "more")
    kept.upload(serving)
    with pytest.raises(ImageRefused, match="full"):
        serving.do(jobs.Open(more.manifest))
    assert [facts.image for facts in serving.do(jobs.ListAll())] == [kept.id]
    serving.do(jobs.Remove(kept.id))
    more.upload(serving)


def test_an_unfinished_upload_is_not_counted_twice(serving: ImageServing) -> None:
    large = Image(4 * CHUNK, "large")
    serving.do(jobs.Open(large.manifest))
    serving.do(jobs.Close([large.blob.sha3_256]))
    assert serving.do(jobs.Open(large.manifest))
    with pytest.raises(ImageRefused, match="full"):
        serving.do(jobs.Open(Image(2 * CHUNK, "other").manifest))


def test_chunks_of_a_blob_that_is_there_are_checked_all_the_same(serving: ImageServing) -> None:
    image = Image(CHUNK + 7)
    image.upload(serving)
    assert serving.do(jobs.Open(image.manifest)) == {image.blob.sha3_256: []}
    for put in image.puts():
        serving.do(put)
        with pytest.raises(ImageRefused, match="wrong"):
            serving.do(jobs.Put(put.blob, put.index, b"!" + put.data[1:]))
    serving.do(image.seal())


def test_two_uploads_of_one_image_in_two_threads(serving: ImageServing) -> None:
    image = Image(4 * CHUNK)
    serving.do(jobs.Open(image.manifest))
    errors: list[BaseException] = []

    def upload() -> None:
        try:
            for put in image.puts():
                serving.do(put)
            serving.do(image.seal())
            serving.do(jobs.Read(image.id, image.blob, 0))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=upload) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []


def test_a_chunk_is_written_though_its_blob_was_closed_a_moment_ago(
    serving: ImageServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(CHUNK + 7)
    serving.do(jobs.Open(image.manifest))
    write = Partial.write

    def closed_first(partial: Partial, index: int, data: bytes) -> None:
        monkeypatch.undo()
        partial.close()
        write(partial, index, data)

    monkeypatch.setattr(Partial, "write", closed_first)
    for put in image.puts():
        serving.do(put)
    serving.do(image.seal())


def test_a_seal_that_fails_can_be_tried_again(
    serving: ImageServing, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image(CHUNK + 7)
    serving.do(jobs.Open(image.manifest))
    for put in image.puts():
        serving.do(put)
    with monkeypatch.context() as broken:
        broken.setattr(disk, "sync_directory", _fail)
        with pytest.raises(ImageRefused, match="disk"):
            serving.do(image.seal())
    assert serving.do(jobs.ListAll()) == []
    serving.do(image.seal())
    assert [facts.image for facts in serving.do(jobs.ListAll())] == [image.id]


def _fail(_path: Path) -> None:
    raise OSError(errno.ENOSPC, "no space left")


def test_a_list_that_was_overtaken_is_not_written(serving: ImageServing) -> None:
    serving.do(jobs.Save(2, b"new"))
    serving.do(jobs.Save(1, b"old"))
    assert serving.do(jobs.Load()).uploads == b"new"
    serving.do(jobs.Save(3, b"newest"))
    assert serving.do(jobs.Load()).uploads == b"newest"


def test_a_damaged_image_counts_as_missing_and_can_be_mended(
    serving: ImageServing, tmp_path: Path
) -> None:
    image = Image(CHUNK + 7)
    image.upload(serving)
    [path] = [x for x in (tmp_path / "hub").rglob(image.blob.sha3_256) if x.stat().st_size > CHUNK]
    path.chmod(0o600)
    path.write_bytes(b"!" + image.content[1:])
    assert serving.do(jobs.Examine(image.data, b"")).there is None
    image.upload(serving)
    assert serving.do(jobs.Examine(image.data, b"")).there == frozenset()
    assert serving.do(jobs.Read(image.id, image.blob, 0)) == image.content[:CHUNK]


@pytest.mark.parametrize("data", [b"", b"{}", b"x" * 300_000])
def test_what_is_no_manifest_is_refused(serving: ImageServing, data: bytes) -> None:
    with pytest.raises(ImageRefused):
        serving.do(jobs.Examine(data, b""))


def test_signatures_are_checked(serving: ImageServing) -> None:
    image, other = Image(10), Image(11)
    with pytest.raises(ImageRefused):
        serving.do(jobs.Examine(image.data, sign_image(signer(1), other.data)))
    image.upload(serving)
    with pytest.raises(ImageRefused):
        serving.do(jobs.AddSignatures(image.id, sign_image(signer(1), other.data)))
    serving.do(jobs.AddSignatures(image.id, sign_image(signer(1), image.data)))
    assert serving.do(jobs.Look(image.id)).signers == {signer(1).public.text}
