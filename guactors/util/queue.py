"""Ray's ``ray.util.queue``.

Owns: nothing.
"""

from __future__ import annotations

from guactors.integrations.queue import Empty, Full, Queue

__all__ = ["Empty", "Full", "Queue"]
