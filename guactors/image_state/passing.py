"""Archives of the files of sessions, which are images in form but nobody names or removes.

Owns: when they go. Must never: remove an image that somebody pushed, or an archive in use.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from guactors.errors import ImageRefused
from guactors.image_state.desk import ImageDesk
from guactors.image_state.jobs import Facts, Job, ListAll, Remove
from guactors.runtime_env.description import ARCHIVE

UNUSED: Final = 7 * 24 * 3600.0
"""Seconds without a fetch after which one is removed."""


def sweep_passing(desk: ImageDesk) -> Generator[Job, Any, None]:
    """Steps that remove those unused for too long."""
    found: list[Facts] = yield ListAll()
    before = desk.wall - UNUSED
    gone = False
    for facts in found:
        if facts.name != ARCHIVE or facts.last_used >= before:
            continue
        try:
            yield Remove(facts.image)
        except ImageRefused:
            # It is being fetched, after all.
            continue
        desk.ledger.forget(facts.image)
        gone = True
    if gone:
        yield desk.save()
