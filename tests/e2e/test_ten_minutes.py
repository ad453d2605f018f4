"""``docs/ten-minutes.md`` typed line by line into the terminals that it names; what they show is
what the document says, where ``...`` stands for anything, and alone for any lines."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from guactors.images.manifest import CHUNK, blob_hash, chunk_hash

DOCUMENT = Path(__file__).parents[2] / "docs" / "ten-minutes.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAVE = re.compile(r"Save this as `([^`]+)`:\n\n\Z")
PROMPT = re.compile(r"^(\w+)\$ (.+)$")
CTRL_C = "^C"
STAYS = ("gu hub", "gu provider")
"""What runs until Ctrl-C."""
WITHIN = 30.0

pytestmark = [pytest.mark.needs("posix", "bash", "tee"), pytest.mark.timeout(180)]


class File(NamedTuple):
    """To be saved under a name."""

    name: str
    text: str


class Line(NamedTuple):
    """Typed in a terminal; ``shown``: what it promises to show."""

    terminal: str
    command: str
    shown: list[str]

    @property
    def stays(self) -> bool:
        """Whether it is still running when it has shown that."""
        return any(word in self.command for word in STAYS)

    def fits(self, output: str) -> bool:
        """Whether it is what was promised. What goes through a pipe can be overtaken."""
        orders = permutations(self.shown) if " | " in self.command else [self.shown]
        return any(fits(shown, output) for shown in orders)


def steps(text: str) -> Iterator[File | Line]:
    """What a reader of the document does, in order."""
    for block in BLOCK.finditer(text):
        language, body = block.groups()
        name = SAVE.search(text, 0, block.start())
        if name:
            yield File(name[1], body)
        elif language == "console":
            line: Line | None = None
            for one in body.splitlines():
                prompt = PROMPT.match(one)
                if prompt:
                    if line is not None:
                        yield line
                    line = Line(prompt[1], prompt[2], [])
                else:
                    assert line is not None, f"output before a command: {one}"
                    line.shown.append(one)
            if line is not None:
                yield line


def spaced(text: str) -> str:
    """With one space where tables have several, and without lines that are only the rest of a cell
    of a table."""
    return "".join(
        " ".join(line.split()) + "\n" for line in text.splitlines() if not line.startswith(" " * 20)
    )


def fits(shown: Sequence[str], output: str) -> bool:
    """Whether the output is what the lines promise."""
    pattern = ""
    for line in shown:
        words = re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*")
        pattern += r"(?:.*\n)*" if line == "..." else words + r"\n"
    return re.fullmatch(pattern, spaced(output)) is not None


def until(true: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + WITHIN
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(what(), pytrace=False)
        time.sleep(0.02)


class Terminal:
    """A shell; what it shows goes into a file."""

    def __init__(self, name: str, where: Path, log: Path) -> None:
        self._log = log / f"{name}.log"
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = {key: value for key, value in os.environ.items() if not key.startswith("GU_")}
        with self._log.open("wb") as file:
            self._shell = subprocess.Popen(
                ["bash"], stdin=subprocess.PIPE, stdout=file, stderr=file, cwd=where,
                env={**env, "PATH": path}, start_new_session=True,
            )  # fmt: skip
        self._seen = 0
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGINT)
            try:
                self._shell.wait(5.0)
            except subprocess.TimeoutExpired:
                os.killpg(self._shell.pid, signal.SIGKILL)
                self._shell.wait(WITHIN)

    def _output(self) -> str:
        return self._log.read_bytes()[self._seen :].decode()

    def _send(self, text: str) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.write(text.encode())
        self._shell.stdin.flush()

    def type(self, line: Line) -> None:
        """Type it, and see what it promises."""
        if line.command == CTRL_C:
            self._interrupt()
            return
        self._seen += len(self._log.read_bytes()[self._seen :])
        self._count += 1
        end = f"\x1e{self._count}\n"
        self._send(line.command + "\n")

        def problem() -> str:
            want = "\n".join(line.shown)
            return f"{line.terminal}$ {line.command}\n\n{self._output()}\nwas to be\n\n{want}"

        if line.stays:
            until(lambda: line.fits(self._output()), problem)
            return
        self._send(f"printf '\\036%s\\n' {self._count}\n")
        until(lambda: self._output().endswith(end), problem)
        if not line.fits(self._output().removesuffix(end)):
            pytest.fail(problem(), pytrace=False)

    def _interrupt(self) -> None:
        """Ctrl-C: what runs in the foreground ends without a word."""
        before = self._output()
        os.killpg(self._shell.pid, signal.SIGINT)
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(WITHIN)
        assert self._output() == before


def test_every_line_of_the_document(tmp_path: Path) -> None:
    where, log = tmp_path / "empty", tmp_path / "log"
    where.mkdir()
    log.mkdir()
    text = DOCUMENT.read_text(encoding="utf-8")
    terminals: dict[str, Terminal] = {}
    with ExitStack() as stack:
        for step in steps(text):
            if isinstance(step, File):
                path = where / step.name
                path.parent.mkdir(exist_ok=True)
                path.write_text(step.text, encoding="utf-8")
                continue
            if step.terminal not in terminals:
                terminal = Terminal(step.terminal, where, log)
                terminals[step.terminal] = stack.enter_context(terminal)
            terminals[step.terminal].type(step)
    assert set(terminals) == {"owner", "hub", "box", "app"}


@pytest.mark.parametrize("size", [1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_the_hash_tree_of_the_other_document(size: int) -> None:
    """``docs/images.md`` tells how a blob is named."""
    text = DOCUMENT.with_name("images.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in BLOCK.finditer(text):
        if block[1] == "python":
            exec(block[2], names)
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    hashes = [chunk_hash(data[start : start + CHUNK]) for start in range(0, size, CHUNK)]
    assert names["blob_name"](data) == blob_hash(size, hashes)


@pytest.mark.parametrize(
    ("shown", "output", "right"),
    [
        (["a ... c"], "a b c\n", True),
        (["a ... c"], "a b\nc\n", False),
        (["a"], "a\nb\n", False),
        (["a", "b"], "a\n", False),
        (["A B", "x ..."], "A     B\nx     1\n", True),
        ([], "", True),
        ([], "Traceback\n", False),
        (["a", "...", "c"], "a\nb\nb\nc\n", True),
        (["a", "...", "c"], "a\nc\n", True),
        (["a", "...", "c"], "a\nb\n", False),
        (["what (*) is ..."], "what (*) is it\n", True),
    ],
)
def test_how_it_is_compared(shown: list[str], output: str, right: bool) -> None:
    assert fits(shown, output) == right
