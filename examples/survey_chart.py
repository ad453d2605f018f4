"""A horizontal bar chart as SVG, made by hand: text in, text out, no plotting library.

One hue for the bars, because length already carries the figure; the largest is darker, because the
title speaks of it. Figures stand at the bar's end, so there is no axis to read them off.
"""

from __future__ import annotations

from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH = 960
MARGIN = 32
LABELS = 150
"""Pixels for the labels left of the bars."""
NOTES = 330
"""Pixels for the two notes right of them: a count that ends, and words that begin, in line."""
COUNT = 64
ROW = 26
BAR = 16
HEAD = 112
FOOT = 54

INK, QUIET, FAINT = "#1c2126", "#66707a", "#e6e9ec"
FILL, STRONG = "#8fb3d9", "#1f5fa8"
FONT = "'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"


class Bar(NamedTuple):
    """One row: what it is, its length, the length in words, and two remarks beside it."""

    label: str
    value: float
    text: str
    number: str = ""
    note: str = ""


def bar_chart(title: str, subtitle: str, footer: str, heads: Bar, bars: list[Bar]) -> str:
    """The chart as an SVG document; the first largest bar is set off. ``heads`` gives the words
    above the columns. Raises ValueError without bars or with a negative value."""
    if not bars or min(bar.value for bar in bars) < 0:
        raise ValueError("a bar chart needs at least one bar, and no negative ones")
    height = HEAD + ROW * len(bars) + FOOT
    most = max(bar.value for bar in bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"',
        f' viewBox="0 0 {WIDTH} {height}" role="img" font-family="{FONT}" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        label(MARGIN, 42, title, size=20, weight=600),
        label(MARGIN, 66, subtitle, fill=QUIET),
    ]
    left = MARGIN + LABELS
    parts += [
        label(left, HEAD - 12, heads.text, fill=QUIET, size=11.5),
        *remarks(HEAD - 12, heads),
    ]
    strong = next(index for index, bar in enumerate(bars) if bar.value == most)
    for index, bar in enumerate(bars):
        parts += row(HEAD + ROW * index, bar, most, strong=index == strong)
    base = HEAD + ROW * len(bars)
    parts += [
        rule(left, HEAD - 4, left, base, QUIET),
        rule(MARGIN, base + 14, WIDTH - MARGIN, base + 14, FAINT),
        label(MARGIN, base + 34, footer, fill=QUIET, size=11.5),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def row(top: float, bar: Bar, most: float, *, strong: bool) -> list[str]:
    """The label, the bar, its figure and its note, on one line."""
    left = MARGIN + LABELS
    room = WIDTH - MARGIN - NOTES - left - 40
    width = room * bar.value / most if most else 0.0
    line = top + ROW / 2 + 4.5
    weight, fill = (600, STRONG) if strong else (400, FILL)
    place = f'x="{left}" y="{top + (ROW - BAR) / 2:g}" width="{width:.1f}" height="{BAR}"'
    return [
        label(left - 10, line, bar.label, anchor="end", weight=weight),
        f'<rect {place} rx="2" fill="{fill}"/>',
        label(left + width + 8, line, bar.text, weight=weight),
        *remarks(line, bar),
    ]


def remarks(line: float, bar: Bar) -> list[str]:
    """The two notes of a row."""
    start = WIDTH - MARGIN - NOTES
    return [
        label(start + COUNT, line, bar.number, fill=QUIET, size=11.5, anchor="end"),
        label(start + COUNT + 20, line, bar.note, fill=QUIET, size=11.5),
    ]


def rule(x1: float, y1: float, x2: float, y2: float, stroke: str) -> str:
    """A hairline."""
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{stroke}"/>'


def label(
    x: float, y: float, text: str, *, fill: str = INK, size: float = 13, weight: int = 400,
    anchor: str = "start",
) -> str:  # fmt: skip
    """One line of text with its left end, or its right one, at ``x``."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{fill}" font-size="{size:g}" font-weight="{weight}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )
