"""The words of grants that options and commands know as well.

Owns: these lists. Must never: import anything but the standard library's smallest; the caller's
start-up waits for it.
"""

from __future__ import annotations

import re
from typing import Final

RUNTIMES: Final = ("python", "native", "docker", "qemu", "firecracker")
PREEMPTION: Final = ("suspend", "requeue", "stop", "checkpoint")
"""How work may be made to give way to other work, as grants say it."""
GIVING_WAY: Final = ("suspend", "checkpoint", "requeue", "stop")
"""Of these, what there is."""
NEVER: Final = "never"
"""What its owner says of work that never gives way."""

_DRIVER: Final = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_IMAGE_ID: Final = re.compile(r"sha3-256:[0-9a-f]{64}", re.ASCII)


def is_runtime(text: str) -> bool:
    """Whether it can be the name of a runtime, ours or that of somebody's driver."""
    return _DRIVER.fullmatch(text) is not None


def is_image_id(text: str) -> bool:
    """Whether it is the id of an image in its normal form."""
    return _IMAGE_ID.fullmatch(text) is not None
