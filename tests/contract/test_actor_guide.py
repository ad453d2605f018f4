"""``docs/actors.md`` does what it says: its Python runs as one program and prints its comments."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "actors.md"


def test_the_guide_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    source = "\n".join(blocks)
    promised = re.findall(r"^ *print\(.*\) +# (.*)$", source, re.MULTILINE)
    assert len(promised) >= 4
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, str(GUIDE), "exec"), {"__name__": "guide"})
    assert printed.getvalue().splitlines() == promised
