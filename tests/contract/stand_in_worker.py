"""A worker that does one thing, named by its id: ``w-<body>-<anything>``. Files it writes go to
its ``run_dir``, so that a test can wait for them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from guactors.config import WorkerConfig

_prepared: list[int] = []


def prepare() -> None:
    _prepared.append(os.getpid())


def do_prepared(config: WorkerConfig, lifeline: int) -> None:
    print("prepared", _prepared == [os.getppid()])


def run_worker(config: WorkerConfig, lifeline: int) -> int:
    body = config.worker.split("-")[1]
    status: int | None = globals()[f"do_{body}"](config, lifeline)
    return status or 0


def do_wait(config: WorkerConfig, lifeline: int) -> None:
    """Until the provider is gone."""
    print("waiting", flush=True)
    select.select([lifeline], [], [])


def do_deaf(config: WorkerConfig, lifeline: int) -> None:
    """Deaf to SIGTERM, SIGINT and the lifeline."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("deaf")
    time.sleep(300)


def do_exit(config: WorkerConfig, lifeline: int) -> int:
    print("to out")
    print("to err", file=sys.stderr)
    return 7


def do_raise(config: WorkerConfig, lifeline: int) -> int:
    raise ValueError("no such luck")


def do_lines(config: WorkerConfig, lifeline: int) -> None:
    sys.stdout.write("before\n\x1efirst\x1fone\ntwo\n\x1esecond\x1fthree\nunfinished")
    sys.stdout.flush()


def do_partial(config: WorkerConfig, lifeline: int) -> None:
    print("prompt> ", end="", flush=True)
    select.select([lifeline], [], [])


def do_chatter(config: WorkerConfig, lifeline: int) -> None:
    for number in range(1000):
        print(f"{number} " + "x" * 10_000)
    print("last words", file=sys.stderr)


def do_verbose(config: WorkerConfig, lifeline: int) -> int:
    print("y" * 10_000 + "END", file=sys.stderr)
    return 1


def do_family(config: WorkerConfig, lifeline: int) -> None:
    """Has a child in its group that would live on."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    (Path(config.run_dir) / f"{config.worker}.child").write_text(str(child.pid))
    print("family", flush=True)
    select.select([lifeline], [], [])


def do_stray(config: WorkerConfig, lifeline: int) -> None:
    """Has a child in a session of its own, which has one in another."""
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'],"
        " start_new_session=True)\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
        "time.sleep(300)\n"
    )
    path = Path(config.run_dir) / config.worker
    argv = [sys.executable, "-c", code, f"{path}.grandchild"]
    child = subprocess.Popen(argv, start_new_session=True)
    Path(f"{path}.child").write_text(str(child.pid))
    print("stray", flush=True)
    select.select([lifeline], [], [])


def _await(config: WorkerConfig, what: str) -> None:
    path = Path(config.run_dir) / what
    while not path.exists():
        time.sleep(0.005)


def do_hog(config: WorkerConfig, lifeline: int) -> None:
    """Takes memory until there is no more, once it is told to."""
    print("ready", flush=True)
    _await(config, "go")
    taken = []
    while len(taken) < 512:
        taken.append(bytearray(b"x" * 2**20))
    print("got 512 MiB", flush=True)


def do_spin(config: WorkerConfig, lifeline: int) -> None:
    """Takes a second of all the processor time that eight processes get, once it is told to, and
    says how much that was: so many get more than half a processor on a busy machine, too."""
    print("ready", flush=True)
    _await(config, "go")
    begin = time.monotonic()
    children: list[int] = []
    while len(children) < 7 and (not children or children[-1]):
        children.append(os.fork())
    while time.monotonic() < begin + 1.2:
        pass
    if not children[-1]:
        os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    used = sum(os.times()[:4])
    print(f"used {used / (time.monotonic() - begin):.3f}", flush=True)


def do_escape(config: WorkerConfig, lifeline: int) -> None:
    """Has a child that leaves its group, once it is told to."""
    print("ready", flush=True)
    _await(config, "go")
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True
    )
    (Path(config.run_dir) / f"{config.worker}.child").write_text(str(child.pid))


def do_look(config: WorkerConfig, lifeline: int) -> int:
    """Report what a worker finds itself with."""
    handler = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    print("leader", os.getpgid(0) == os.getpid(), os.getsid(0) == os.getpid())
    print("stdin", repr(sys.stdin.read()))
    print("signals", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, handler)
    print("fds", [fd for fd in range(3, 64) if _is_open(fd) and not _same(fd, lifeline)])
    print("name", config.provider_name, "argv clean", config.identity.client_secret not in _argv())
    return 0


def do_environment(config: WorkerConfig, lifeline: int) -> None:
    """Report which secrets it, and a child of it, can read."""
    birth = Path("/proc/self/environ")
    print("own", "GU_PASSPHRASE" in os.environ)
    print("at birth", birth.exists() and b"GU_PASSPHRASE" in birth.read_bytes())
    shown = subprocess.run([sys.executable, "-c", "import os; print(dict(os.environ))"],
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    print("child", "GU_PASSPHRASE" in shown)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _same(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other))


def _argv() -> str:
    return Path("/proc/self/cmdline").read_text() if Path("/proc/self/cmdline").exists() else ""


def do_daemon(config: WorkerConfig, lifeline: int) -> None:
    """Leaves behind a process that left its group."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(300)"]
    child = subprocess.Popen(sleeper, start_new_session=True)
    (Path(config.run_dir) / f"{config.worker}.child").write_text(str(child.pid))
    child.returncode = 0
