"""The README and the tutorial do what they say: their Python runs as one program each, their shell
sessions as one session, and what they print is what the comments promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/tutorial.md", "docs/integrations.md")


def blocks(document: str, language: str) -> Iterator[str]:
    """The fenced blocks of ``language``, in order."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield match[1]


def promised(source: str) -> list[str]:
    """The lines that ``source`` says it prints: comments behind a print, and comments alone in a
    line at the end of a block, of which each stands for one line."""
    comments = []
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            before = token.line[: token.start[1]].strip()
            if not before or before.startswith("print("):
                comments.append(token.string.removeprefix("#").strip())
    return comments


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_prints_what_it_says(document: str, tmp_path: Path) -> None:
    source = "\n".join(blocks(document, "python"))
    program = tmp_path / "program.py"
    program.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program], check=False, capture_output=True, text=True, cwd=tmp_path,
        timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == promised(source)


def test_shell_session_of_the_tutorial(tmp_path: Path) -> None:
    session = "".join(blocks("docs/tutorial.md", "console"))
    commands = re.findall(r"^\$ (.*)$", session, re.MULTILINE)
    assert commands[0] == "gu up"
    assert commands[-1] == "gu down"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    script = "\n".join(["trap 'gu down >/dev/null 2>&1' EXIT", "set -e", *commands, "trap - EXIT"])
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path},
        check=False, capture_output=True, text=True, cwd=tmp_path, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "hello from" in done.stdout
    assert "'CPU'" in done.stdout
