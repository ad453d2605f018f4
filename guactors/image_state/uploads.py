"""Uploads at the hub: offer, chunks, seal.

Owns: the uploads that are open, by whom, and which chunks each still owes. Must never: accept a
chunk of what was not offered, or count as sent what somebody else sent.

Who may do everything is asked only for what is not on the disk. Anybody else is asked for each
chunk that did not come from it before, even if the hub has it from others: it shows that way that
it has the content, and learns nothing of what others store here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from guactors import messages as m
from guactors.errors import GuactorsError, ImageRefused, UsageError
from guactors.image_state.desk import UPLOAD, ImageDesk, Steps, asked_image
from guactors.image_state.jobs import AddSignatures, Close, Examine, Examined, Open, Put, Seal
from guactors.images.manifest import Blob, Manifest, image_id
from guactors.scheduling.events import ImagesAsked, Standing

MOST_OPEN: Final = 4
"""Uploads of one peer that are open at a time."""
IDLE: Final = 60.0
"""Seconds without a word after which an upload makes way for another one of the same peer."""
CLOSE_AFTER: Final = 600.0
"""Seconds without a word after which an upload is closed. What came is kept, see ``Ledger``."""
SAVE_EVERY: Final = 2.0
"""Seconds between two times that the list of sent chunks is saved, while they come."""


@dataclass(slots=True)
class Upload:
    """``need``: chunks still to come; ``sent``: those that came from the principal, as bits;
    ``peers``: when each of its processes last said something; ``busy``: jobs under way."""

    principal: str
    image: str
    standing: Standing
    manifest: Manifest
    data: bytes
    signatures: bytes
    size: int
    blobs: dict[str, Blob]
    need: dict[str, set[int]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    peers: dict[str, float] = field(default_factory=dict)
    busy: int = 0

    @property
    def touched(self) -> float:
        """When somebody last said something."""
        return max(self.peers.values())


class Uploads:
    """The rules; each question is answered by steps."""

    def __init__(self, desk: ImageDesk) -> None:
        self._desk = desk
        self._open: dict[tuple[str, str], Upload] = {}
        self._of_peer: dict[tuple[str, str], Upload] = {}
        self._dirty: set[tuple[str, str]] = set()
        self._save_at: float | None = None

    # --- questions ------------------------------------------------------------------------------

    def offer(self, asked: ImagesAsked) -> Steps:
        """OfferImage."""
        message, standing, desk = asked.message, asked.standing, self._desk
        assert isinstance(message, m.OfferImage)
        desk.check_right(standing, image_id(message.manifest))
        found: Examined = yield Examine(message.manifest, message.signatures)
        image, principal = found.image, standing.principal
        if found.there is not None and desk.sees(standing, image, found.there):
            mine = standing.rights.everything or principal in desk.ledger.uploaders(image)
            if mine and desk.counted(found.signers) - found.there:
                yield AddSignatures(image, message.signatures)
                return m.Done(message.request, f"{image} is here already, its signers are noted")
            return m.Done(message.request, f"{image} is here already")
        size = found.manifest.size + len(message.manifest) + len(message.signatures)
        desk.check_upload(standing, image, size)
        self._make_way(asked.peer, image, principal)
        blobs = {blob.sha3_256: blob for blob in found.manifest.blobs}
        new = desk.ledger.begin(principal, image, size, blobs, desk.wall)
        try:
            missing: dict[str, list[int]] = yield Open(found.manifest)
        except GuactorsError:
            if new:
                desk.ledger.abandon(principal, image)
            raise
        upload = self._open.get((principal, image))
        if upload is None:
            upload = Upload(
                principal, image, standing, found.manifest, message.manifest, message.signatures,
                size, blobs, sent=desk.ledger.sent(principal, image),
            )  # fmt: skip
            self._open[principal, image] = upload
        upload.standing, upload.signatures = standing, message.signatures or upload.signatures
        upload.peers[asked.peer] = desk.now
        upload.need = self._owed(upload, missing)
        self._of_peer[asked.peer, image] = upload
        yield desk.save()
        chunks = [m.ChunkList(name, sorted(need)) for name, need in upload.need.items() if need]
        return m.WantChunks(message.request, image, chunks)

    def put(self, asked: ImagesAsked) -> Steps:
        """PutChunk."""
        message, desk = asked.message, self._desk
        assert isinstance(message, m.PutChunk)
        upload = self._upload(asked, message.image)
        desk.check_right(upload.standing, upload.image)
        blob = upload.blobs.get(message.blob)
        if blob is None:
            raise UsageError(f"the image {upload.image} has no blob {message.blob}")
        upload.busy += 1
        try:
            yield Put(blob, message.index, message.data)
        finally:
            upload.busy -= 1
        if self._is_open(upload):
            upload.need[message.blob].discard(message.index)
            upload.sent[message.blob] = upload.sent.get(message.blob, 0) | 1 << message.index
            self._note(upload)
        return m.Done(message.request)

    def seal(self, asked: ImagesAsked) -> Steps:
        """SealImage."""
        message, desk = asked.message, self._desk
        assert isinstance(message, m.SealImage)
        upload = self._upload(asked, message.image)
        desk.check_upload(upload.standing, upload.image, upload.size)
        for name, need in upload.need.items():
            if need:
                raise ImageRefused(
                    f"the image {upload.image} is incomplete: {len(need)} chunks of its blob "
                    f"{name} are missing, the first is {min(need)}; offer it again to hear of all"
                )
        ledger, principal, image = desk.ledger, upload.principal, upload.image
        before = principal in ledger.uploaders(image)
        ledger.claim(principal, image, desk.wall)
        upload.busy += 1
        try:
            # First whose it is: a hub that is killed in between must not have an image of nobody.
            yield desk.save()
            yield Seal(upload.manifest, upload.data, upload.signatures)
        except GuactorsError:
            if not before:
                ledger.disclaim(principal, image)
            raise
        finally:
            upload.busy -= 1
        ledger.confirm(principal, image)
        if self._is_open(upload):
            self._close(upload)
        desk.tell(upload.standing, UPLOAD, image)
        yield desk.save()
        return m.Done(message.request, f"{image} is stored")

    # --- what is open ---------------------------------------------------------------------------

    def _upload(self, asked: ImagesAsked, text: str) -> Upload:
        """The upload that a chunk or a seal is for. Only an offer carries the token of whoever is
        behind a web server, so its standing counts until the next one."""
        image = asked_image(text)
        upload = self._of_peer.get((asked.peer, image))
        if upload is None:
            raise UsageError(f"no upload of the image {image} is open: offer the image first")
        standing = asked.standing
        if standing.principal == upload.principal and standing is not upload.standing:
            # Its rights are others: what they leave counts from here on.
            self._desk.check_upload(standing, image, upload.size)
            upload.standing = standing
        upload.peers[asked.peer] = self._desk.now
        return upload

    def _is_open(self, upload: Upload) -> bool:
        """Another process of its principal may have sealed it meanwhile."""
        return self._open.get((upload.principal, upload.image)) is upload

    def _owed(self, upload: Upload, missing: Mapping[str, list[int]]) -> dict[str, set[int]]:
        """The chunks that must come: those not on the disk, and those not sent by this principal,
        unless it may do everything or has uploaded the blob with another image."""
        owed = {name: set(missing[name]) for name in upload.blobs}
        if upload.standing.rights.everything:
            return owed
        own = self._desk.ledger.blobs_of(upload.principal)
        for name in upload.blobs.keys() - own:
            sent = upload.sent.get(name, 0)
            count = len(upload.blobs[name].chunks)
            owed[name] |= {index for index in range(count) if not sent >> index & 1}
        return owed

    def _make_way(self, peer: str, image: str, principal: str) -> None:
        """Refuse one upload too many, unless another one of the peer is idle; and a second one of
        the same image for somebody else, whose chunks could not be told apart."""
        now = self._desk.now
        other = self._of_peer.get((peer, image))
        if other is not None and other.principal != principal:
            if other.busy or now - other.peers[peer] < IDLE:
                raise UsageError(
                    f"the image {image} is being uploaded by this process for somebody else: try "
                    "again later"
                )
            self._leave(peer, other)
        open_here = [u for (p, i), u in self._of_peer.items() if p == peer and i != image]
        if len(open_here) < MOST_OPEN:
            return
        idlest = min(open_here, key=lambda upload: upload.peers[peer])
        if idlest.busy or now - idlest.peers[peer] < IDLE:
            raise UsageError(f"{MOST_OPEN} uploads are open already: seal one of them first")
        self._leave(peer, idlest)

    def _leave(self, peer: str, upload: Upload) -> None:
        """The peer goes on with it no more; another process of its principal may."""
        del self._of_peer[peer, upload.image]
        if len(upload.peers) == 1:
            self._close(upload)
        else:
            del upload.peers[peer]

    def _close(self, upload: Upload) -> None:
        key = upload.principal, upload.image
        if key in self._dirty:
            self._dirty.discard(key)
            self._desk.ledger.keep_sent(*key, upload.sent, self._desk.wall)
        del self._open[key]
        for peer in upload.peers:
            self._of_peer.pop((peer, upload.image), None)
        others = {name for one in self._open.values() for name in one.blobs}
        blobs = sorted(upload.blobs.keys() - others)
        if blobs:
            self._desk.chores.append(Close(blobs))

    # --- time -----------------------------------------------------------------------------------

    def _note(self, upload: Upload) -> None:
        self._dirty.add((upload.principal, upload.image))
        if self._save_at is None:
            self._save_at = self._desk.now + SAVE_EVERY

    def on_tick(self) -> None:
        """Close what is idle, save what came."""
        now = self._desk.now
        idle = [u for u in self._open.values() if not u.busy and now >= u.touched + CLOSE_AFTER]
        for upload in idle:
            self._close(upload)
        if idle or (self._save_at is not None and now >= self._save_at):
            self.keep_sent()
            self._desk.chores.append(self._desk.save())

    def keep_sent(self) -> None:
        """Have the list know which chunks came."""
        for key in self._dirty:
            self._desk.ledger.keep_sent(*key, self._open[key].sent, self._desk.wall)
        self._dirty.clear()
        self._save_at = None

    def wakes(self) -> Iterator[float]:
        """When ``on_tick`` has something to do."""
        if self._save_at is not None:
            yield self._save_at
        yield from (u.touched + CLOSE_AFTER for u in self._open.values() if not u.busy)

    def busy(self) -> set[tuple[str, str]]:
        """Principals and images of open uploads."""
        return set(self._open)

    def check(self) -> None:
        """Every invariant holds."""
        for (peer, image), upload in self._of_peer.items():
            assert image == upload.image
            assert peer in upload.peers
            assert self._open[upload.principal, image] is upload
        for upload in self._open.values():
            assert upload.peers
            assert all((peer, upload.image) in self._of_peer for peer in upload.peers)
            assert upload.need.keys() == upload.blobs.keys()
        assert self._dirty <= self._open.keys()
