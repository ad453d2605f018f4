"""What ``gu doctor`` says of the runtimes: one check each.

Owns: what becomes of a probe. Must never: call the want of one a failure: none but the native one
is needed.
"""

from __future__ import annotations

from collections.abc import Iterator

from guactors.cli.checks import OK, WARN, Finding
from guactors.cli.image_choice import open_store
from guactors.cli.runtimes import describe, one_line, version
from guactors.errors import UsageError
from guactors.runtimes.choice import ADAPTERS, find_external, probe_runtime


def examine_runtimes() -> Iterator[Finding]:
    """Ours, then the drivers of others, and last the manifests that are not used."""
    for name, adapter in ADAPTERS.items():
        if adapter.here:
            yield _examine(name)
        else:
            yield Finding(name, OK, "not for this platform")
    try:
        external = find_external()
    except (UsageError, OSError):  # there is no home, which the check of it has said
        return
    for name in external.drivers:
        yield _examine(name)
    for reason in external.refused:
        remedy = "mend or remove that manifest: its driver is not used"
        yield Finding("driver", WARN, one_line(reason), remedy)


def _examine(name: str) -> Finding:
    probe = probe_runtime(name, open_store)
    if probe.usable:
        found = "; ".join(filter(None, (version(probe), describe(probe))))
        return Finding(name, OK, found)
    return Finding(name, WARN, "cannot be used on this machine", one_line(probe.reason))
