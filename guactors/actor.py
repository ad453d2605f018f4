"""What Ray has in ``ray.actor``.

Owns: no code, only the names.
"""

from __future__ import annotations

from guactors.context import exit_actor
from guactors.remote_actor import ActorClass, ActorHandle, ActorMethod

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor"]
