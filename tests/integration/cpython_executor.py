"""CPython's own tests of executors, run on guactors': a program, one mixin of theirs at a time.

    python cpython_executor.py WaitTests

Their file is Debian's, of the package libpython3.11-testsuite, unchanged. It is found below
``/usr/lib/python3.*/test``; to import it, and the helpers it needs, without the rest of that
directory's standard library, a package ``test`` of our own is put first on the path and sends
imports there. Three of their tests start ``python -c`` with a program that says ``from
concurrent.futures import <the class>``: there the import is replaced, see :func:`grid_python`.
"""

from __future__ import annotations

import contextlib
import glob
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
MIXINS = ("ExecutorTest", "WaitTests", "AsCompletedTests", "ExecutorShutdownTest", "InitializerMixin")
PREFIX = re.compile(rb"^\(\w+ pid=\d+, [^)]*\) ", re.MULTILINE)


def suite_directory() -> Path | None:
    """Where Debian keeps the test package that has the executor suite."""
    found = sorted(glob.glob("/usr/lib/python3.*/test/test_concurrent_futures*"))
    return Path(found[0]).parent if found else None


@contextlib.contextmanager
def importable_suite(directory: Path) -> Iterator[str]:
    """A directory for PYTHONPATH in which ``test`` is Debian's test package."""
    with tempfile.TemporaryDirectory() as path:
        package = Path(path, "test")
        package.mkdir()
        package.joinpath("__init__.py").write_text(f"__path__[:] = [{str(directory)!r}]\n")
        yield path


def grid_python(real: Any, path: str) -> Any:
    """Their ``assert_python_ok``: the program imports our class from where it is, and what the
    worker prints loses the prefix that says which worker printed it."""

    def assert_python_ok(*args: str, **env: str) -> tuple[int, bytes, bytes]:
        program = args[-1].replace("from concurrent.futures import Executor",
                                   "from guactors.integrations import Executor")  # fmt: skip
        assert program != args[-1], "their program has changed: it imports no Executor"
        env = {"PYTHONPATH": path, "__cleanenv": "", **os.environ, **env}
        del env["__cleanenv"]
        code, out, err = real(*args[:-1], program, **env)
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
