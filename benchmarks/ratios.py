"""Ray's rows and ours, their targets, and what a run on both sides says about them.

Owns: the rows, which of them a run wants, the figure and the ratio of many samples, the table and
the bars of the chart. Pure. Must never: measure, or know how a row is measured.

Names and numbers 1 to 23 are those of Ray's microbenchmark; letters are rows of our own. A ratio is
always "how many times better": guactors by Ray, or Ray by guactors where less is better.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.table import aligned

MAIN = "main"
GROUPS = "groups"
CROWD = "crowd"
QUEUE = "queue"


@dataclass(frozen=True)
class Row:
    """``family``: rows of one family share a process and a cluster of their own. ``ratio``,
    ``least``, ``most``: what guactors must reach, by Ray and by itself; a row without any is shown
    and not judged. ``by``: the row whose measurement yields this one, too. ``rounds``: it is not
    measured in later ones (None: in all)."""

    number: str
    name: str
    form: str = "{:,.0f}/s"
    family: str = MAIN
    ratio: float | None = None
    least: float | None = None
    most: float | None = None
    by: str = ""
    smaller: bool = False
    rounds: int | None = None

    def better(self, ours: float, theirs: float) -> float | None:
        """How many times better ``ours`` is; None where that has no number."""
        above, below = (theirs, ours) if self.smaller else (ours, theirs)
        return above / below if below > 0 else None

    def target(self) -> str:
        """What must be reached, as shown."""
        parts = []
        if self.ratio is not None:
            parts.append(f">= {self.ratio:g}x")
        if self.least is not None:
            parts.append(">= " + self.form.format(self.least))
        if self.most is not None:
            parts.append("<= " + self.form.format(self.most))
        return ", ".join(parts) or "-"

    def met(self, ours: float | None, ratio: float | None) -> bool | None:
        """Whether the target is reached. None: there is none, or what it compares with is missing;
        False also where guactors itself has no figure."""
        if self.ratio is None and self.least is None and self.most is None:
            return None
        if ours is None:
            return False
        if self.least is not None and ours < self.least:
            return False
        if self.most is not None and ours > self.most:
            return False
        if self.ratio is None:
            return True
        return None if ratio is None else ratio >= self.ratio


ECHO = "1:1 actor calls sync by raw echo"
ASYNC_ECHO = "1:1 async-actor calls sync by raw echo"
PUT_SHARE = "put of a 100 MiB array by copy"
PUT = "put of a 100 MiB array"
QUEUED = "queue no-op tasks, then run them"
QUEUED_PEAK = "its caller, peak resident memory"
QUEUED_SUBMIT = "its submission alone"
GIGABYTES = "{:.2f} GB/s"
FEW = "{:,.2f}/s"

ROWS = (
    Row("1", "single client get calls (Plasma Store)", ratio=20),
    Row("2", "single client put calls (Plasma Store)", ratio=10),
    Row("3", "multi client put calls (Plasma Store)"),
    Row("4", "single client put gigabytes", GIGABYTES),
    Row("5", "single client tasks and get batch", FEW, ratio=15),
    Row("6", "multi client put gigabytes", GIGABYTES),
    Row("7", "single client get object containing 10k refs", FEW),
    Row("8", "single client wait 1k refs", FEW, ratio=20),
    Row("9", "single client tasks sync", ratio=10),
    Row("10", "single client tasks async", ratio=15),
    Row("11", "multi client tasks async", ratio=15),
    Row("12", "1:1 actor calls sync", ratio=5),
    Row("13", "1:1 actor calls async", ratio=15),
    Row("14", "1:1 actor calls concurrent", ratio=15),
    Row("15", "1:n actor calls async", ratio=15),
    Row("16", "n:n actor calls async", ratio=15),
    Row("17", "n:n actor calls with arg async", ratio=15),
    Row("18", "1:1 async-actor calls sync", ratio=5),
    Row("19", "1:1 async-actor calls async", ratio=15),
    Row("20", "1:1 async-actor calls with args async", ratio=15),
    Row("21", "1:n async-actor calls async", ratio=15),
    Row("22", "n:n async-actor calls async", ratio=15),
    Row("23", "placement group create/removal", family=GROUPS, ratio=10),
    Row("a", "get of a stored 100 MiB array", ratio=3),
    Row("b", "actor create, call, kill", FEW, ratio=50),
    Row("c", "task with a 1 MiB array as argument", ratio=8),
    Row("d", "task returning a 1 MiB array", ratio=8),
    Row("e", PUT, GIGABYTES),
    Row("f", PUT_SHARE, "{:.1%}", least=0.8, by=PUT),
    Row("g", ECHO, "{:.1%}", least=0.8, by="1:1 actor calls sync"),
    Row("h", ASYNC_ECHO, "{:.1%}", least=0.8, by="1:1 async-actor calls sync"),
    Row("i", "task with 10,000 refs as arguments", FEW, family=CROWD, ratio=1),
    Row("j", "task with 3,000 returns", FEW, family=CROWD, ratio=1),
    Row("k", "get of 10,000 objects", FEW, family=CROWD, ratio=1),
    Row("l", QUEUED, family=QUEUE, least=40_000, rounds=1),
    Row("m", QUEUED_PEAK, "{:,.0f} MB", family=QUEUE, most=1_500, by=QUEUED, smaller=True),
    Row("n", QUEUED_SUBMIT, family=QUEUE, by=QUEUED),
)  # fmt: skip
BY_NAME = {row.name: row for row in ROWS}
VERDICTS = {True: "yes", False: "NO", None: "-"}

Samples = Mapping[str, Sequence[float]]


def chosen(wanted: Sequence[str], rows: Sequence[Row] = ROWS) -> list[Row]:
    """The rows that one of ``wanted`` names by its number or by a part of its name, in order; all
    when nothing is wanted. Raises ValueError for a word that fits none."""
    if not wanted:
        return list(rows)
    found: set[str] = set()
    for word in wanted:
        fits = [row.name for row in rows if word == row.number]
        fits = fits or [row.name for row in rows if word.lower() in row.name.lower()]
        if not word or not fits:
            raise ValueError(f"no row is called {word!r}")
        found.update(fits)
    return [row for row in rows if row.name in found]


def questions(rows: Sequence[Row], number: int) -> dict[str, list[str]]:
    """What to measure in round ``number`` (from 1), by family, in order, each once: a row that
    another one's measurement yields stands for that one."""
    found: dict[str, list[str]] = {}
    for row in rows:
        asked = BY_NAME[row.by] if row.by else row
        if asked.rounds is not None and number > asked.rounds:
            continue
        names = found.setdefault(asked.family, [])
        if asked.name not in names:
            names.append(asked.name)
    return found


def judge(rows: Sequence[Row], ours: Samples, theirs: Samples) -> list[dict[str, Any]]:
    """Per row: number, name, the two medians with lowest and highest, ratio, target, met. What has
    no samples has None in its place."""
    found = []
    for row in rows:
        mine, other = summary(ours.get(row.name, ())), summary(theirs.get(row.name, ()))
        ratio = row.better(mine["median"], other["median"]) if mine and other else None
        found.append({
            "number": row.number, "name": row.name, "guactors": mine, "ray": other, "ratio": ratio,
            "target": row.target(), "target_ratio": row.ratio,
            "met": row.met(mine["median"] if mine else None, ratio),
        })  # fmt: skip
    return found


def summary(samples: Sequence[float]) -> dict[str, float] | None:
    """Median, lowest, highest and number of samples; None of none."""
    if not samples:
        return None
    return {
        "median": statistics.median(samples), "lowest": min(samples), "highest": max(samples),
        "samples": len(samples),
    }  # fmt: skip


def render(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """The table, as Markdown that reads well in a terminal, too."""
    lines = [("#", "row", "guactors", "lowest to highest", "Ray", "lowest to highest", "ratio",
              "target", "met")]  # fmt: skip
    for one in verdicts:
        form = BY_NAME[one["name"]].form
        lines.append((
            one["number"], one["name"], *shown(one["guactors"], form), *shown(one["ray"], form),
            "-" if one["ratio"] is None else f"{one['ratio']:.{2 if one['ratio'] < 10 else 1}f}x",
            one["target"], VERDICTS[one["met"]],
        ))  # fmt: skip
    return aligned(lines)


def shown(figure: Mapping[str, float] | None, form: str) -> tuple[str, str]:
    """The median and the spread of one side."""
    if figure is None:
        return "failed", ""
    spread = f"{form.format(figure['lowest'])} to {form.format(figure['highest'])}"
    return form.format(figure["median"]), spread if figure["samples"] > 1 else ""


def bars(verdicts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the chart draws: per row with a ratio its label, the ratio, the ratio that was asked for
    (None: none was), and whether it was reached. In the table's order."""
    return [
        {
            "label": f"{one['number']}  {one['name']}",
            "ratio": one["ratio"],
            "target": one["target_ratio"],
            "met": one["met"],
        }
        for one in verdicts
        if one["ratio"] is not None
    ]
