"""The pickles of plain numpy arrays, whose bytes travel apart.

Owns: what such pickles have in common: they differ by type and shape only, so that one that was
made serves all alike. Must never: import numpy, for most programs have none.
"""

from __future__ import annotations

import pickle
from typing import Any, Final

MOST: Final = 256
"""Kinds of arrays that are remembered."""

_known: dict[tuple[Any, ...], bytes] = {}


def is_plain(value: Any) -> bool:
    """Whether it is an array, not of a subclass, whose items are no objects."""
    kind = type(value)
    return kind.__name__ == "ndarray" and kind.__module__ == "numpy" and not value.dtype.hasobject


def without_bytes(array: Any) -> bytes | None:
    """The pickle of a plain array, its bytes left out of it (``pickle.PickleBuffer(array)`` has
    them), or None for one whose pickle may say more."""
    dtype = array.dtype
    if dtype.isbuiltin != 1 or dtype.metadata is not None or not array.flags.c_contiguous:
        return None
    # A pickle says whether the bytes may be written to.
    kind = (dtype, array.shape, array.flags.writeable)
    found = _known.get(kind)
    if found is None:
        buffers: list[pickle.PickleBuffer] = []
        found = pickle.dumps(array, 5, buffer_callback=buffers.append)
        if len(_known) >= MOST:
            _known.clear()
        _known[kind] = found
    return found
