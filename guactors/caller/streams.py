"""Streaming calls: the items that came, in order, once each.

Owns: per stream the ids of items nobody took yet. Must never: block (the generator in ``refs``
does).
"""

from __future__ import annotations

from collections import deque


class Stream:
    """``items``: object ids, each held once for whoever takes it. ``received`` counts over retries,
    so that a retried producer's repeated items are dropped. ``finished``: the end is known;
    ``told``: its error was handed out."""

    __slots__ = ("finished", "items", "received", "told")

    def __init__(self) -> None:
        self.items: deque[int] = deque()
        self.received = 0
        self.finished = False
        self.told = False
