"""Marks what user code prints with the name of what runs.

Owns: the marker ``\\x1e<name>\\x1f``, written before the first text after the name changed; the
provider strips it and tells the caller the name. Must never: change the text itself.
"""

from __future__ import annotations

import sys
from typing import Any, TextIO

from guactors.context import running


class NamedStream:
    """A text stream that says who writes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def write(self, text: str) -> int:
        call = running.get()
        name = call.name if call is not None else ""
        if name != self._last:
            self._last = name
            text = f"\x1e{name}\x1f{text}"
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def name_streams() -> None:
    """Wrap both standard streams."""
    sys.stdout = NamedStream(sys.stdout)
    sys.stderr = NamedStream(sys.stderr)
