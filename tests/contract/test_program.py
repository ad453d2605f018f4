"""Native programs as streaming tasks: their output, their end, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from guactors.runtimes import program
from guactors.runtimes.base import CHUNK
from guactors.runtimes.program import Chunk, run_program
from tests.command import ended, eventually

pytestmark = pytest.mark.needs("posix", "sh")


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    yield
    program.forget()


def outcome(chunks: list[Chunk]) -> tuple[bytes, bytes, int]:
    """Both streams, joined, and the exit code, which must come last and once."""
    *output, (kind, code) = chunks
    assert kind == "exit"
    assert isinstance(code, int)
    streams = {"out": b"", "err": b""}
    for name, data in output:
        assert isinstance(data, bytes)
        streams[name] += data
    return streams["out"], streams["err"], code


def sh(script: str, env: dict[str, str] | None = None, cwd: str = "") -> tuple[bytes, bytes, int]:
    return outcome(list(run_program(["sh", "-c", script], env or {}, cwd)))


def ends(*pids: int) -> None:
    eventually(lambda: all(ended(pid) for pid in pids), f"processes {pids} end")


def test_streams_are_kept_apart_and_the_code_comes_last() -> None:
    assert sh("echo out; echo err >&2; exit 3") == (b"out\n", b"err\n", 3)


def test_a_signal_is_a_negative_code() -> None:
    assert sh("kill -9 $$") == (b"", b"", -signal.SIGKILL)


def test_bytes_arrive_unchanged_whatever_they_are() -> None:
    size = 3 * CHUNK + 17
    out, err, code = sh(f"head -c {size} /dev/urandom | tee copy; cat copy >&2")
    assert (len(out), out, code) == (size, err, 0)


def test_a_slow_reader_loses_nothing_of_a_program_that_has_ended() -> None:
    chunks = run_program(["sh", "-c", "head -c 200000 /dev/zero"], {}, "")
    first = next(chunks)
    pids = psutil.Process().children(recursive=True)
    psutil.wait_procs(pids, timeout=0.3)
    assert len(outcome([first, *chunks])[0]) == 200_000


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["nonesuch-program"], program.NOT_FOUND, "nonesuch-program: No such file"),
        (["/etc/passwd"], program.NOT_EXECUTABLE, "/etc/passwd: Permission denied"),
    ],
)
def test_a_program_that_cannot_start_is_one_line_and_the_shells_code(
    argv: list[str], code: int, words: str
) -> None:
    out, err, status = outcome(list(run_program(argv, {}, "")))
    assert (out, status) == (b"", code)
    assert words in err.decode()
    assert err.count(b"\n") == 1


def test_a_missing_directory_is_named() -> None:
    _, err, code = sh("true", cwd="/nonesuch")
    assert code == program.NOT_FOUND
    assert b"no directory /nonesuch" in err


def test_environment_and_directory(tmp_path: Path) -> None:
    assert sh("echo $GREETING; pwd", {"GREETING": "hello"}, str(tmp_path)) == (
        f"hello\n{tmp_path}\n".encode(),
        b"",
        0,
    )


def test_the_default_directory_is_fresh_and_removed() -> None:
    out, _, _ = sh("pwd; ls -A; echo x > file")
    [directory] = out.decode().splitlines()
    assert not Path(directory).exists()


def test_standard_input_is_empty() -> None:
    assert sh("cat; echo end") == (b"end\n", b"", 0)


def test_what_it_leaves_in_the_background_ends_with_it() -> None:
    out, _, code = sh("sleep 60 & echo $!")
    assert code == 0
    ends(int(out))


def test_a_program_that_closes_its_streams_is_waited_for() -> None:
    assert sh("exec >&- 2>&-; sleep 0.3; exit 5")[2] == 5


def test_kill_0_in_a_script_ends_only_the_script() -> None:
    assert sh("trap 'kill 0' EXIT; echo done") == (b"done\n", b"", -signal.SIGTERM)


def test_closing_the_generator_ends_the_program_even_if_it_ignores_sigterm() -> None:
    script = "trap '' TERM; sleep 60 & echo $$ $!; wait; wait"
    chunks = run_program(["sh", "-c", script], {}, "")
    _, line = next(chunks)
    assert isinstance(line, bytes)
    chunks.close()
    ends(*map(int, line.split()))


def test_an_interrupt_while_it_is_silent_ends_the_program() -> None:
    chunks = run_program(["sh", "-c", "echo $$; sleep 60"], {}, "")
    _, pid = next(chunks)
    assert isinstance(pid, bytes)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            next(chunks)
    finally:
        signal.signal(signal.SIGALRM, previous)
    ends(int(pid))


def test_killing_the_worker_ends_the_program_and_removes_its_directory() -> None:
    code = (
        "from guactors.runtimes.program import run_program\n"
        "for chunk in run_program(['sh', '-c', 'sleep 60 & pwd; echo $$ $!; wait'], {}, ''):\n"
        "    print(chunk[1].decode(), end='', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        directory = Path(worker.stdout.readline().strip())
        pids = [int(pid) for pid in worker.stdout.readline().split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        guardian = next(
            child.pid
            for child in psutil.Process(worker.pid).children()
            if "guardian" in child.cmdline()
        )
        os.kill(worker.pid, signal.SIGKILL)
    ends(*pids, guardian)
    assert not directory.exists()
