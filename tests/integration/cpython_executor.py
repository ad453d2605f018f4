"""CPython's own tests of executors, run on guactors': a program, one mixin of theirs at a time.

    python cpython_executor.py WaitTests

Their file is Debian's, of the package libpython3.11-testsuite, unchanged. To import it, and the
helpers it needs, without the standard library that lies beside it, a package ``test`` of our own is
put first on the path and sends imports there. All cases of the mixins hold. Three of them start
programs with ``python -c``, which are adapted: see :func:`grid_python`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import tempfile
import types
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MIXINS = (
    "ExecutorTest",
    "WaitTests",
    "AsCompletedTests",
    "ExecutorShutdownTest",
    "InitializerMixin",
)
PREFIX = re.compile(rb"^\(\w+ pid=\d+, [^)]*\) ", re.MULTILINE)


def suite_directory() -> Path | None:
    """Where Debian keeps the test package of this version of Python."""
    directory = Path(f"/usr/lib/python3.{sys.version_info.minor}/test")
    return directory if (directory / "test_concurrent_futures.py").exists() else None


@contextlib.contextmanager
def importable_suite(directory: Path) -> Iterator[str]:
    """A directory for PYTHONPATH in which ``test`` is Debian's test package."""
    with tempfile.TemporaryDirectory() as path:
        package = Path(path, "test")
        package.mkdir()
        package.joinpath("__init__.py").write_text(f"__path__[:] = [{str(directory)!r}]\n")
        yield path


BEFORE = """
import atexit, sys, time
import guactors

class Told:
    def __init__(self, stream):
        self.stream, self.lines = stream, 0
    def write(self, text):
        self.lines += 1
        return self.stream.write(text)
    def __getattr__(self, name):
        return getattr(self.stream, name)

def until_told():
    end = time.monotonic() + 20
    while not sys.stdout.lines and time.monotonic() < end:
        time.sleep(0.01)

sys.stdout = Told(sys.stdout)
guactors.init(num_cpus=5)
if {told}:
    atexit.register(until_told)
"""
"""Registered between grid and executor, so it runs between the ends of the two. What a worker
prints reaches the driver on another way than results do, and a moment later; whoever leaves the
grid at once would not see it."""


def grid_python(real: Any, path: str) -> Any:
    """Their ``assert_python_ok``. Three tests use it, and each is changed in no more than this:
    the program takes our class from where it is; it waits for the worker's line to arrive
    (``test_interpreter_shutdown`` and ``test_hang_gh83386``); and the line comes without the prefix
    that tells which worker printed it."""

    def assert_python_ok(*args: str, **env: str) -> tuple[int, bytes, bytes]:
        program = args[-1].replace(
            "from concurrent.futures import Executor", "from guactors.integrations import Executor"
        )
        assert program != args[-1], "their program has changed: it imports no Executor"
        before = BEFORE.replace("{told}", str("submit(sleep_and_print" in program))
        code, out, err = real(*args[:-1], f"{before}\n{program}", PYTHONPATH=path, **env)
        return code, PREFIX.sub(b"", out), err

    return assert_python_ok


def cases(theirs: types.ModuleType, mixin: str) -> type[unittest.TestCase]:
    """Their ``mixin`` as a test case of our executor."""
    from guactors.integrations import Executor

    base = getattr(theirs, mixin)
    bases = (base,) if issubclass(base, theirs.ExecutorMixin) else (theirs.ExecutorMixin, base)
    return type(f"Grid{mixin}", (*bases, theirs.BaseTestCase), {"executor_type": Executor})


def main(mixin: str) -> int:
    """Run one mixin; the exit status says whether all of it passed."""
    directory = suite_directory()
    if directory is None:
        print("apt-get install libpython3.11-testsuite", file=sys.stderr)
        return 2
    with importable_suite(directory) as package:
        path = os.pathsep.join([package, str(ROOT)])
        os.environ["PYTHONPATH"] = path
        sys.path[:0] = [package, str(ROOT)]
        for name in [name for name in sys.modules if name.partition(".")[0] == "test"]:
            del sys.modules[name]
        theirs = importlib.import_module("test.test_concurrent_futures")
        import guactors as gu

        theirs.assert_python_ok = grid_python(theirs.assert_python_ok, path)
        gu.init(num_cpus=theirs.ExecutorMixin.worker_count)
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(cases(theirs, mixin))
        result = unittest.TextTestRunner(verbosity=2).run(suite)
        gu.shutdown()
        print(f"{mixin}: {result.testsRun} tests")
        return 0 if result.wasSuccessful() and result.testsRun and not result.skipped else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
