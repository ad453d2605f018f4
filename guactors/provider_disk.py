"""What a provider keeps on its disk: images, and environments made of archives and packages.

Owns: the two stores together, as the provider's shell sees them. Must never: decide what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from guactors import provider_envs, provider_images
from guactors.config import ProviderConfig
from guactors.messages import Message
from guactors.provider_envs import EnvDisk, EnvNews, PartBuilt, PartFailed
from guactors.provider_images import Images
from guactors.provider_images import News as ImageNews
from guactors.provider_state import (
    BuildPart,
    Effect,
    NeedImage,
    PrepareRoot,
    ProviderCore,
    RemovePart,
    RemoveRoot,
)

DiskNews = ImageNews | EnvNews
"""What came of an effect that was carried out."""


class Disk:
    """``send``: to the hub; ``tell`` gets DiskNews, on the loop."""

    def __init__(
        self, config: ProviderConfig, send: Callable[[Message], None], tell: Callable[..., None]
    ) -> None:
        place = Path(config.data or config.run_dir)
        self.images = Images(place / "images", Path(config.run_dir) / "roots", send, tell)
        self._envs = EnvDisk(place / "envs", config.name, self.images, tell)

    def carry_out(
        self, effect: NeedImage | PrepareRoot | RemoveRoot | BuildPart | RemovePart
    ) -> None:
        """See the effects."""
        if isinstance(effect, BuildPart | RemovePart):
            self._envs.carry_out(effect)
        else:
            self.images.carry_out(effect)

    def close(self) -> None:
        """No worker is left. Blocks while directories are removed."""
        self._envs.close()
        self.images.close()


def tell_core(core: ProviderCore, news: DiskNews, now: float) -> Sequence[Effect]:
    """Hand it to the event it is."""
    if isinstance(news, PartBuilt | PartFailed):
        return provider_envs.tell_core(core, news, now)
    return provider_images.tell_core(core, news, now)
