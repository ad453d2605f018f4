"""Who cleans up after a process: a shell that must not outlive its use."""

from __future__ import annotations

import psutil
import pytest

from guactors.runtimes.native.guardian import Guardian

pytestmark = pytest.mark.needs("posix", "sh")


def test_what_is_forgotten_too_late_begins_nothing() -> None:
    before = set(psutil.Process().children())
    guardian = Guardian()
    guardian.watch("group", "999999")
    assert len(set(psutil.Process().children()) - before) == 1
    guardian.close()
    guardian.forget("group", "999999")
    guardian.close()
    assert set(psutil.Process().children()) <= before
