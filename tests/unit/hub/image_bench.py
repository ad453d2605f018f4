"""The image room with a disk in memory, on which chunks are words."""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

from guactors import messages as m
from guactors.errors import GuactorsError, ImageRefused
from guactors.image_state import ImageRoom, jobs
from guactors.images.manifest import Blob, Manifest, encode_manifest, image_id, parse_manifest
from guactors.scheduling import events as e
from guactors.security.grants import Grant, Quotas
from guactors.security.keys import Kind
from guactors.security.rights import rights_of
from tests.unit.images.making import fake_blob, manifest_of
from tests.unit.security.grant_samples import NOW, OTHER_SIGNER, SIGNER, grant, wide
from tests.unit.security.samples import public

M = TypeVar("M", bound=m.Message)

CHUNK = 4 << 20
APP, OTHER, THIRD = (public(Kind.APP, number).text for number in (1, 2, 3))
LOCAL = e.Standing()
OWNER = e.Standing(public(Kind.OWNER).text, "owner", "anna")
PROVIDER = e.Standing(
    public(Kind.PROVIDER).text, "provider", "box", rights_of(public(Kind.PROVIDER).text, [])
)


def app(*grants: Grant, key: str = APP) -> e.Standing:
    return e.Standing(key, "app", "tester", rights_of(key, grants))


def uploads(storage: Any = "*", *, key: str = APP, **fields: Any) -> Grant:
    return grant(app=key, actions=["upload_images"], quotas=Quotas(storage=storage), **fields)


UPLOADER = app(uploads())
OTHER_UPLOADER = app(uploads(key=OTHER), key=OTHER)
GUEST = app(key=OTHER)


def runs(key: str = OTHER, **fields: Any) -> e.Standing:
    """May run what ``fields`` say, and upload nothing."""
    narrow: dict[str, Any] = {"image_hashes": [], "image_signers": []}
    return app(wide(app=key, **{**narrow, **fields}), key=key)


class Image:
    """``signers`` stand in the signature file as they are, which the disk here believes."""

    def __init__(
        self, chunks: int = 2, seed: int = 0, *, signers: str = "", name: str = ""
    ) -> None:
        self.blob = fake_blob((chunks - 1) * CHUNK + 10, seed=seed)
        self.manifest: Manifest = manifest_of(self.blob, name=name or f"image-{seed}")
        self.data = encode_manifest(self.manifest)
        self.id = image_id(self.data)
        self.signatures = signers.encode()

    def offer(self, request: int = 1) -> m.OfferImage:
        return m.OfferImage(request, self.data, self.signatures)

    def put(self, index: int, request: int = 2, data: bytes | None = None) -> m.PutChunk:
        right = content(self.blob, index) if data is None else data
        return m.PutChunk(request, self.id, self.blob.sha3_256, index, right)

    def seal(self, request: int = 3) -> m.SealImage:
        return m.SealImage(request, self.id)

    def ask(self, index: int, request: int = 4) -> m.AskChunk:
        return m.AskChunk(request, self.id, self.blob.sha3_256, index)


def content(blob: Blob, index: int) -> bytes:
    return f"{blob.sha3_256[:8]}/{index}".encode()


class Disk:
    """What ``images.serving`` does, without a disk. ``broken``: kinds of jobs that fail."""

    def __init__(self) -> None:
        self.images: dict[str, tuple[bytes, bytes]] = {}
        self.sealed: set[str] = set()
        self.partial: dict[str, set[int]] = {}
        self.open: set[str] = set()
        self.uploads = b""
        self.broken: dict[type[jobs.Job], GuactorsError] = {}
        self.pinned: set[str] = set()
        self.swept = 0
        self.used: dict[str, float] = {}

    def do(self, job: jobs.Job) -> Any:
        if type(job) in self.broken:
            return self.broken[type(job)]
        try:
            return self._do(job)
        except GuactorsError as error:
            return error

    def _do(self, job: jobs.Job) -> Any:
        match job:
            case jobs.Load():
                return jobs.Loaded(self.uploads, list(self.images))
            case jobs.Save(uploads=uploads):
                self.uploads = uploads
            case jobs.Examine(manifest, signatures):
                image = image_id(manifest)
                there = signers(self.images[image][1]) if image in self.images else None
                return jobs.Examined(image, parse_manifest(manifest), signers(signatures), there)
            case jobs.Open(manifest):
                return {blob.sha3_256: self._begin(blob) for blob in manifest.blobs}
            case jobs.Put(blob, index, data):
                if index >= len(blob.chunks) or data != content(blob, index):
                    raise ImageRefused("a wrong chunk")
                if blob.sha3_256 not in self.sealed:
                    self.partial[blob.sha3_256].add(index)
            case jobs.Seal(manifest, data, signatures):
                for blob in manifest.blobs:
                    if self._begin(blob):
                        raise ImageRefused("incomplete")
                    self.sealed.add(blob.sha3_256)
                    self.partial.pop(blob.sha3_256, None)
                self.images[image_id(data)] = data, signatures
            case jobs.AddSignatures(image, signatures):
                data, before = self.images[image]
                self.images[image] = data, before + b" " + signatures
            case jobs.Close(blobs):
                self.open -= set(blobs)
            case _:
                return self._do_other(job)
        return None

    def _do_other(self, job: jobs.Job) -> Any:
        match job:
            case jobs.Look(image):
                if image not in self.images:
                    return None
                data, signatures = self._image(image)
                return jobs.Looked(parse_manifest(data), data, signatures, signers(signatures))
            case jobs.ListAll():
                return [
                    _facts(one, *both, used=self.used.get(one, 1.0))
                    for one, both in self.images.items()
                ]
            case jobs.Read(image, blob, index):
                self._image(image)
                self.pinned.add(image)
                return content(blob, index)
            case jobs.LetGo(image):
                self.pinned.discard(image)
            case jobs.Remove(image):
                if image in self.pinned:
                    raise ImageRefused("in use")
                if image not in self.images:
                    return False
                data, _ = self.images.pop(image)
                self.sealed -= {blob.sha3_256 for blob in parse_manifest(data).blobs}
                return True
            case jobs.Breathe():
                pass
            case jobs.Sweep():
                self.swept += 1
            case _:
                raise AssertionError(job)
        return None

    def _begin(self, blob: Blob) -> list[int]:
        name = blob.sha3_256
        if name in self.sealed:
            return []
        self.open.add(name)
        there = self.partial.setdefault(name, set())
        return [index for index in range(len(blob.chunks)) if index not in there]

    def _image(self, image: str) -> tuple[bytes, bytes]:
        if image not in self.images:
            raise ImageRefused(f"the image {image} is not in this store")
        return self.images[image]


def signers(signatures: bytes) -> frozenset[str]:
    names = {"one": SIGNER, "two": OTHER_SIGNER}
    return frozenset(names[word] for word in signatures.decode().split())


def _facts(image: str, data: bytes, signatures: bytes, *, used: float) -> jobs.Facts:
    manifest = parse_manifest(data)
    created = manifest.created
    return jobs.Facts(image, manifest.name, manifest.size, created, signers(signatures), used)


class Bench:
    """``lazy``: jobs wait until ``work``; else they are done at once."""

    def __init__(self, disk: Disk | None = None, *, lazy: bool = False) -> None:
        self.disk = disk or Disk()
        self.room = ImageRoom(lambda now: NOW + now)
        self.now = 0.0
        self.lazy = lazy
        self.todo: deque[jobs.Do] = deque()
        self.answers: list[tuple[str, m.Message]] = []
        self.decisions: list[e.Decision] = []

    def say(self, peer: str, standing: e.Standing, message: m.Message) -> None:
        self._carry(self.room.handle(e.ImagesAsked(peer, standing, message), self.now))

    def ask(self, peer: str, standing: e.Standing, message: m.Message) -> m.Message:
        """Say it, and the answer."""
        self.say(peer, standing, message)
        self.work()
        (answer,) = self.answers_of(peer)
        return answer

    def fault(self, peer: str, standing: e.Standing, message: m.Message) -> m.Fault:
        answer = self.ask(peer, standing, message)
        assert isinstance(answer, m.Fault), answer
        assert answer.request == getattr(message, "request", 0)
        return answer

    def answers_of(self, peer: str) -> list[m.Message]:
        """Those that came since the last time."""
        found = [message for one, message in self.answers if one == peer]
        self.answers = [both for both in self.answers if both[0] != peer]
        return found

    def work(self, most: int = 1000, at: int = 0) -> None:
        """Do ``most`` jobs, those first that are at that place of the line."""
        while self.todo and most:
            most -= 1
            self.todo.rotate(-(at % len(self.todo)))
            todo = self.todo.popleft()
            outcome = self.disk.do(todo.job)
            self._carry(self.room.handle(jobs.Did(todo.ticket, outcome), self.now))

    def revoke(self, *keys: str) -> None:
        """Keys of anybody, of signers too."""
        event = e.RevocationsAre(m.Revoked(1, list(keys), [], [], "stop"))
        self._carry(self.room.handle(event, self.now))

    def upload(self, peer: str, standing: e.Standing, image: Image) -> None:
        wanted = self.ask(peer, standing, image.offer())
        assert isinstance(wanted, m.WantChunks), wanted
        for part in wanted.missing:
            for index in part.chunks:
                assert isinstance(self.ask(peer, standing, image.put(index)), m.Done)
        assert isinstance(self.ask(peer, standing, image.seal()), m.Done)

    def wanted(self, peer: str, standing: e.Standing, image: Image) -> list[int]:
        """What the hub asks for when the image is offered."""
        answer = self.ask(peer, standing, image.offer())
        assert isinstance(answer, m.WantChunks), answer
        return [index for part in answer.missing for index in part.chunks]

    def listed(self, peer: str, standing: e.Standing) -> set[str]:
        answer = self.ask(peer, standing, m.AskImages(9))
        assert isinstance(answer, m.ImageList)
        return {row.image for row in answer.images}

    def pass_time(self, seconds: float) -> None:
        """Ring the alarm as often as the room wants."""
        until = self.now + seconds
        for _ in range(10_000):
            wake = self.room.next_wake(self.now)
            if wake is None or wake > until:
                self.now = until
                return
            self.now = max(self.now, wake)
            self._carry(self.room.on_tick(self.now))
            self.work()
        raise AssertionError("the room wakes for ever")

    def restart(self) -> Bench:
        """The hub is killed, and another one comes."""
        other = Bench(self.disk, lazy=self.lazy)
        other.now = self.now
        self.disk.open.clear()
        self.disk.pinned.clear()
        return other

    def _carry(self, effects: list[e.Effect]) -> None:
        for effect in effects:
            match effect:
                case jobs.Do():
                    self.todo.append(effect)
                case e.ToPeer(peer, message):
                    self.answers.append((peer, message))
                case e.ToRoom(e.RoomName.GATEKEEPER, e.Decided(decision)):
                    self.decisions.append(decision)
                case _:
                    raise AssertionError(effect)
        self.room.check()
        if not self.lazy:
            self.work()
