"""The shell around images: fetched from a hub that may lie or leave, unpacked for a worker."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from guactors import provider_fetch
from guactors.images.manifest import (
    CHUNK,
    Manifest,
    chunk_hash,
    encode_manifest,
    image_id,
    new_blob,
    sign_image,
)
from guactors.images.store import ImageStore
from guactors.messages import AskChunk, AskImage, ChunkIs, Fault, ImageIs, Message, Ping
from guactors.provider_images import (
    ImageHere,
    ImageMissing,
    Images,
    News,
    RootFailed,
    RootReady,
    remove_tree,
)
from guactors.provider_state import ImageFacts, NeedImage, PrepareRoot, RemoveRoot
from guactors.security.keys import Kind
from tests.unit.security.samples import public, secret

SIGNER = secret(Kind.SIGNER)


def archive(size: int) -> bytes:
    """A root file system with a directory that nobody may write to, and a file of this size."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("sealed")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o555
        tar.addfile(folder)
        for name, data in (("sealed/hello", b"hello"), ("large", os.urandom(size))):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o444
            tar.addfile(info, io.BytesIO(data))
    return held.getvalue()


class Hub:
    """Has one image; ``spoil`` changes an answer on its way, None is no answer."""

    def __init__(self, data: bytes = b"", **fields: Any) -> None:
        self.data = data or archive(2 * CHUNK + 5)
        self.chunks = [self.data[at : at + CHUNK] for at in range(0, len(self.data), CHUNK)]
        blob = new_blob("rootfs", "tar", len(self.data), [chunk_hash(one) for one in self.chunks])
        manifest = Manifest(
            name="small", arch="x86_64", created="2026-01-02T03:04:05Z", blobs=[blob], **fields
        )
        self.manifest = encode_manifest(manifest)
        self.signatures = sign_image(SIGNER, self.manifest)
        self.image = image_id(self.manifest)
        self.asked: list[Message] = []
        self.spoil: Callable[[Message], Message | None] = lambda answer: answer

    def answer(self, message: Message) -> Message | None:
        self.asked.append(message)
        match message:
            case AskImage(request):
                return self.spoil(ImageIs(request, self.manifest, self.signatures))
            case AskChunk(request, _, _, index):
                return self.spoil(ChunkIs(request, self.chunks[index]))
        raise AssertionError(message)

    def chunks_asked(self) -> list[int]:
        return [message.index for message in self.asked if isinstance(message, AskChunk)]


class Desk:
    """Images between a hub and the news they tell."""

    def __init__(self, hub: Hub, place: Path) -> None:
        self.hub = hub
        self.place = place
        self.news: asyncio.Queue[News] = asyncio.Queue()
        self.images = Images(place / "images", place / "roots", self._send, self.news.put_nowait)
        self.images.hub_up()

    def _send(self, message: Message) -> None:
        answer = self.hub.answer(message)
        if answer is not None:
            asyncio.get_running_loop().call_soon(self.images.heard, answer)

    async def next(self) -> News:
        return await asyncio.wait_for(self.news.get(), 20)

    async def need(self, image: str = "") -> News:
        self.images.carry_out(NeedImage(image or self.hub.image))
        return await self.next()

    async def prepare(self, worker: str = "w-1") -> News:
        self.images.carry_out(PrepareRoot(worker, self.hub.image))
        return await self.next()

    async def settled(self) -> None:
        """All that was begun is over."""
        while self.images._tasks:
            await asyncio.wait(self.images._tasks)

    def store(self) -> ImageStore:
        return ImageStore(self.place / "images", quota=2**40, now=lambda: 0.0)


Test = Callable[[Desk], Coroutine[Any, Any, None]]


def play(place: Path, test: Test, hub: Hub | None = None) -> None:
    """Run it on a loop, with a desk of its own."""

    async def run() -> None:
        desk = Desk(hub or Hub(), place)
        try:
            await test(desk)
        finally:
            desk.images.close()

    asyncio.run(run())


# --- fetching -------------------------------------------------------------------------------------


def test_an_image_is_fetched_verified_and_unpacked(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        hub = desk.hub
        facts = ImageFacts(hub.image, frozenset({SIGNER.public.text}))
        assert await desk.need() == ImageHere(facts)
        assert sorted(hub.chunks_asked()) == list(range(len(hub.chunks)))
        root = tmp_path / "roots" / "w-1"
        assert await desk.prepare() == RootReady("w-1", str(root))
        assert (root / "sealed" / "hello").read_bytes() == b"hello"
        assert tmp_path.joinpath("roots").stat().st_mode & 0o777 == 0o700

    play(tmp_path, test)


def test_what_is_here_is_only_asked_for_its_signatures(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.need()
        desk.hub.asked.clear()
        assert isinstance(await desk.need(), ImageHere)
        assert [type(message) for message in desk.hub.asked] == [AskImage]

    play(tmp_path, test)


def test_what_the_manifest_says_of_time_and_runtimes_is_told(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        news = await desk.need()
        assert isinstance(news, ImageHere)
        assert (news.facts.runtimes, news.facts.not_after) == (("native",), 5)
        assert news.facts.signers == {SIGNER.public.text}

    play(tmp_path, test, Hub(runtimes=["native"], not_after=5))


def test_an_unsigned_image_has_no_signers(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        desk.hub.signatures = b""
        news = await desk.need()
        assert isinstance(news, ImageHere)
        assert news.facts.signers == frozenset()

    play(tmp_path, test)


def _another_manifest(answer: Message) -> Message:
    other = Hub(archive(10))
    return replace(answer, manifest=other.manifest) if isinstance(answer, ImageIs) else answer


def _another_signature(answer: Message) -> Message:
    other = sign_image(secret(Kind.SIGNER, 2), Hub(archive(10)).manifest)
    return replace(answer, signatures=other) if isinstance(answer, ImageIs) else answer


def _noise_for_signatures(answer: Message) -> Message:
    return replace(answer, signatures=b"{}") if isinstance(answer, ImageIs) else answer


def _another_chunk(answer: Message) -> Message:
    return replace(answer, data=b"x" * CHUNK) if isinstance(answer, ChunkIs) else answer


def _short_chunk(answer: Message) -> Message:
    return replace(answer, data=answer.data[:-1]) if isinstance(answer, ChunkIs) else answer


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (_another_manifest, "not honest"),
        (_another_signature, "signatures"),
        (_noise_for_signatures, "signatures"),
        (_another_chunk, "wrong data"),
        (_short_chunk, "wrong data"),
    ],
)
def test_a_hub_that_sends_something_else_is_caught_and_nothing_is_kept(
    tmp_path: Path, lie: Callable[[Message], Message], said: str
) -> None:
    async def test(desk: Desk) -> None:
        desk.hub.spoil = lie
        news = await desk.need()
        assert isinstance(news, ImageMissing)
        assert (news.image, news.reason) == (desk.hub.image, "image")
        assert said in news.detail
        assert not desk.store().list()

    play(tmp_path, test)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("ImageRefused", "image"), ("PermissionDenied", "image"), ("InternalError", "failed")],
)
def test_a_hub_that_does_not_have_it(tmp_path: Path, kind: str, reason: str) -> None:
    async def test(desk: Desk) -> None:
        desk.hub.spoil = lambda answer: Fault(kind, "no such image", answer.request)  # type: ignore[attr-defined]
        assert await desk.need() == ImageMissing(desk.hub.image, reason, "no such image")

    play(tmp_path, test)


def test_a_hub_that_has_lost_a_chunk(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        def spoil(answer: Message) -> Message:
            lost = isinstance(answer, ChunkIs)
            return Fault("ImageRefused", "damaged", answer.request) if lost else answer  # type: ignore[attr-defined]

        desk.hub.spoil = spoil
        news = await desk.need()
        assert isinstance(news, ImageMissing)
        assert news.reason == "failed"
        assert "no source is left" in news.detail

    play(tmp_path, test)


@pytest.mark.parametrize("at", [AskImage, AskChunk])
def test_a_hub_that_has_too_much_to_do_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: type[Message]
) -> None:
    monkeypatch.setattr(provider_fetch, "LATER", 0.001)

    async def test(desk: Desk) -> None:
        hub = desk.hub
        refused = 0

        def spoil(answer: Message) -> Message:
            nonlocal refused
            if isinstance(hub.asked[-1], at) and refused < 5:
                refused += 1
                return Fault("MailboxFull", "later", answer.request)  # type: ignore[attr-defined]
            return answer

        hub.spoil = spoil
        assert isinstance(await desk.need(), ImageHere)
        assert refused == 5
        await asyncio.sleep(0.01)
        assert len(hub.asked) == 1 + len(hub.chunks) + refused, "no question more than it takes"

    play(tmp_path, test)


def test_a_hub_that_never_has_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_fetch, "LATER", 0.001)
    monkeypatch.setattr(provider_fetch, "ANSWER_WITHIN", 0.05)

    async def test(desk: Desk) -> None:
        desk.hub.spoil = lambda answer: Fault("MailboxFull", "no room", answer.request)  # type: ignore[attr-defined]
        news = await desk.need()
        assert isinstance(news, ImageMissing)
        assert news.reason == "failed"
        assert news.detail.endswith("no room")

    play(tmp_path, test)


def test_a_hub_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_fetch, "ANSWER_WITHIN", 0.01)

    async def test(desk: Desk) -> None:
        desk.hub.spoil = lambda answer: None
        news = await desk.need()
        assert isinstance(news, ImageMissing)
        assert news.reason == "failed"

    play(tmp_path, test)


@pytest.mark.parametrize("at", [AskImage, AskChunk])
def test_a_link_that_breaks_costs_only_what_was_under_way(
    tmp_path: Path, at: type[Message]
) -> None:
    async def test(desk: Desk) -> None:
        hub = desk.hub
        count = 0

        def spoil(answer: Message) -> Message | None:
            nonlocal count
            asked = hub.asked[-1]
            count += isinstance(asked, AskChunk)
            if isinstance(asked, at) and (at is AskImage or count > 1):
                asyncio.get_running_loop().call_soon(desk.images.hub_lost)
                return None
            return answer

        hub.spoil = spoil
        news = await desk.need()
        assert isinstance(news, ImageMissing)
        assert news.reason == "link_lost"
        hub.spoil = lambda answer: answer
        hub.asked.clear()
        assert isinstance(await desk.need(), ImageMissing), "there is no link"
        desk.images.hub_up()
        assert isinstance(await desk.need(), ImageHere)
        if at is AskChunk:
            assert len(hub.chunks_asked()) == len(hub.chunks) - 1

    play(tmp_path, test)


def test_only_answers_to_its_own_questions_are_taken(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        images = desk.images
        assert not images.heard(Ping(1))
        assert not images.heard(Fault("ProtocolError", "what?"))
        assert not images.heard(ChunkIs(7, b""))
        assert isinstance(await desk.need(), ImageHere)
        assert not images.heard(ImageIs(1, b""))

    play(tmp_path, test)


def test_a_store_that_cannot_be_written_is_not_the_images_fault(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file")

    async def test(desk: Desk) -> None:
        news = await desk.need()
        assert isinstance(news, ImageMissing)
        assert news.reason == "failed"

    play(tmp_path, test)


# --- unpacking ------------------------------------------------------------------------------------


def test_the_image_is_kept_while_a_worker_uses_it_and_its_directory_goes_with_it(
    tmp_path: Path,
) -> None:
    async def test(desk: Desk) -> None:
        await desk.need()
        await desk.prepare("w-1")
        await desk.prepare("w-2")
        store = desk.store()
        for worker in ("w-1", "w-2"):
            with pytest.raises(Exception, match="in use"):
                store.remove(desk.hub.image)
            desk.images.carry_out(RemoveRoot(worker, desk.hub.image))
            await desk.settled()
            assert not (tmp_path / "roots" / worker).exists()
        store.remove(desk.hub.image)

    play(tmp_path, test)


def test_a_worker_that_ends_while_its_image_is_unpacked_leaves_nothing(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.need()
        desk.images.carry_out(PrepareRoot("w-1", desk.hub.image))
        desk.images.carry_out(RemoveRoot("w-1", desk.hub.image))
        await desk.settled()
        assert list((tmp_path / "roots").iterdir()) == []
        desk.store().remove(desk.hub.image)

    play(tmp_path, test)


def test_an_image_that_was_removed_meanwhile_is_gone(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.need()
        desk.store().remove(desk.hub.image)
        news = await desk.prepare()
        assert isinstance(news, RootFailed)
        assert (news.worker, news.reason) == ("w-1", "gone")

    play(tmp_path, test)


def test_an_archive_that_may_not_be_unpacked_is_refused(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        assert isinstance(await desk.need(), ImageHere)
        news = await desk.prepare()
        assert isinstance(news, RootFailed)
        assert news.reason == "image"
        assert not (tmp_path / "roots" / "w-1").exists()
        desk.store().remove(desk.hub.image)

    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as tar:
        info = tarfile.TarInfo("../../outside")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    play(tmp_path, test, Hub(held.getvalue()))
    assert not (tmp_path / "outside").exists()


def test_the_end_of_the_provider_removes_all_directories(tmp_path: Path) -> None:
    async def test(desk: Desk) -> None:
        await desk.need()
        await desk.prepare()

    play(tmp_path, test)
    assert not (tmp_path / "roots").exists()
    store = ImageStore(tmp_path / "images", quota=2**40, now=lambda: 0.0)
    (image,) = store.list()
    assert image.signers == {public(Kind.SIGNER).text}
    store.remove(image.id)


def test_a_tree_that_is_closed_even_to_its_owner_can_be_removed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    deep = tmp_path / "tree" / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (deep / "link").symlink_to(outside)
    for directory in (deep, deep.parent, deep.parent.parent):
        directory.chmod(0)
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert outside.stat().st_mode & 0o777 == 0o755
    remove_tree(tmp_path / "tree")
