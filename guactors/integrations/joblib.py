"""joblib on a grid: ``register()``, then ``joblib.parallel_backend("guactors")``.

Owns: the registration. Must never: import joblib before it is asked for.
"""

from __future__ import annotations

from guactors.errors import UsageError


def register(name: str = "guactors") -> None:
    """Make the grid a backend of joblib, called ``name``. Raises UsageError where joblib is not
    installed."""
    try:
        import joblib
    except ModuleNotFoundError as error:
        raise UsageError("joblib is not installed: pip install guactors[joblib]") from error
    from guactors.integrations.joblib_backend import GridBackend

    joblib.register_parallel_backend(name, GridBackend)
