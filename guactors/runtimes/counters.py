"""Figures that the kernel keeps in files.

Owns: the reading of one. Must never: fail where there is no such file.
"""

from __future__ import annotations

from pathlib import Path


def counter(path: str, key: str) -> int | None:
    """A figure of a file of the kernel with ``KEY VALUE`` in each line, None where it has none."""
    try:
        text = Path(path).read_text()
    except OSError:
        return None
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.strip().isdigit():
            return int(value)
    return None
