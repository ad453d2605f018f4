"""Ray's ``ray.util.multiprocessing``.

Owns: nothing.
"""

from __future__ import annotations

from guactors.integrations.pool import Pool
from guactors.integrations.pool_results import AsyncResult, ResultTimeout

TimeoutError = ResultTimeout  # noqa: A001 - its name there

__all__ = ["AsyncResult", "Pool", "TimeoutError"]
