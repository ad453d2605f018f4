"""A program of the owner's own, which says whether the machine is used.

Owns: what its exit status means. Must never: start it by itself (``run`` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from guactors.idle.base import Reading, Run

MOST_TEXT: Final = 200


class OwnCommand:
    """``argv`` ends with 0 where nobody uses the machine, with 1 where somebody does; what it then
    prints is shown. Any other end is a fault."""

    def __init__(self, argv: Sequence[str], run: Run) -> None:
        self._argv = argv
        self._run = run

    def read(self) -> Reading:
        """Run it."""
        try:
            ran = self._run(self._argv)
        except OSError as error:  # with TimeoutError
            return Reading(fault=f"{self._argv[0]}: {error}"[:MOST_TEXT])
        text = " ".join(ran.output.split())[:MOST_TEXT] or f"{self._argv[0]} says so"
        if ran.status in {0, 1}:
            return Reading(busy=ran.status == 1, text=text)
        return Reading(fault=f"{self._argv[0]} ended with status {ran.status}: {text}")
