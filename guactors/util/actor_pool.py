"""Ray's ``ray.util.actor_pool``.

Owns: nothing.
"""

from __future__ import annotations

from guactors.integrations.actor_pool import ActorPool

__all__ = ["ActorPool"]
