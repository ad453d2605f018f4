"""Virtual environments, built by a process of their own.

Owns: the builder process from its start to its end, and the last words of the tools it runs. Must
never: block the caller's loop (``build`` blocks, it is called in a thread), or leave a tool running
when the provider ends: the builder holds a lifeline, and its group ends with it.

Run as a module it is the builder: it reads a :class:`Request` from its standard input, which stays
open as the lifeline; what the tools print is its output; its exit status is the outcome.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import IO, Final

import msgspec

from guactors.runtimes import tree
from guactors.runtimes.command import environment, python_module
from guactors.runtimes.entry import LENGTH_BYTES, read_exactly

TAIL_LINES: Final = 40
_SEEN: Final = "_seen_from_here.pth"


class Request(msgspec.Struct, frozen=True):
    """``target``: the directory to make; ``tool``: ``pip`` or ``uv``; ``packages``: lines of
    requirements; ``python``: the interpreter, empty for our own; ``cwd``: where relative paths
    begin."""

    target: str
    tool: str
    packages: list[str]
    options: list[str] = []
    check: bool = False
    version: str = ""
    python: str = ""
    cwd: str = ""


class BuildFailed(Exception):
    """The message has the last lines that the tool printed."""


class Builders:
    """The builders that run. ``close`` ends them; ``build`` may be called by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def build(self, request: Request, timeout: float) -> None:
        """Make the virtual environment. Raises BuildFailed; then the target is worth nothing."""
        with self._lock:
            if self._closed:
                raise BuildFailed("the provider stops")
            builder = subprocess.Popen(
                python_module("guactors.runtimes.envbuild"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )
            self._running.add(builder)
        try:
            self._watch(builder, request, timeout)
        finally:
            with self._lock:
                self._running.discard(builder)

    def _watch(self, builder: subprocess.Popen[bytes], request: Request, timeout: float) -> None:
        late = threading.Event()

        def too_late() -> None:
            late.set()
            self._kill(builder)

        timer = threading.Timer(timeout, too_late)
        timer.daemon = True
        timer.start()
        try:
            _tell(builder, request)
            words = _last_lines(builder.stdout)
            status = builder.wait()
        finally:
            timer.cancel()
            timer.join()
            self._kill(builder)
            for pipe in (builder.stdin, builder.stdout):
                if pipe is not None:
                    pipe.close()
        if late.is_set():
            raise BuildFailed(
                f"{request.tool} did not end within {timeout:.0f} s (config="
                f'{{"setup_timeout_seconds": ...}} allows more); it said last:\n{words}'
            )
        if status:
            raise BuildFailed(f"{request.tool} failed (exit status {status}):\n{words}")

    def _kill(self, builder: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if builder.returncode is None:
                tree.kill_tree(builder.pid)

    def close(self) -> None:
        """End all of them; no other one begins."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for builder in running:
            self._kill(builder)


def _tell(builder: subprocess.Popen[bytes], request: Request) -> None:
    data = msgspec.msgpack.encode(request)
    assert builder.stdin is not None
    try:
        builder.stdin.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        builder.stdin.flush()
    except BrokenPipeError:
        # It ended before it listened; its output says why.
        return


def _last_lines(output: IO[bytes] | None) -> str:
    assert output is not None
    lines: deque[bytes] = deque(maxlen=TAIL_LINES)
    for line in output:
        lines.append(line[:1000].rstrip())
    return b"\n".join(lines).decode("utf-8", "backslashreplace")


# --- the builder ----------------------------------------------------------------------------------


def main() -> None:
    """Build one, and exit with the status of the tool that failed, or 0."""
    length = int.from_bytes(read_exactly(0, LENGTH_BYTES), "big")
    request = msgspec.msgpack.decode(read_exactly(0, length), type=Request)
    lifeline = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    try:
        _build(request)
    except subprocess.CalledProcessError as error:
        sys.stdout.flush()
        os._exit(error.returncode if 0 < error.returncode < 256 else 1)
    except OSError as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        sys.stdout.flush()
        os._exit(1)


def _end_with(lifeline: int) -> None:
    while os.read(lifeline, 1):
        continue
    tree.end_own_group()


def _build(request: Request) -> None:
    base = request.python or sys.executable
    _run([base, "-I", "-m", "venv", "--without-pip", request.target], "")
    python = _python(request.target)
    packages = Path(
        subprocess.run(
            [python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()
    )  # fmt: skip
    # What the provider has is there as well, behind what is installed now; with ``addsitedir``
    # the .pth files in there count too.
    seen = [f"import site; site.addsitedir({where!r})" for where in site.getsitepackages()]
    (packages / _SEEN).write_text("\n".join(seen) + "\n")
    lines = Path(request.target, "requirements.txt")
    lines.write_text("\n".join(request.packages) + "\n")
    environ = {"GU_WORKING_DIR": request.cwd, "RAY_RUNTIME_ENV_CREATE_WORKING_DIR": request.cwd}
    words = [*_tool(request, python), "-r", str(lines), *request.options]
    if request.packages:
        _run(words, request.cwd, environ)
    if request.check:
        _run([*_pip(python), "check"], request.cwd)


def _tool(request: Request, python: str) -> list[str]:
    """The command line of the install, but for what."""
    if request.tool == "uv":
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        if request.version or not os.path.exists(uv):
            target = [f"uv{request.version}"]
            _run([*_pip(python), "install", *_QUIET, *target], request.cwd)
            uv = str(Path(python).with_name("uv"))
        return [uv, "pip", "install", "--python", python]
    if request.version:
        _run([*_pip(python), "install", *_QUIET, f"pip{request.version}"], request.cwd)
        return [python, "-m", "pip", "install", *_QUIET]
    return [*_pip(python), "install", *_QUIET]


_QUIET: Final = ("--no-input", "--disable-pip-version-check", "--no-warn-script-location")


def _pip(python: str) -> list[str]:
    """Our own pip at work on another environment: installing one there first would take seconds."""
    return [sys.executable, "-P", "-m", "pip", "--python", python]


def _python(directory: str) -> str:
    where = ("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")
    return str(Path(directory, *where))


def _run(words: list[str], cwd: str, environ: dict[str, str] | None = None) -> None:
    subprocess.run(
        words, check=True, cwd=cwd or None, env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
    )  # fmt: skip


if __name__ == "__main__":
    main()
