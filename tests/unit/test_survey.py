"""The analysis and the chart of ``examples/survey.py``, without a grid."""

from __future__ import annotations

import ast
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def survey() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXAMPLES))
    yield import_module("survey")
    sys.path.remove(str(EXAMPLES))


def complexity_of(survey: Any, source: str) -> dict[str, int]:
    functions, _ = survey.measure(ast.parse(source))
    return {name: complexity for name, _, complexity in functions}


@pytest.mark.parametrize(
    ("body", "decisions"),
    [
        ("pass", 0),
        ("if a: pass\nelif b: pass\nelse: pass", 2),
        ("return a if b else c", 1),
        ("return a and b and c or d", 3),
        ("for x in y: pass\nelse: pass", 1),
        ("while True: break", 1),
        ("try: pass\nexcept A: pass\nexcept B: pass\nfinally: pass", 2),
        ("return [x for x in y if x if y]", 3),
        ("match a:\n case 1: pass\n case 2: pass\n case _: pass", 2),
        ("match a:\n case _ if b: pass", 1),
        ("with a: pass", 0),
    ],
)
def test_decisions(survey: Any, body: str, decisions: int) -> None:
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    assert complexity_of(survey, f"def f():\n{indented}") == {"f": 1 + decisions}


def test_nested_functions_count_for_themselves(survey: Any) -> None:
    source = """
class A:
    def method(self):
        if 1: pass
        def inner():
            if 2: pass
            if 3: pass
    async def other(self): pass
if 4: pass
"""
    assert complexity_of(survey, source) == {
        "A.method": 2,
        "A.method.inner": 3,
        "A.other": 1,
    }


def test_same_name_twice_is_two_functions(survey: Any) -> None:
    source = "if a:\n def f(): pass\nelse:\n def f():\n  if b: pass\n"
    assert sorted(complexity_of(survey, source).values()) == [1, 2]


def test_file_that_does_not_parse_is_counted(survey: Any) -> None:
    for source in (b"def (:\n", b"\0", b"# coding: no-such-codec\n"):
        tally = survey.survey_file("bad.py", source)
        assert (tally["files"], tally["unparsed"], tally["functions"]) == (1, 1, 0)


def test_batches_keep_order_and_limit(survey: Any) -> None:
    sizes = [3, 3, 5, 20, 1, 1]
    sources = [survey.Source("p", f"{number}.py", size) for number, size in enumerate(sizes)]
    batches = list(survey.batches(sources, limit=8))
    assert [source for batch in batches for source in batch] == sources
    assert [sum(source.size for source in batch) for batch in batches] == [6, 5, 20, 2]


def test_merge_of_parts_is_survey_of_whole(survey: Any) -> None:
    files = [
        ("a", "a/x.py", b"class C:\n def f(self): return 1 if 2 else 3\n"),
        ("b", "b.py", b"def g():\n\n\n return 0\n"),
        ("a", "a/y.py", b"def h(): pass\n"),
    ]
    whole = survey.survey_batch(files)
    assert survey.merge(*(survey.survey_batch([file]) for file in files)) == whole
    assert whole["a"] == {
        "files": 2, "unparsed": 0, "bytes": sum(len(files[at][2]) for at in (0, 2)), "lines": 3,
        "classes": 1, "functions": 2, "complexity": 3, "worst": (2, "a/x.py:C.f"),
        "longest": (1, "a/y.py:h"),
    }  # fmt: skip


def test_tests_and_single_modules_are_packages(survey: Any) -> None:
    assert survey.package_of(("json", "tool.py")) == "json"
    assert survey.package_of(("argparse.py",)) == "argparse"
    assert survey.package_of(("lib2to3", "tests", "data", "x.py")) == "test"


def test_find_sources_leaves_installed_packages_out(survey: Any, tmp_path: Path) -> None:
    for name in ("b.py", "a/x.py", "site-packages/pip/y.py", "a/notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
    assert survey.find_sources(tmp_path) == [("b", "b.py", 6), ("a", "a/x.py", 6)]


def test_chart_is_well_formed_and_bars_are_to_scale(survey: Any) -> None:
    chart = import_module("survey_chart")
    bars = [chart.Bar("<one>", 4.0, "4"), chart.Bar("two & half", 1.0, "1")]
    text = chart.bar_chart("t", "s", "f", chart.Bar("", 0, "heads"), bars)
    root = ET.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(rect.attrib["width"]) for rect in root.iter(f"{space}rect")][1:]
    assert widths[0] == pytest.approx(4 * widths[1], abs=0.3)
    texts = [element.text for element in root.iter(f"{space}text")]
    assert "<one>" in texts
    assert "two & half" in texts


def test_chart_refuses_nothing_and_less_than_nothing(survey: Any) -> None:
    chart = import_module("survey_chart")
    heads = chart.Bar("", 0, "")
    for bars in ([], [chart.Bar("x", -1.0, "")]):
        with pytest.raises(ValueError, match="bar"):
            chart.bar_chart("t", "s", "f", heads, bars)
