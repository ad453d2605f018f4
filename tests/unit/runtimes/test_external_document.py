"""``docs/drivers.md`` says what ``words.py`` and ``manifest.py`` say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

from guactors.runtimes.base import Capability
from guactors.runtimes.external import words
from guactors.runtimes.external.manifest import BUILT_IN, SUFFIX, VERBS, Manifest, parse

TEXT = (Path(__file__).parents[3] / "docs" / "drivers.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """From that heading to the next of the same depth."""
    depth = title.partition(" ")[0]
    _, found, rest = TEXT.partition(f"\n{title}\n")
    assert found, title
    return re.split(rf"\n{depth} ", rest)[0]


def test_the_manifest() -> None:
    part = section("## 1. The manifest")
    table = part.partition("| capability |")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(rows) == sorted(Manifest.__struct_fields__)
    assert all(f"`{name}`" in part for name in BUILT_IN)
    assert f"NAME{SUFFIX}" in part
    example = re.findall(r"```json\n(.*?)```", part, re.DOTALL)[0]
    assert parse(example.encode(), "the document").name == "machine"
    shipped = Path(__file__).parents[3] / "examples" / "driver" / "machine.gu-driver.json"
    assert json.loads(example) == json.loads(shipped.read_text())


def test_every_capability_and_what_it_brings() -> None:
    part = section("## 1. The manifest")
    rows = dict(re.findall(r"^\| ((?:`\w+` ?)+)\| ([^|]*)\|", part, re.MULTILINE))
    named = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert {str(one) for one in Capability} | VERBS <= named
    for verb, capability in words.NEEDS.items():
        cell = next(cell for names, cell in rows.items() if f"`{capability}`" in names)
        assert f"`{verb}`" in cell


def test_every_type_and_its_fields() -> None:
    types, _, errors = section("## 3. Lines").partition("| kind |")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*)\|", types, re.MULTILINE))
    for kind in get_args(words.Heard):
        for field in kind.__struct_fields__:
            assert f"`{field}`" in rows[kind.__struct_config__.tag]
    kinds = re.findall(r"^\| `(\w+)` \|", errors, re.MULTILINE)
    assert sorted(kinds) == sorted(get_args(words.Kind))


def test_every_verb_and_its_deadline() -> None:
    part = section("## 6. Deadlines and misbehaviour")
    found: dict[str, float] = {}
    for names, seconds in re.findall(r"^\| ([^|]*) \| (\d+)[^|]*\|", part, re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"`(\w+)`", names.partition(":")[0]), float(seconds))
    assert found == words.DEADLINES
    verbs = section("## 5. The verbs")
    headings = set(re.findall(r"\w+", " ".join(re.findall(r"^### (.*)$", verbs, re.MULTILINE))))
    orders = set(re.findall(r"^\| `(\w+)`", verbs, re.MULTILINE))
    assert set(words.DEADLINES) - {"send"} <= headings | orders


def test_the_limits() -> None:
    for number in (words.LINE, words.PIECE, words.BLOCK, words.WINDOW, words.MOST_ROOM):
        assert f"{number:,}" in TEXT
