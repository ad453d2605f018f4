"""How long one waits for the first of everything: the import, the first result, a new worker.

Owns: the rows ``import``, ``import_used``, ``first_result``, ``worker_start``. The names of the
package load on first use, so the import alone is not all that a program waits for: ``import_used``
goes on until ``remote``, ``init`` and ``get`` are there. Each is that of a fresh interpreter; each
worker is forked for its call (none is kept warm).

    python -m benchmarks.startup import|used|first|workers
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from benchmarks.children import Child, answer

WORKERS = 10
GONE_WITHIN = 10.0


def fresh_interpreter() -> dict[str, float]:
    """Seconds to import, until the names are there, and from ``init`` to the first result."""
    found = {}
    for row, module in (("import", "import"), ("import_used", "used"), ("first_result", "first")):
        with Child("benchmarks.startup", module) as child:
            found[row] = child.ask()
    return found


def new_workers() -> dict[str, list[float]]:
    """Milliseconds from the order for an actor to its first answer, worker by worker."""
    with Child("benchmarks.startup", "workers") as child:
        return {"worker_start": child.ask()}


def _import() -> float:
    began = time.perf_counter()
    import guactors

    assert guactors.__name__
    return time.perf_counter() - began


def _used() -> float:
    began = time.perf_counter()
    import guactors as gu

    for name in ("remote", "init", "get"):
        getattr(gu, name)
    return time.perf_counter() - began


def _first() -> float:
    import guactors as gu

    @gu.remote
    def ok() -> bytes:
        return b"ok"

    began = time.perf_counter()
    gu.init(log_to_driver=False)
    gu.get(ok.remote())
    passed = time.perf_counter() - began
    gu.shutdown()
    return passed


def _workers() -> list[float]:
    import os

    import psutil

    import guactors as gu
    from benchmarks.grids import launched

    @gu.remote(num_cpus=1)
    class Newborn:
        def pid(self) -> int:
            return os.getpid()

    found = []
    with launched(warm=0):
        # The first one also pays for what the provider imports on first use.
        for _ in range(WORKERS + 1):
            began = time.perf_counter()
            actor = Newborn.remote()  # type: ignore[attr-defined]
            pid = gu.get(actor.pid.remote())
            found.append((time.perf_counter() - began) * 1e3)
            process = psutil.Process(pid)
            gu.kill(actor)
            if psutil.wait_procs([process], GONE_WITHIN)[1]:
                raise TimeoutError(f"the killed worker {pid} lives on")
    return found[1:]


PARTS: dict[str, Callable[[], object]] = {
    "import": _import,
    "used": _used,
    "first": _first,
    "workers": _workers,
}

if __name__ == "__main__":
    answer(PARTS[sys.argv[1]]())
