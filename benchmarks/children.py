"""Processes that measure: each has an interpreter, and perhaps a grid, of its own.

Owns: starting one (``python -m MODULE``), asking it by lines of JSON over its pipes, ending it.
Must never: know what is measured. A child answers ``{"value": ...}`` or ``{"error": "..."}``.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
ANSWER_WITHIN = 120.0
END_WITHIN = 10.0


class ChildFailed(Exception):
    """A child ended, kept silent or reported an error; its stderr is on ours, or in its log."""


class ChildLost(ChildFailed):
    """It ended or kept silent: nothing more can be asked of it."""


class Child:
    """``python -m module *arguments`` in the repository, with ``env`` on top of ours. ``python``:
    another interpreter than ours; ``log``: the file to which its stderr is appended."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        log: Path | None = None,
    ) -> None:
        self.name = " ".join([module, *arguments])
        self._log = log.open("ab") if log is not None else None
        self._popen = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
        )
        self.pid = self._popen.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def ask(self, question: str = "", timeout: float = ANSWER_WITHIN) -> Any:
        """Have ``question`` measured; its value. Raises ChildFailed with the error that the child
        reports, ChildLost. An empty question sends nothing and waits for what the child says of
        itself."""
        popen = self._popen
        assert popen.stdin is not None
        assert popen.stdout is not None
        try:
            if question:
                popen.stdin.write(question.encode() + b"\n")
                popen.stdin.flush()
        except BrokenPipeError:
            raise ChildLost(f"{self.name} has ended before it was asked {question!r}") from None
        # One answer per question: nothing is left in the buffer that select cannot see.
        if not select.select([popen.stdout], [], [], timeout)[0]:
            raise ChildLost(f"{self.name} did not answer {question!r} within {timeout:g} s")
        line = popen.stdout.readline()
        if not line:
            raise ChildLost(f"{self.name} ended instead of answering {question!r}")
        answer = json.loads(line)
        if "error" in answer:
            raise ChildFailed(f"{self.name}, asked {question!r}: {answer['error']}")
        return answer["value"]

    def close(self, within: float = END_WITHIN) -> None:
        """Close its input, which ends it; kill it when that takes too long. Idempotent."""
        popen = self._popen
        assert popen.stdin is not None
        assert popen.stdout is not None
        popen.stdin.close()
        try:
            popen.wait(within)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
        popen.stdout.close()
        if self._log is not None:
            self._log.close()


def answer(value: Any) -> None:
    """Say one value to whoever started this child."""
    print(json.dumps({"value": value}), flush=True)


def serve(handlers: Mapping[str, Callable[[], Any]]) -> None:
    """Answer questions, each with the value of its handler, until the input ends."""
    for line in sys.stdin:
        question = line.strip()
        try:
            value = handlers[question]()
        except Exception as error:  # noqa: BLE001  it is reported to the asker, who raises it
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        else:
            answer(value)


def rate(once: Callable[[], object], seconds: float, each: int = 1) -> float:
    """How many a second: ``once`` is repeated for ``seconds`` and counts as ``each``."""
    clock = time.perf_counter
    step = max(1, 20 // each)
    count = 0
    began = clock()
    while (passed := clock() - began) < seconds:
        for _ in range(step):
            once()
        count += step * each
    return count / passed
