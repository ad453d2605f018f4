"""Stack dumps: every thread and coroutine, within a bound, and by a signal without the
interpreter."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from guactors.runtimes import spy
from guactors.worker import stack
from guactors.worker.stack import SIGNAL, dump, dump_path, listen, written_by
from tests.command import eventually


def test_the_main_thread_comes_first_and_each_has_its_name() -> None:
    here, go = threading.Event(), threading.Event()

    def wait_for_the_test() -> None:
        here.set()
        go.wait()

    thread = threading.Thread(target=wait_for_the_test, name="second")
    thread.start()
    here.wait()
    try:
        first, *others = dump()
    finally:
        go.set()
        thread.join()
    assert first.startswith("MainThread\n")
    assert "first, *others = dump()" in first
    (second,) = [text for text in others if text.startswith("second\n")]
    assert "in wait_for_the_test" in second
    assert "go.wait()" in second


async def inner(gate: asyncio.Event) -> None:
    await gate.wait()


async def outer(gate: asyncio.Event) -> None:
    await inner(gate)


def test_a_coroutine_is_shown_down_to_where_it_waits() -> None:
    async def main() -> list[str]:
        gate = asyncio.Event()
        task = asyncio.create_task(outer(gate))
        await asyncio.sleep(0)
        texts = dump([("Sleeper.nap", task.get_coro())])
        gate.set()
        await task
        return texts

    text = asyncio.run(main())[-1]
    assert text.startswith("coroutine of Sleeper.nap\n")
    assert text.index("in outer") < text.index("in inner")
    assert text.splitlines()[-1].strip().startswith(("await self", "await fut", "await gate"))


def test_a_dump_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "WHOLE", 10)
    assert dump() == ["(more threads are not shown)"]

    def dive(depth: int) -> list[str]:
        return dump() if not depth else dive(depth - 1)

    monkeypatch.setattr(stack, "WHOLE", 400_000)
    text = dive(400)[0]
    assert len(text) <= stack.LONGEST
    assert "first, *others" not in text
    assert "return dump()" in text, "the innermost frames are those that count"


HELD = """
import os, re, sys
if sys.argv[2] == "named" and hasattr(os, "memfd_create"):
    del os.memfd_create
from guactors.worker.stack import listen
listen(sys.argv[1])
print("here", flush=True)
re.match(r"(a+)+$", "a" * 60 + "b")  # holds the interpreter for hours
"""


@pytest.mark.skipif(SIGNAL is None, reason="no such signals on this system")
@pytest.mark.parametrize("where", ["named", "nameless"])
def test_a_signal_brings_the_stack_of_a_process_that_holds_its_interpreter(
    tmp_path: Path, where: str
) -> None:
    path = dump_path(str(tmp_path), "w-1")
    process: subprocess.Popen[str] = subprocess.Popen(
        [sys.executable, "-c", HELD, path, where], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"

            def in_the_match() -> bool:
                assert SIGNAL is not None
                file = written_by(process.pid, path)
                (text,) = asyncio.run(spy.by_signal(process.pid, SIGNAL, file))
                assert text.startswith("Current thread")
                return "line 8" in text

            for _ in range(2):
                eventually(in_the_match, "the dump shows the line that calls the C function")
        finally:
            process.kill()
    if where == "named" or not hasattr(os, "memfd_create"):
        assert Path(path).stat().st_mode & 0o777 == 0o600
    else:
        assert not Path(path).exists()


def test_a_process_that_is_gone_or_does_not_listen_brings_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w-1.stack"
    gone: subprocess.Popen[bytes] = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert asyncio.run(spy.by_signal(gone.pid, 0, str(path))) == []
    path.touch()
    assert asyncio.run(spy.by_signal(gone.pid, 0, str(path))) == []


def test_listening_twice_is_no_trouble(tmp_path: Path) -> None:
    code = "import sys; from guactors.worker.stack import listen; listen(sys.argv[1]); " * 2
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], check=True)
    assert callable(listen)


def test_py_spy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spy, "find_spy", lambda: None)
    texts, fault = asyncio.run(spy.by_spy(1))
    assert texts == []
    assert "py-spy is not installed on this provider" in fault


PROGRAM = """#!{python}
import sys
print("Process 7: python\\n\\nThread 7 (idle): main\\n    f (x.py:1)")
print("Thread 8: other\\n    g (x.py:2)")
sys.exit({status} and "Permission Denied")
"""


@pytest.mark.parametrize("status", [0, 1])
def test_what_py_spy_says_is_passed_on(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "py-spy"
    program.write_text(PROGRAM.format(python=sys.executable, status=status))
    program.chmod(0o700)
    monkeypatch.setattr(spy, "find_spy", lambda: str(program))
    texts, fault = asyncio.run(spy.by_spy(7))
    found: tuple[Any, ...] = (len(texts), fault)
    if status:
        assert found[0] == 0
        assert "Permission Denied" in fault
    else:
        assert found == (3, "")
        assert texts[1].startswith("Thread 7 (idle): main")
