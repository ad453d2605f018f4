"""A grid shared by the tests of one module, checked for leaks when the module is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import guactors as gu
from tests import leaks


@pytest.fixture(scope="module")
def grid(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """An embedded grid of two CPUs. Its workers come and go, so tests on it are marked
    ``may_keep(*leaks.KINDS)``; the whole of it must be gone at the end."""
    home = tmp_path_factory.mktemp("grid-home")
    before = leaks.take(home, run_root)
    gu.init(num_cpus=2, labels={"room": "attic"})
    yield
    gu.shutdown()
    found = leaks.settle(before, home, run_root, leaks.KINDS)
    if found:
        pytest.fail("the grid left behind:\n  " + "\n  ".join(found), pytrace=False)
