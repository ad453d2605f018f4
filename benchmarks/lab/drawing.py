"""The pictures of a run of ``scheduler_lab``.

    PYTHON -m benchmarks.lab.drawing DATA.json FILE

Owns: drawing. Runs in an environment that has matplotlib. FILE's suffix says the format (png, svg,
pdf). DATA.json is what ``scheduler_lab --json`` wrote: ``{"title", "runs": [...], "scaling":
[...]}``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def draw(data: dict[str, Any], file: str) -> None:
    """Write the chart: use over time, waits by priority, and the cost of a decision by size."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    runs, scaling = data["runs"], data["scaling"]
    figure, panels = pyplot.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    use, waits, cost = panels
    for run in runs:
        use.plot(*zip(*run["used"], strict=True), linewidth=1.2, label=run["name"])
    use.set(title="CPUs held", xlabel="seconds", ylabel="share", ylim=(0, 1.05))
    width = 0.8 / max(1, len(runs))
    for place, run in enumerate(runs):
        tiers = sorted(run["p99"], key=int)
        at = [number + place * width for number in range(len(tiers))]
        waits.bar(at, [run["p99"][tier] for tier in tiers], width=width, label=run["name"])
        waits.set_xticks([number + 0.4 for number in range(len(tiers))], tiers)
    waits.set_yscale("symlog", linthresh=0.1)
    waits.set(title="p99 of the wait", xlabel="priority", ylabel="seconds")
    for providers in sorted({one["providers"] for one in scaling}):
        points = [one for one in scaling if one["providers"] == providers]
        cost.plot(
            [one["waiting"] for one in points], [one["microseconds"] for one in points],
            marker="o", label=f"{providers:,} providers",
        )  # fmt: skip
    if scaling:
        cost.set_xscale("log")
        cost.set_ylim(bottom=0)
    cost.set(title="cost of a decision", xlabel="waiting demands", ylabel="microseconds of CPU")
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.suptitle(data["title"], fontsize=11)
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), sys.argv[2])
