"""``gu doctor``: what works on this machine and what does not, with the remedy.

Owns: how findings are shown. Must never: decide what is healthy (``checks.py`` and
``runtime_checks.py`` do).
"""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain

import typer

from guactors.cli.checks import FAIL, OK, examine
from guactors.cli.console import FAILURE, console, print_json
from guactors.cli.options import AsJson
from guactors.cli.runtime_checks import examine_runtimes

_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(as_json: AsJson = False) -> None:
    """Check this machine; exit status 1 if something that is needed does not work."""
    findings = []
    terminal = console()
    for finding in chain(examine(), examine_runtimes()):
        findings.append(finding)
        if as_json:
            continue
        mark = f"[{_STYLE[finding.state]}]{finding.state:<4}[/]"
        terminal.print(f"{mark}  {finding.check:<11} ", end="", markup=True)
        terminal.print(finding.found, markup=False, soft_wrap=True)
        if finding.state != OK:
            terminal.print(f"      {'':<11} -> {finding.remedy}", markup=False, soft_wrap=True)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if any(finding.state == FAIL for finding in findings):
        raise typer.Exit(FAILURE)
