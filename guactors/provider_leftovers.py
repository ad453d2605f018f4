"""What an earlier process of this provider left on its machine, ended at the start.

Owns: one look at each runtime, before any instance is made, for all of one owner look alike. Must
never: end what is of a provider that lives, or keep this one waiting for a daemon that hangs.

Instances end with the processes that keep them, and those with the provider, also by ``kill -9``.
This is for what was killed together with the guardian that should have seen to it.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path
from typing import Final

from guactors.config import ProviderConfig
from guactors.errors import GuactorsError
from guactors.images.store import ImageStore

log = logging.getLogger("guactors.provider")


WITHIN: Final = 10.0
"""Seconds; a daemon that does not list what it has in this time makes nothing new either."""


def end_leftovers(config: ProviderConfig) -> None:
    """Blocks. Only for a provider with a key: others have another name each time."""
    if config.seal.key and config.runtimes:
        thread = threading.Thread(target=_end, args=(config,), name="leftovers", daemon=True)
        thread.start()
        thread.join(WITHIN)


def _end(config: ProviderConfig) -> None:
    from guactors.runtimes.choice import open_runtime

    def images() -> ImageStore:
        return ImageStore(Path(config.data), quota=sys.maxsize, now=time.time)

    for name in config.runtimes:
        try:
            runtime = open_runtime(name, images)
            try:
                ended = runtime.reap(config.owner)
            finally:
                runtime.close()
        except (GuactorsError, OSError) as error:
            log.warning("what is left of %s could not be looked at: %s", name, error)
            continue
        if ended:
            log.warning("an earlier provider left in %s, ended now: %s", name, ", ".join(ended))
