"""What every test gets: a GU_HOME and a temporary directory of its own, and the check that it
leaves nothing behind (contract, integration and e2e tests).

Owns: the fixtures and markers all rooms share. Must never: start anything.
"""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guactors.config import Identity
from guactors.transport import open_transport
from guactors.transport.base import Lane
from tests import leaks


def _docker_is_possible() -> bool:
    if sys.platform == "win32":
        return False
    from tests.contract import docker_daemon

    return docker_daemon.possible()


CHECKED = frozenset({"contract", "integration", "e2e"})
COMPONENTS: dict[str, Callable[[], bool]] = {
    "fork": lambda: hasattr(os, "fork"),
    "linux": lambda: sys.platform == "linux",
    "posix": lambda: os.name == "posix",
    "root": lambda: hasattr(os, "geteuid") and os.geteuid() == 0,
    "memory-cgroup": lambda: os.access("/sys/fs/cgroup/memory/memory.limit_in_bytes", os.R_OK),
    "pidfd": lambda: hasattr(os, "pidfd_open"),
    "dockerd": _docker_is_possible,
    "busybox": Path("/bin/busybox").exists,
    # Of Debian's package libpython3.11-testsuite.
    "cpython-executor-suite": lambda: Path(
        f"/usr/lib/python3.{sys.version_info.minor}/test/test_concurrent_futures.py"
    ).exists(),
}


def present(component: str) -> bool:
    """Whether this machine has it: a key of COMPONENTS, ``module:NAME``, or a program on PATH."""
    if component in COMPONENTS:
        return COMPONENTS[component]()
    if component.startswith("module:"):
        return importlib.util.find_spec(component.removeprefix("module:")) is not None
    return shutil.which(component) is not None


def pytest_configure() -> None:
    """A shell has what it starts in the background ignore SIGINT, and all that this starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``@pytest.mark.needs``: where all is promised to be there (CI=true), a miss is a failure."""
    missing = [
        component
        for marker in item.iter_markers("needs")
        for component in marker.args
        if not present(component)
    ]
    if not missing:
        return
    message = f"needs {', '.join(missing)}, not found on this machine"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{message}; CI=true allows no skips for want of components", pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def run_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The temporary directory of everything under test: short, because socket paths must be, and
    apart from that of other test runs on this machine."""
    tmp_path_factory.getbasetemp()  # pytest's own directories stay where they were
    usual = os.environ.get("TMPDIR")
    path = Path(tempfile.mkdtemp(prefix="gt-"))
    os.environ["TMPDIR"] = str(path)
    tempfile.tempdir = None
    yield path
    if usual is None:
        del os.environ["TMPDIR"]
    else:
        os.environ["TMPDIR"] = usual
    tempfile.tempdir = None
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def permanent_threads(run_root: Path) -> None:
    """The first large message starts threads that the socket library keeps for the process's life;
    start them before anybody counts."""
    transport = open_transport(Identity())
    listener = transport.listen(f"ipc://{run_root}/first/s")
    link = transport.dial(listener.endpoint)
    link.send(Lane.DATA, [b"h", memoryview(bytes(1 << 20))])
    deadline = time.monotonic() + 10
    while listener.receive() is None:
        assert time.monotonic() < deadline
        select.select(listener.filenos(), [], [], 0.1)
    transport.close()


@pytest.fixture(autouse=True)
def gu_home(tmp_path: Path, run_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh GU_HOME for each test, and no grid in the environment."""
    home = tmp_path / "gu-home"
    monkeypatch.setenv("GU_HOME", str(home))
    monkeypatch.delenv("GU_ADDRESS", raising=False)
    monkeypatch.delenv("GU_KEY", raising=False)
    return home


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, gu_home: Path, run_root: Path) -> Iterator[None]:
    """Fails a test that leaves descriptors, threads, processes, shared memory or socket
    directories behind. What fixtures of a wider scope hold was there before and does not count."""
    if not CHECKED & set(request.path.relative_to(Path(__file__).parent).parts):
        yield
        return
    kept = {kind for marker in request.node.iter_markers("may_keep") for kind in marker.args}
    kinds = tuple(kind for kind in leaks.KINDS if kind not in kept)
    before = leaks.take(gu_home, run_root)
    yield
    found = leaks.settle(before, gu_home, run_root, kinds)
    if found:
        pytest.fail("left behind:\n  " + "\n  ".join(found), pytrace=False)
