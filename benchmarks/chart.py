"""The bar chart of a run of ``ray_rows``: how many times Ray, on a logarithmic scale, and the
target of each row.

    PYTHON -m benchmarks.chart BARS.json FILE

Owns: drawing. Runs in an environment that has matplotlib. FILE's suffix says the format (png, svg,
pdf). BARS.json: ``{"title": ..., "note": ..., "bars": [...]}`` with the bars of ``ratios.bars``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

REACHED = "#2b7a4b"
MISSED = "#b5482f"
UNJUDGED = "#6b7785"
COLOURS = {True: REACHED, False: MISSED, None: UNJUDGED}
LABELS = {True: "target reached", False: "target missed", None: "no target"}


def draw(bars: list[dict[str, Any]], title: str, note: str, file: str) -> None:
    """Write the chart."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 1.6 + 0.3 * len(bars)), layout="constrained")
    rows = range(len(bars))
    axes.set_xscale("log")
    # A bar starts at 1, the same as Ray: to the right is faster, to the left slower.
    axes.barh(
        rows, [one["ratio"] - 1 for one in bars], left=1, height=0.62,
        color=[COLOURS[one["met"]] for one in bars],
    )  # fmt: skip
    for at, one in zip(rows, bars, strict=True):
        right = one["ratio"] >= 1
        axes.annotate(
            f"{one['ratio']:.3g}x", (one["ratio"], at), (4 if right else -4, 0),
            textcoords="offset points", va="center", ha="left" if right else "right", fontsize=8,
        )  # fmt: skip
        if one["target"] is not None:
            axes.plot([one["target"]] * 2, [at - 0.42, at + 0.42], color="black", linewidth=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(rows, [one["label"] for one in bars], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    axes.grid(axis="x", which="major", alpha=0.3)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_xlabel(f"times Ray (log scale; 1x = as Ray)\n{note}", fontsize=8)
    axes.set_title(title, fontsize=11)
    marks = [
        pyplot.Rectangle((0, 0), 1, 1, color=COLOURS[met], label=LABELS[met]) for met in COLOURS
    ]
    marks += axes.plot([], [], color="black", linewidth=2, label="target")
    axes.legend(handles=marks, fontsize=8, loc="best")
    figure.savefig(file, dpi=140)
    pyplot.close(figure)


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    draw(given["bars"], given["title"], given["note"], sys.argv[2])
