"""The file in which a hub keeps its reservations for its successor.

Owns: its form, and its mode (0600). Must never: hold anything else, or judge what is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from guactors import home
from guactors.errors import UsageError
from guactors.messages import ReservationSpec

FILE: Final = "reservations.json"
"""In the hub's data directory."""


class ReservationFile:
    """In the directory ``data``; where that is empty everything is forgotten at the hub's end."""

    def __init__(self, data: str) -> None:
        self._path = Path(data) / FILE if data else None

    def load(self) -> list[ReservationSpec]:
        """What was kept last. Raises UsageError when the file is damaged."""
        if self._path is None or not self._path.exists():
            return []
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[ReservationSpec])
        except (msgspec.DecodeError, OSError) as error:
            raise UsageError(
                f"the reservations in {self._path} cannot be read ({error}): move the file away, "
                "and make them again"
            ) from None

    def keep(self, reservations: Sequence[ReservationSpec]) -> None:
        """These, and no others; on return they are safe."""
        if self._path is not None:
            home.private_directory(self._path.parent)
            home.write_private(self._path, msgspec.json.encode(reservations))
