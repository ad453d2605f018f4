"""What is promised, whether it is kept, and how that is shown.

Owns: the rows with their targets, the one figure that many measurements become, the table and the
JSON. Pure. Must never: measure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """``most`` or ``least`` bounds the figure. ``form`` shows it (a format and a unit).
    ``quantile``: the figure is that quantile of all trials, 0.5 being the median. ``beside``: a
    rate that is shown with a ratio. Without a bound it is shown and not judged."""

    key: str
    what: str
    elsewhere: str
    form: str
    most: float = math.inf
    least: float = -math.inf
    quantile: float = 0.5
    beside: str = ""

    def kept(self, figure: float) -> bool:
        """Whether the target is reached."""
        return self.least <= figure <= self.most

    @property
    def bound(self) -> float | None:
        """The target's number, if there is one."""
        return next((one for one in (self.most, self.least) if math.isfinite(one)), None)

    def target(self) -> str:
        """The bound as shown."""
        if self.bound is None:
            return "-"
        if math.isfinite(self.most):
            return "<= " + self.form.format(self.most)
        return ">= " + self.form.format(self.least)

    def ratio(self, figure: float) -> float | None:
        """The figure by its target: how far from, or beyond it."""
        return None if self.bound is None else figure / self.bound


ROWS = (
    Row("import", "import guactors", "Ray 0.43 s", "{:.3f} s", most=0.10),
    Row("import_used", "the same until init, remote, get are there", "", "{:.3f} s"),
    Row("first_result", "gu.init() to first result", "Ray 3.2-4.3 s", "{:.3f} s", most=0.5),
    Row("idle_pss", "idle PSS, whole tree", "Ray 549 MB", "{:.1f} MB", most=90),
    Row("actor_sync", "actor call / raw echo, one at a time", "Ray 1,539/s, raw 10,700/s",
        "{:.1%}", least=0.70, beside="actor_rate"),
    Row("task_sync", "task / raw echo, one at a time", "Ray 651/s", "{:.1%}", least=0.60,
        beside="task_rate"),
    Row("actor_flood", "actor calls, 1,000 in flight", "Ray 3,407/s", "{:,.0f}/s", least=35_000),
    Row("tcp_flood", "the same by TCP with CURVE / ipc", "raw 70 %", "{:.1%}", least=0.60,
        beside="tcp_rate"),
    Row("urgent_call", "p99 of a priority call, 5,000 queued", "1,457 ms", "{:.1f} ms", most=5,
        quantile=0.99),
    Row("urgent_burst", "p99 of the same, 5,000 just submitted", "1,457 ms", "{:.1f} ms", most=5,
        quantile=0.99),
    Row("urgent_control", "p99 of a cancellation, 5,000 queued", "1,457 ms", "{:.1f} ms", most=5,
        quantile=0.99),
    Row("worker_start", "worker start (zygote) to first call", "Ray 565 ms", "{:.1f} ms", most=15),
    Row("install", "installed size with dependencies", "Ray 261 MB", "{:.1f} MB", most=50),
)  # fmt: skip

Samples = Mapping[str, Sequence[float]]
VERDICTS = {True: "pass", False: "MISS", None: "-"}
STEADY = 1.5
"""On a quiet machine nine of ten slices of the raw floor are within this factor of the slowest
tenth. Beyond it neither a pass nor a miss says anything about the code."""


def quantile(samples: Sequence[float], share: float) -> float:
    """The value that ``share`` of the samples do not exceed; the median is the usual one."""
    if share == 0.5:
        return statistics.median(samples)
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def unrest(samples: Samples) -> float | None:
    """By what factor the raw floor, which never changes, varied: its 90th by its 10th percentile;
    None when it was not measured."""
    floor = samples.get("raw_echo")
    return quantile(floor, 0.9) / quantile(floor, 0.1) if floor else None


def judge(samples: Samples) -> list[dict[str, Any]]:
    """Per measured row: key, what, target, figure, spread of the samples, by_target, passed."""
    found = []
    for row in ROWS:
        if row.key not in samples:
            continue
        figure = quantile(samples[row.key], row.quantile)
        found.append({
            "key": row.key,
            "what": row.what,
            "elsewhere": row.elsewhere,
            "target": row.bound,
            "kind": "most" if math.isfinite(row.most) else "least",
            "measured": figure,
            "lowest": min(samples[row.key]),
            "highest": max(samples[row.key]),
            "samples": len(samples[row.key]),
            "by_target": row.ratio(figure),
            "passed": None if row.bound is None else row.kept(figure),
        })  # fmt: skip
        if row.beside:
            found[-1]["rate"] = statistics.median(samples[row.beside])
    return found


def render(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """A plain table, one line per verdict, as Markdown so that a document can hold it."""
    rows = {row.key: row for row in ROWS}
    lines = [("what", "target", "measured", "lowest to highest", "by target", "", "elsewhere")]
    for one in verdicts:
        row = rows[one["key"]]
        show = row.form.format
        measured = show(one["measured"])
        if "rate" in one:
            measured += f" ({one['rate']:,.0f}/s)"
        lines.append((
            row.what, row.target(), measured, f"{show(one['lowest'])} to {show(one['highest'])}",
            "-" if one["by_target"] is None else f"{one['by_target']:.2f}",
            VERDICTS[one["passed"]], row.elsewhere,
        ))  # fmt: skip
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as a Markdown table; the first is its head."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    ruled = [lines[0], tuple("-" * width for width in widths), *lines[1:]]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in ruled
    )
