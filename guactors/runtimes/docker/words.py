"""What is said to the daemon of containers and programs, and what it says of those that failed.

Owns: the bodies of its calls, the labels, and the reading of its complaints. Must never: leave a
program more than it needs: no capability, no network, nothing that it could become.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from guactors.errors import GuactorsError, ProgramNotStarted, UsageError
from guactors.messages import Limits
from guactors.runtimes.base import Command, Exit, Mount, Output, Spec
from guactors.runtimes.docker import init
from guactors.runtimes.mounts import check_paths

OWNER: Final = "gu.owner"
INSTANCE: Final = "gu.instance"
KEEPER: Final = "gu.keeper"
"""Labels of our containers."""
LEAST_CPU: Final = 0.01
"""Processors; the daemon takes no less."""
NOT_FOUND: Final = 127
NOT_RUN: Final = 126
_SIGNALS: Final = 65
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}", re.ASCII)
_MISSING: Final = re.compile(r"no such file or directory|executable file not found", re.ASCII)
_NO_USER: Final = re.compile(r"unable to find (?:user|group) |no such (?:user|group)", re.ASCII)
_COMPLAINT: Final = re.compile(
    r"OCI (?:runtime|permission)|unable to start container process|exec failed|crun: ", re.ASCII
)
_LATE: Final = re.compile(
    rb"exec (?P<program>[^\n]+): (?P<why>exec format error|permission denied|"
    rb"no such file or directory|[a-z ]{4,60})\n"
)
"""What runc says in the name of the program when the kernel does not want to run it."""
_TEXT_MOST: Final = 1000


class State(Struct, frozen=True):
    """Of a program, as the daemon knows it. ``pid``: on the daemon's machine, 0 before it runs and
    for one that never did."""

    running: bool
    pid: int
    code: int | None


def container_name(spec: Spec) -> str:
    """Its name, for people. Raises UsageError for an instance that cannot be one."""
    if not _NAME.fullmatch(spec.instance):
        raise UsageError(f"{spec.instance!r} cannot be the name of a container")
    return f"gu-{spec.instance}"


def container_body(spec: Spec, image: str, processors: int, keeper: str) -> dict[str, Any]:
    """Of ``/containers/create``. ``image``: the daemon's id of it; ``keeper``: of the process that
    keeps it, see ``orphans.py``. Raises UsageError."""
    return {
        "Image": image,
        "Entrypoint": [init.PATH],
        "Cmd": [],
        "Env": environment(spec.env),
        "Labels": {OWNER: spec.owner, INSTANCE: spec.instance, KEEPER: keeper},
        # The first process heeds nothing else: a daemon that is stopped would wait ten seconds.
        "StopSignal": "SIGKILL",
        "HostConfig": host_config(spec, processors),
    }


def host_config(spec: Spec, processors: int) -> dict[str, Any]:
    """What a container may do and take. ``processors``: that the daemon's machine has."""
    if spec.network not in {"none", "host"}:
        raise UsageError(f"there is no network {spec.network!r}: there are 'none' and 'host'")
    return {
        "NetworkMode": spec.network,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Privileged": False,
        "IpcMode": "private",
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no"},
        "Mounts": [_mount(mount) for mount in spec.mounts],
        "Ulimits": _ulimits(spec.options.get("ulimits") or {}),
        **_limits(spec.limits, processors),
    }


def _limits(limits: Limits, processors: int) -> dict[str, int]:
    found: dict[str, int] = {}
    if limits.memory:
        found |= {"Memory": limits.memory, "MemorySwap": limits.memory}
    if limits.cpu and limits.cpu < processors:  # it refuses more than there are
        found["NanoCpus"] = round(max(limits.cpu, LEAST_CPU) * 1e9)
    if limits.pids:
        found["PidsLimit"] = limits.pids + 1  # the first process is ours
    return found


def _ulimits(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, dict):
        raise UsageError(f"ulimits must be numbers by name, as {{'nofile': 1024}}, not {given!r}")
    for name, most in given.items():
        if not (isinstance(name, str) and name.isalpha()) or type(most) is not int or most < 0:
            raise UsageError(f"{name!r}: {most!r} cannot be a limit of a process")
    return [{"Name": name, "Soft": most, "Hard": most} for name, most in given.items()]


def _mount(mount: Mount) -> dict[str, Any]:
    check_paths(mount)
    return {
        "Type": "bind",
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": True,
        # What is mounted below the source would not be read-only.
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


def exec_body(command: Command, cwd: str, argv: list[str]) -> dict[str, Any]:
    """Of ``/containers/ID/exec``."""
    terminal = command.tty is not None
    return {
        "AttachStdin": command.stdin or terminal,
        "AttachStdout": True,
        "AttachStderr": not terminal,
        "Tty": terminal,
        "Cmd": argv,
        "Env": environment(({"TERM": "xterm"} if terminal else {}) | command.env),
        "WorkingDir": cwd,
        "User": command.user,
    }


def environment(env: Mapping[str, str]) -> list[str]:
    """As the daemon wants it. Raises UsageError for a name that cannot be."""
    for name, text in env.items():
        if not name or "=" in name or "\0" in name + text:
            raise UsageError(f"{name!r} cannot be a variable of a program")
    return [f"{name}={text}" for name, text in env.items()]


def directory(workdir: str, path: str) -> str:
    """The directory ``path`` of an instance whose own is ``workdir``, from the root."""
    return posixpath.normpath("/" + posixpath.join(workdir, path)).replace("//", "/", 1)


def state_of(data: Any) -> State:
    """What ``/exec/ID/json`` says."""
    if not isinstance(data, dict):
        return State(running=False, pid=0, code=None)
    code, pid = data.get("ExitCode"), data.get("Pid")
    return State(
        running=data.get("Running") is True,
        pid=pid if isinstance(pid, int) else 0,
        code=code if isinstance(code, int) else None,
    )


def failed_to_start(state: State) -> bool:
    """Whether it never ran; or, at a daemon that forgets numbers, has ended with that status."""
    return not state.running and not state.pid and state.code in {NOT_RUN, NOT_FOUND}


def is_complaint(words: str) -> bool:
    """Whether that was said by a daemon, and not by a program."""
    return bool(_COMPLAINT.search(words[:_TEXT_MOST]) or _NO_USER.search(words[:_TEXT_MOST]))


def not_started(program: str, user: str, words: str) -> GuactorsError:
    """The error for what the daemon said of a program that it did not start."""
    text = words.strip()[:_TEXT_MOST]
    if _NO_USER.search(text):
        return UsageError(f"{user}: {text}")
    why = text.rpartition("unable to start container process: ")[2]
    code = NOT_FOUND if _MISSING.search(text) or "chdir to cwd" in text else NOT_RUN
    return ProgramNotStarted(f"{program}: {why.removesuffix(': unknown')}", code)


def late_failure(code: int | None, said: list[Output], program: str) -> ProgramNotStarted | None:
    """The same for one that ended at once: what there is of it are the words of who was to become
    the program."""
    if not said or len({one.stream for one in said}) != 1:
        return None
    text = b"".join(one.data for one in said)
    if said[0].stream == 1:
        if text == init.MARK and code:
            errno = NOT_FOUND if code == 2 else NOT_RUN
            return ProgramNotStarted(f"{program}: the kernel does not run it ({code})", errno)
        return None
    found = _LATE.fullmatch(text)
    if code not in {1, 255} or found is None:
        return None
    why = found["why"].decode()
    return ProgramNotStarted(f"{program}: {why}", NOT_FOUND if _MISSING.search(why) else NOT_RUN)


def exit_of(code: int) -> Exit:
    """A status as containers tell it: of a signal as a shell does."""
    if NOT_FOUND + 1 < code < NOT_FOUND + 1 + _SIGNALS:
        return Exit(None, code - NOT_FOUND - 1)
    return Exit(code)
