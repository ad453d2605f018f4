"""Ray's ``ray.util.check_serialize``.

Owns: nothing.
"""

from __future__ import annotations

from guactors.integrations.serializability import FailureTuple, inspect_serializability

__all__ = ["FailureTuple", "inspect_serializability"]
