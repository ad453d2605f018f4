"""CPython's own executor suite on guactors' executor: each mixin in a process of its own, all at
the same time, because they mostly sleep."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leaks
from tests.integration import cpython_executor

pytestmark = [
    pytest.mark.needs("cpython-executor-suite"),
    pytest.mark.may_keep(*leaks.KINDS),
    pytest.mark.timeout(200),
]
COUNTS = {
    "ExecutorTest": 9,
    "WaitTests": 8,
    "AsCompletedTests": 5,
    "ExecutorShutdownTest": 6,
    "InitializerMixin": 1,
}
"""Cases in each: fewer would mean that some were not found."""


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, tuple[subprocess.Popen[bytes], Path]]]:
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        for mixin in COUNTS:
            log = Path(directory, mixin)
            with log.open("wb") as file:
                process = subprocess.Popen(
                    [sys.executable, cpython_executor.__file__, mixin],
                    stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                )  # fmt: skip
            found[mixin] = (process, log)
        yield found
        for process, _ in found.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize("mixin", COUNTS)
def test_mixin(mixin: str, running: dict[str, tuple[subprocess.Popen[bytes], Path]]) -> None:
    process, log = running[mixin]
    status = process.wait(180)
    text = log.read_text(encoding="utf-8", errors="replace")
    assert status == 0, text
    assert f"{mixin}: {COUNTS[mixin]} tests" in text, text
