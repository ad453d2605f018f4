"""The table of ``docs/runtimes.md``: every case of the suite of the runtimes, by every runtime.

Owns: what becomes of a test's report there, and the form of the table. Must never: run anything, or
change what a test reports.

Written where ``GU_TABLE`` names a file: between :data:`BEGIN` and :data:`END` where it has these.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

import pytest

SUITE = "test_runtime.py"
VARIABLE = "GU_TABLE"
BEGIN, END = "<!-- the table begins -->", "<!-- the table ends -->"
_NOT_CAPABLE = "is not capable of"


class Outcome(IntEnum):
    """Of a case; of one with several parameters the last of these."""

    PASSED = 0
    NOT_CAPABLE = 1
    NOT_HERE = 2
    FAILED = 3

    @property
    def text(self) -> str:
        return self.name.lower().replace("_", " ")


Found = dict[tuple[str, str], Outcome]
_found: Found = {}


def note(item: pytest.Item, report: pytest.TestReport) -> None:
    """Remember what a report says of a case, if it is one of the suite's."""
    call = getattr(item, "callspec", None)
    if VARIABLE not in os.environ or item.path.name != SUITE or call is None:
        return
    outcome = outcome_of(report)
    if outcome is not None and isinstance(item, pytest.Function):
        key = case_name(item.function.__name__), str(call.params["kind"])
        _found[key] = max(outcome, _found.get(key, outcome))


def outcome_of(report: pytest.TestReport) -> Outcome | None:
    """What it means, None for a step on the way."""
    if report.failed:
        return Outcome.FAILED
    if report.skipped:
        able = _NOT_CAPABLE not in str(report.longrepr)
        return Outcome.NOT_HERE if able else Outcome.NOT_CAPABLE
    return Outcome.PASSED if report.when == "call" else None


def case_name(function: str) -> str:
    """As people read it."""
    return function.removeprefix("test_").replace("_", " ")


def table(found: Found, runtimes: Iterable[str]) -> str:
    """In markdown, the cases in the order of their first report."""
    columns = [one for one in runtimes if any(one == there for _, there in found)]
    lines = [f"| case | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for case in dict.fromkeys(case for case, _ in found):
        cells = (found.get((case, one), Outcome.NOT_HERE).text for one in columns)
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(runtimes: Iterable[str]) -> None:
    """The table of this session, if one is wanted and the suite was run."""
    if VARIABLE not in os.environ or not _found:
        return
    path = Path(os.environ[VARIABLE])
    where = f"{platform.system()}, {platform.machine()}, Python {platform.python_version()}"
    made = f"Of the run on {where}.\n\n{table(_found, runtimes)}"
    text = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise pytest.UsageError(f"{path} has not the lines {BEGIN!r} and {END!r}: add them")
    path.write_text(f"{before}{begin}\n{made}\n{end}{after}", encoding="utf-8")
