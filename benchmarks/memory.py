"""What an idle grid weighs: the proportional set size of every process of it (Linux).

Owns: the row ``idle_pss``: caller, launcher, hub, provider, zygote, the worker of one finished call
and the one kept warm. All are counted, also those the target does not name. Pages that processes of
other grids share count for less, so no other grid should run.

    python -m benchmarks.memory    a caller that had one call and waits
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil

from benchmarks.children import Child, answer

STILL = 0.5
"""Seconds without a new or ended process after which the grid counts as idle."""
STILL_WITHIN = 15.0


def idle() -> dict[str, float]:
    """MB in all, and by role (``pss_hub``, ...)."""
    with Child("benchmarks.memory") as caller:
        caller.ask()
        found: dict[str, float] = {}
        for pid, role in _settled(psutil.Process(caller.pid)).items():
            found[f"pss_{role}"] = found.get(f"pss_{role}", 0.0) + pss(pid) / 1e6
    return {"idle_pss": sum(found.values()), **found}


def pss(pid: int) -> int:
    """Bytes: what is its own, and its share of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no line Pss")


def _settled(caller: psutil.Process) -> dict[int, str]:
    """Every process by role, once none came or went for :data:`STILL` seconds."""
    deadline = time.monotonic() + STILL_WITHIN
    seen, since = _roles(caller), time.monotonic()
    while time.monotonic() - since < STILL:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the idle grid starts and ends processes: {seen}")
        time.sleep(0.05)
        if (now := _roles(caller)) != seen:
            seen, since = now, time.monotonic()
    return seen


def _roles(caller: psutil.Process) -> dict[int, str]:
    """Roles by place in the tree: they are forks of one program and look alike."""
    roles = {caller.pid: "caller"}
    for launcher in caller.children():
        roles[launcher.pid] = "launcher"
        for member in launcher.children():
            zygotes = member.children()
            roles[member.pid] = "provider" if zygotes else "hub"
            for zygote in zygotes:
                roles[zygote.pid] = "zygote"
                roles.update({worker.pid: "workers" for worker in zygote.children()})
    return roles


def main() -> None:
    import guactors as gu

    @gu.remote
    def ok() -> bytes:
        return b"ok"

    gu.init(num_cpus=2, log_to_driver=False)
    assert gu.get(ok.remote()) == b"ok"
    answer("idle")
    sys.stdin.read()
    gu.shutdown()


if __name__ == "__main__":
    main()
