"""What is measured on every peer, and the table of it.

Owns: the measures, the figures of many samples, the table with a dash and a reason where a peer
cannot do something. Pure. Must never: measure.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.table import aligned

Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Measure:
    """``smaller``: less is better."""

    key: str
    what: str
    form: str = "{:,.0f}/s"
    smaller: bool = False


MEASURES = (
    Measure("start", "start to first result", "{:.2f} s", smaller=True),
    Measure("idle", "idle memory (PSS)", "{:,.0f} MB", smaller=True),
    Measure("call", "calls, one at a time"),
    Measure("flood", "calls, 1,000 in flight"),
    Measure("echo_1k", "echo of 1 KB"),
    Measure("echo_1m", "echo of 1 MB"),
    Measure("echo_64m", "echo of 64 MB", "{:,.2f}/s"),
    Measure("actor", "actor create + kill"),
    Measure("tasks", "10,000 no-op tasks", "{:,.2f} s", smaller=True),
)
BY_KEY = {one.key: one for one in MEASURES}


def medians(samples: Samples) -> dict[str, dict[str, float]]:
    """By measure: median, lowest, highest, number of samples; only of what was measured."""
    return {
        key: {
            "median": statistics.median(found), "lowest": min(found), "highest": max(found),
            "samples": len(found),
        }
        for key, found in samples.items()
        if found
    }  # fmt: skip


def best(figures: Mapping[str, Mapping[str, Mapping[str, float]]], measure: Measure) -> str:
    """The peer with the best median; "" if none has one."""
    having = {peer: found[measure.key]["median"] for peer, found in figures.items()
              if measure.key in found}  # fmt: skip
    if not having:
        return ""
    pick = min if measure.smaller else max
    return pick(having, key=lambda peer: having[peer])


def render(
    peers: Sequence[str],
    figures: Mapping[str, Mapping[str, Mapping[str, float]]],
    reasons: Mapping[str, Mapping[str, str]],
) -> str:
    """A Markdown table, a line for each peer, the best figure of a column marked with ``*``, and
    below it why there is a dash. ``reasons``: by peer and measure."""
    lines: list[Sequence[str]] = [["", *(one.what for one in MEASURES)]]
    notes: list[str] = []
    for peer in peers:
        cells = [peer]
        for measure in MEASURES:
            if found := figures.get(peer, {}).get(measure.key):
                mark = "*" if best(figures, measure) == peer else ""
                cells.append(measure.form.format(found["median"]) + mark)
                continue
            why = f"{peer}: " + reasons.get(peer, {}).get(measure.key, "was not measured")
            if why not in notes:
                notes.append(why)
            cells.append(f"- ({notes.index(why) + 1})")
        lines.append(cells)
    return "\n".join([aligned(lines), "", *(f"{at}. {why}" for at, why in enumerate(notes, 1))])


def chosen(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    """``wanted`` in the order of ``known``, all when nothing is wanted. Raises ValueError."""
    for name in wanted:
        if name not in known:
            raise ValueError(f"no peer is called {name!r}; there are {', '.join(known)}")
    return [name for name in known if not wanted or name in wanted]


def as_json(samples: Mapping[str, Samples], reasons: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is known, by peer."""
    return {
        peer: {"figures": medians(found), "samples": dict(found), "dashes": dict(reasons[peer])}
        for peer, found in samples.items()
    }
