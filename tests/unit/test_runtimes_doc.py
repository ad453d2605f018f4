"""``docs/runtimes.md`` has the table of the suite as it is now: every case, every runtime."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.contract import conformance
from tests.contract.conformance import BEGIN, END, Outcome, case_name, outcome_of, table
from tests.contract.runtime_bench import BENCHES

ROOT = Path(__file__).parents[2]
REMEDY = "the suite has changed: run scripts/runtimes-table"


def rows() -> list[list[str]]:
    """The cells of the table on the page, its heading first."""
    text = (ROOT / "docs" / "runtimes.md").read_text(encoding="utf-8")
    between = text.partition(BEGIN)[2].partition(END)[0]
    lines = [line for line in between.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def cases() -> list[str]:
    """Of the suite, in its order."""
    suite = ROOT / "tests" / "contract" / conformance.SUITE
    tree = ast.parse(suite.read_text(encoding="utf-8"))
    names = [one.name for one in tree.body if isinstance(one, ast.FunctionDef)]
    return [case_name(name) for name in names if name.startswith("test_")]


def test_it_names_every_runtime_of_the_suite() -> None:
    assert rows()[0] == ["case", *BENCHES], REMEDY


def test_it_names_every_case_of_the_suite() -> None:
    assert [row[0] for row in rows()[1:]] == cases(), REMEDY


def test_nothing_in_it_failed() -> None:
    known = {one.text for one in Outcome} - {Outcome.FAILED.text}
    assert {cell for row in rows()[1:] for cell in row[1:]} <= known, REMEDY


def test_every_case_passed_somewhere() -> None:
    alone = [row[0] for row in rows()[1:] if Outcome.PASSED.text not in row]
    assert alone == []


# --- how it is made -------------------------------------------------------------------------------


def report(outcome: str, when: str = "call", said: str = "") -> pytest.TestReport:
    made = SimpleNamespace(
        failed=outcome == "failed", skipped=outcome == "skipped", when=when, longrepr=said
    )
    return cast(pytest.TestReport, made)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (report("passed"), Outcome.PASSED),
        (report("passed", "setup"), None),
        (report("failed", "teardown"), Outcome.FAILED),
        (report("skipped", "setup", "Skipped: qemu is not capable of cpu"), Outcome.NOT_CAPABLE),
        (report("skipped", "setup", "Skipped: needs dockerd"), Outcome.NOT_HERE),
    ],
)
def test_what_a_report_means(given: pytest.TestReport, outcome: Outcome | None) -> None:
    assert outcome_of(given) is outcome


def test_the_table_has_the_order_of_the_suite_and_of_the_runtimes() -> None:
    found = {
        ("b", "two"): Outcome.NOT_CAPABLE,
        ("a", "two"): Outcome.FAILED,
        ("b", "one"): Outcome.PASSED,
    }
    assert table(found, ["one", "two", "three"]).splitlines() == [
        "| case | one | two |",
        "|---|---|---|",
        "| b | passed | not capable |",
        "| a | not here | failed |",
    ]


def test_it_is_written_between_its_marks_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[Any, Outcome] = {("a", "one"): Outcome.PASSED}
    monkeypatch.setattr(conformance, "_found", found)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    conformance.write(["one"])
    assert "old" in page.read_text()
    monkeypatch.setenv(conformance.VARIABLE, str(page))
    conformance.write(["one"])
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\nOf the run on ")
    assert text.endswith(f"| a | passed |\n{END}\nafter\n")
    page.write_text("no marks")
    with pytest.raises(pytest.UsageError, match="has not the lines"):
        conformance.write(["one"])
