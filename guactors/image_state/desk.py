"""What all rules about images at the hub share: the list of uploads, and who may do what.

Owns: the judging of a peer's standing for images, the signers that were revoked, the sentences of
refusals. Must never: touch the disk, tell somebody that there is an image which he may not use, or
count a signature by a key that was revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable
from typing import Any, Final, TypeAlias

from guactors.errors import ImageRefused, PermissionDenied
from guactors.image_state.jobs import Job, Save
from guactors.image_state.ledger import Ledger
from guactors.images.manifest import RUNTIMES, parse_image_id
from guactors.messages import Message
from guactors.scheduling.events import Decision, Standing
from guactors.security.rights import Reason, Work

UPLOAD: Final = "upload"
DOWNLOAD: Final = "download"
REMOVE: Final = "remove"

Steps: TypeAlias = Generator[Job, Any, Message]
"""The way to an answer: yields jobs, is sent their outcomes, and returns the message. Refuses by
raising ImageRefused, PermissionDenied or UsageError."""


class ImageDesk:
    """``wall`` turns ``now``, set before each step, into epoch seconds, in which grants count.

    ``told``: decisions for the audit log; ``chores``: jobs that nobody waits for. The room takes
    both after each step."""

    def __init__(self, wall: Callable[[float], float]) -> None:
        self.ledger = Ledger()
        self.now = 0.0
        self.told: list[Decision] = []
        self.chores: list[Job] = []
        self._wall = wall
        self._saves = 0
        self._revoked: frozenset[str] = frozenset()

    @property
    def wall(self) -> float:
        """The time in epoch seconds."""
        return self._wall(self.now)

    def save(self) -> Save:
        """The job that keeps the list as it is at this moment."""
        self._saves += 1
        return Save(self._saves, self.ledger.encode())

    # --- judging --------------------------------------------------------------------------------

    def revoke(self, keys: Iterable[str]) -> None:
        """Signatures by these keys count no more, also where a later list leaves them out."""
        self._revoked |= frozenset(keys)

    def counted(self, signers: Collection[str]) -> frozenset[str]:
        """Those signers whose signatures count."""
        return frozenset(signers) - self._revoked

    def sees(self, standing: Standing, image: str, signers: Collection[str]) -> bool:
        """Whether it may know of the image: it may do everything, or uploaded the image, or could
        run it in some runtime."""
        if standing.rights.everything or standing.principal in self.ledger.uploaders(image):
            return True
        by = self.counted(signers)
        return any(
            standing.rights.judge_work(Work(runtime, image, by), self.wall).allowed
            for runtime in RUNTIMES
        )

    def check_fetch(self, standing: Standing, image: str, signers: Collection[str]) -> None:
        """Refuse unless it may have the image. Providers may have all: they judge by themselves
        what they run."""
        if standing.kind == "provider" or self.sees(standing, image, signers):
            return
        by = self.counted(signers)
        verdict = standing.rights.judge_work(Work("native", image, by), self.wall)
        self.tell(standing, DOWNLOAD, image, verdict.reason, verdict.detail)
        raise unknown(image)

    def check_right(self, standing: Standing, image: str) -> None:
        """Refuse unless it may upload images at this moment."""
        verdict = standing.rights.may("upload_images", self.wall)
        if not verdict.allowed:
            raise self.refuse(standing, UPLOAD, image, verdict.reason, verdict.detail)

    def check_upload(self, standing: Standing, image: str, size: int) -> None:
        """Refuse unless it may upload the image, and has room for ``size`` bytes."""
        self.check_right(standing, image)
        if standing.rights.everything:
            return
        used = self.ledger.used(standing.principal, but=image)
        left = standing.rights.storage_left(used, self.wall)
        if left is not None and size > left:
            detail = (
                f"{size} bytes of images are more than the {left} that the grants of "
                f"{standing.name or standing.principal} leave it, {used} are taken: remove images "
                "with gu image remove ID --hub, or ask the owner of the grid for a larger storage"
            )
            raise self.refuse(standing, UPLOAD, image, Reason.QUOTA, detail)

    # --- telling --------------------------------------------------------------------------------

    def refuse(
        self, standing: Standing, action: str, image: str, reason: Reason, detail: str
    ) -> PermissionDenied:
        """The error for something that rights do not allow, which goes into the audit log."""
        self.tell(standing, action, image, reason, detail)
        return PermissionDenied(detail)

    def tell(
        self,
        standing: Standing,
        action: str,
        image: str,
        reason: Reason = Reason.ALLOWED,
        detail: str = "",
    ) -> None:
        """Have a decision written into the audit log."""
        decision = "allowed" if reason is Reason.ALLOWED else "refused"
        self.told.append(
            Decision(standing.principal, action, image, decision, reason.value, detail)
        )


def unknown(image: str) -> ImageRefused:
    """The answer about an image that is not there, and about one that is none of the asker's
    business: they must read the same."""
    return ImageRefused(
        f"no such image: {image}; gu image list --hub shows those that you may use, and gu image "
        "push uploads one"
    )


def asked_image(text: str) -> str:
    """The id in a question. Raises UsageError for all else."""
    return parse_image_id(text)
