"""The documents speak of files that exist, and the reading order leaves no room out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
UNMENTIONED = {"__init__"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#\s]+)", text)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


def test_reading_order_names_every_room_and_only_what_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    order = text.partition(". Reading order\n")[2].partition("\n## ")[0]
    named = {name.rstrip("/") for name in re.findall(r"`([\w/]+(?:\.py|/))`", order)}
    package = ROOT / "guactors"
    assert {name for name in named if not (package / name).exists()} == set()
    rooms = {
        path.name
        for path in package.iterdir()
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())
    }
    reached = {Path(name).parts[0] for name in named}
    missing = {room for room in rooms - reached if room.removesuffix(".py") not in UNMENTIONED}
    assert missing == set(), "rooms the reading order does not lead to"
