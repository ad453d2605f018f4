"""The start of a program in a container.

Owns: the way from "it is to run" to "it runs", or to why it does not. Must never: take for a
program what is not one yet: the daemon answers before it has tried, tells a failure as if the
program had said it, and some failures only after it has said that the program runs.
"""

from __future__ import annotations

import re
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

assert sys.platform != "win32", "needs Unix sockets, and a poll for them"

from guactors.errors import ProtocolError, RuntimeMissing
from guactors.runtimes.base import Command, Output
from guactors.runtimes.docker.client import Client, DaemonRefused
from guactors.runtimes.docker.process import ContainerProcess
from guactors.runtimes.docker.sight import Sight
from guactors.runtimes.docker.words import (
    State,
    failed_to_start,
    is_complaint,
    late_failure,
    not_started,
    state_of,
)

WITHIN: Final = 60.0
"""Seconds that a start may take."""
_FIRST_LOOK: Final = 0.002
_LOOK: Final = 0.02
_SETTLES: Final = 2.0
_BLIND: Final = 0.03
"""Seconds until one that cannot be seen from here is taken to have begun."""
_EARLY: Final = 0.5
"""Seconds that a daemon may take to learn of an end."""
_DOUBT: Final = 5.0
"""Seconds after which one whose streams stay open, and which is said not to run, has ended."""
_WORDS_WITHIN: Final = 5.0
_WORDS_MOST: Final = 65536
_ID: Final = re.compile(r"[0-9a-f]{16,128}", re.ASCII)


def prepare(client: Client, container: str, body: dict[str, Any]) -> str:
    """Announce a program: its id."""
    answer = client.call("POST", f"/containers/{container}/exec", body).data
    found = answer.get("Id") if isinstance(answer, dict) else None
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise ProtocolError(f"{client.path}: the daemon names no program it is to run")
    return found


def ask_state(client: Client, program: str) -> State:
    """Of a program."""
    return state_of(client.call("GET", f"/exec/{program}/json").data)


def start(
    client: Client,
    program: str,
    command: Command,
    sight: Sight | None,
    make: Callable[[Any, bytes], ContainerProcess],
) -> ContainerProcess:
    """Run what was announced. ``make``: of the line and what has come of it. Raises
    ProgramNotStarted, UsageError for a user that there is not."""
    terminal = command.tty is not None
    line, rest = client.hijack(f"/exec/{program}/start", {"Detach": False, "Tty": terminal})
    process = make(line, rest)
    try:
        state = _await_start(client, program, process)
        if failed_to_start(state):
            words = _said(process)
            if is_complaint(words):
                raise not_started(command.argv[0], command.user, words)
        process.pid = state.pid
        if command.tty is not None:
            with suppress(DaemonRefused):  # it has ended
                process.resize(command.tty)
        _settle(client, program, process, sight, command)
    except BaseException:
        process.close()
        raise
    return process


def _await_start(client: Client, program: str, process: ContainerProcess) -> State:
    """Its state once it has begun, or ended. Some daemons forget the number of one that has ended,
    and say the same of one that has not begun as of one that has ended well: then the end of its
    streams tells."""
    began = time.monotonic()
    patience = _FIRST_LOOK
    while time.monotonic() < began + WITHIN:
        _await(process, patience)
        state = ask_state(client, program)
        if state.pid or failed_to_start(state):
            return state
        if not state.running and state.code is not None:
            _take_words(process, _FIRST_LOOK)
            if process.dry or time.monotonic() > began + _DOUBT:
                return state
        time.sleep(_FIRST_LOOK)
        patience = min(2 * patience, _LOOK)
    raise RuntimeMissing(
        f"the Docker daemon at {client.path} did not start a program within {WITHIN:g} s: look at "
        "its log"
    )


def _settle(
    client: Client,
    program: str,
    process: ContainerProcess,
    sight: Sight | None,
    command: Command,
) -> None:
    """Wait until it is the program. Raises ProgramNotStarted where it never will be."""
    if sight is None:
        _await(process, _BLIND)
    else:
        until = time.monotonic() + _SETTLES
        while not sight.has_begun(process.pid) and time.monotonic() < until:
            time.sleep(_FIRST_LOOK / 2)
        if sight.is_ours(process.pid):
            return
    state = ask_state(client, program)
    until = time.monotonic() + (_SETTLES if sight is not None else _EARLY)
    while time.monotonic() < until and (
        (sight is not None and state.running) or _unclear(process, state, command)
    ):
        time.sleep(_FIRST_LOOK)
        state = ask_state(client, program)
    if state.running or not state.code:
        return
    _take_words(process, _WORDS_WITHIN)
    failure = late_failure(state.code, process.peek(), command.argv[0])
    if failure is not None:
        raise failure


def _unclear(process: ContainerProcess, state: State, command: Command) -> bool:
    """Whether it speaks like one that never began, and the daemon does not know of an end yet."""
    if state.code and not state.running:
        return False
    process.take()
    return late_failure(1, process.peek(), command.argv[0]) is not None


def _said(process: ContainerProcess) -> str:
    _take_words(process, _WORDS_WITHIN)
    said: list[Output] = process.peek()
    return b"".join(one.data for one in said).decode("utf-8", "replace")


def _take_words(process: ContainerProcess, within: float) -> None:
    """What one that has ended has said, if that is little."""
    until = time.monotonic() + within
    while process.held < _WORDS_MOST and time.monotonic() < until:
        took = process.take()
        if took < 0:
            return
        if not took:
            _await(process, _LOOK)


def _await(process: ContainerProcess, seconds: float) -> None:
    """Something that it says, at most so long."""
    watched = select.poll()
    watched.register(process.line, select.POLLIN)
    watched.poll(seconds * 1000)
