"""Ray's ``ray.util.joblib``.

Owns: nothing.
"""

from __future__ import annotations

from guactors.integrations.joblib import register

__all__ = ["register", "register_ray"]


def register_ray() -> None:
    """Make the grid joblib's backends ``"ray"`` and ``"guactors"``."""
    register("ray")
    register("guactors")
