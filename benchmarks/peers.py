"""guactors beside other libraries that call functions in other processes.

    python -m benchmarks.peers [--rounds N] [--peers NAME,...] [--seconds S] [--skip-install]
                               [--json FILE]

Owns: the order of things. A round measures every peer once, each in processes of its own that are
gone before the next peer's start. Each peer is installed into an environment of its own under
``build/peers``. What a peer cannot do is a dash with the reason, and so is what failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import leftovers, peer_table, venvs
from benchmarks.children import ROOT, Child, ChildFailed, ChildLost
from benchmarks.memory import pss
from benchmarks.numbers import machine
from benchmarks.peer_kinds import KINDS
from benchmarks.ray_rows import requirements as ray_requirements

REQUIREMENTS = {
    "guactors": "",
    "ray": "ray",
    "xoscar": "xoscar==0.12.2",
    "dask": "distributed==2026.8.0",
    "ipyparallel": "ipyparallel==9.2.0",
    "parsl": "parsl==2026.10.26",
    "executorlib": "executorlib==1.11.0",
    "pyro5": "Pyro5==5.17 msgpack==1.2.4",
    "loky": "loky==3.7.0",
}
START_WITHIN = 120.0
LIMIT = 180.0
END_WITHIN = 20.0
IDLE_FOR = 2.0
"""Seconds after the first result until the memory is looked at."""
ASKED = [one.key for one in peer_table.MEASURES if one.key not in {"start", "idle"}]


class Measured:
    """What was found of one peer."""

    def __init__(self, name: str, python: str, log: Path) -> None:
        self.name, self.python, self.log = name, python, log
        self.samples: dict[str, list[float]] = {}
        self.reasons: dict[str, str] = {}
        self.killed: list[str] = []

    def round(self, seconds: float) -> None:
        """Every measure once."""
        # Some peers start their own programs by name.
        path = os.pathsep.join([str(Path(self.python).parent), os.environ.get("PATH", "")])
        env = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT), "PATH": path}
        began = time.perf_counter()
        child = Child("benchmarks.peer_side", self.name, str(seconds), env=env,
                      python=self.python, log=self.log)  # fmt: skip
        try:
            self.reasons.update(child.ask(timeout=START_WITHIN))
            self._keep("start", [time.perf_counter() - began])
            time.sleep(IDLE_FOR)
            self._keep("idle", [weight() / 1e6])
            self._ask_all(child)
        except ChildFailed as error:
            print(f"{self.name}: {error}", file=sys.stderr)
            for key in (one.key for one in peer_table.MEASURES):
                self.reasons.setdefault(key, f"failed: {error}")
        finally:
            child.close(END_WITHIN)
            self.killed += leftovers.ended()

    def _ask_all(self, child: Child) -> None:
        for key in ASKED:
            if key in self.reasons:
                continue
            print(f"  {self.name}: {key}", file=sys.stderr)
            try:
                self._keep(key, child.ask(key, timeout=LIMIT))
            except ChildLost:
                raise
            except ChildFailed as error:
                self.reasons[key] = f"failed: {error}"

    def _keep(self, key: str, figures: Sequence[float]) -> None:
        self.samples.setdefault(key, []).extend(figures)


def weight() -> int:
    """Bytes of all processes of the peer that is measured: all below this one, for some peers'
    workers leave the process that started them."""
    total = 0
    for one in leftovers.present():
        try:
            total += pss(one.pid)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
    return total


def show(found: Mapping[str, Any]) -> str:
    """The table and what must be known with it."""
    peers = found["peers"]
    lines = [
        peer_table.render(
            list(peers),
            {name: one["figures"] for name, one in peers.items()},
            {name: one["dashes"] for name, one in peers.items()},
        ),
        "",
        f"command: {found['command']}",
        "machine: " + ", ".join(f"{key} {value}" for key, value in found["machine"].items()),
        "versions: " + ", ".join(f"{key} {value}" for key, value in found["versions"].items()),
        "*: the best of the column. Medians; two workers each; one caller.",
        *(f"{name}: {KINDS[name].about}" for name in peers),
    ]
    for name, killed in found["killed"].items():
        lines += [f"KILLED after {name}: {one}" for one in killed]
    return "\n".join(lines)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line; ``peers`` are names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--peers", default="", help=f"of {', '.join(REQUIREMENTS)}; by commas")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a slice; default: 1")
    parser.add_argument("--skip-install", action="store_true", help="use what is installed")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.seconds <= 0:
        parser.error("--rounds and --seconds take 1 or more")
    try:
        words = [word.strip() for word in given.peers.split(",")] if given.peers else []
        given.peers = peer_table.chosen(words, list(REQUIREMENTS))
    except ValueError as error:
        parser.error(str(error))
    given.command = "python -m benchmarks.peers " + shlex.join(arguments)
    return given


def installed(names: Sequence[str], *, install: bool) -> dict[str, str]:
    """The interpreter of each peer; a peer that cannot be installed is left out, and said so."""
    found = {}
    for name in names:
        if not REQUIREMENTS[name]:
            found[name] = sys.executable
            continue
        try:
            wanted = ray_requirements() if name == "ray" else REQUIREMENTS[name].split()
            found[name] = venvs.python_of(name, wanted, install=install)
        except venvs.NotInstalled as error:
            print(f"NOT MEASURED: {name}: {error}", file=sys.stderr)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    given = parsed(sys.argv[1:] if arguments is None else arguments)
    pythons = installed(given.peers, install=not given.skip_install)
    logs = ROOT / "build" / "rows"
    logs.mkdir(parents=True, exist_ok=True)
    leftovers.adopt_orphans()
    for name in ("RAY_ADDRESS", "GU_ADDRESS"):
        os.environ.pop(name, None)
    peers = [Measured(name, python, logs / f"{name}.log") for name, python in pythons.items()]
    for number in range(1, given.rounds + 1):
        for peer in peers:
            print(f"round {number} of {given.rounds}: {peer.name}", file=sys.stderr)
            peer.round(given.seconds)
    named = {name: REQUIREMENTS[name].partition("==")[0] for name in pythons if REQUIREMENTS[name]}
    found = {
        "command": given.command,
        "machine": machine(),
        "versions": {
            key: value
            for name, library in named.items()
            for key, value in venvs.versions(pythons[name], [library]).items()
        },
        "rounds": given.rounds,
        "seconds": given.seconds,
        "peers": peer_table.as_json(
            {one.name: one.samples for one in peers}, {one.name: one.reasons for one in peers}
        ),
        "killed": {one.name: one.killed for one in peers},
    }
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    print(show(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
