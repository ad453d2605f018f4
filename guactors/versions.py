"""What this process is made of, as it introduces itself to every peer.

Owns: reading the versions. Must never: judge whether two processes fit together (the hub does).
"""

from __future__ import annotations

import platform

import cloudpickle

from guactors.messages import Versions

VERSION = "0.1.0"


def own_versions() -> Versions:
    """``python`` has all three parts (``3.11.7``)."""
    return Versions(VERSION, platform.python_version(), cloudpickle.__version__)
