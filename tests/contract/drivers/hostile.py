"""A driver that does all it is asked but for one thing, named by its argument ``WHAT[:VERB]``.

Standard library only. Its programs are echoes: what is written to them comes back, ``exit`` ends
them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import sys
import time
from typing import Any

WHAT, _, AT = sys.argv[1].partition(":")
HELLO = {"protocol": 1, "name": "hostile", "capabilities": ["host", "pause", "stats", "tty"]}
MIB = 1 << 20


def tell(**message: Any) -> None:
    raw((json.dumps(message) + "\n").encode())


def raw(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def output(program: int, data: bytes) -> None:
    tell(type="output", program=program, stream=1, data=base64.b64encode(data).decode())


def hang() -> None:
    while True:
        time.sleep(60)


def leave_children() -> None:
    """One that keeps our streams and is in a session of its own, with a child that is an orphan."""
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        hang()


def misbehave(number: int, program: int) -> None:
    """At the verb it is about."""
    match WHAT:
        case "silent":
            hang()
        case "dies":
            print("I am so tired", file=sys.stderr, flush=True)
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stands":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "talks":
            raw(b"Hello! This is not JSON.\n")
        case "endless":
            with contextlib.suppress(BrokenPipeError):
                while True:
                    raw(b"x" * MIB)
        case "unasked":
            tell(type="ok", id=number + 1000)
        case "twice":
            tell(type="ok", id=number)
            tell(type="ok", id=number)
        case "floods":
            tell(type="ok", id=number, result={"credit": 100})
            with contextlib.suppress(BrokenPipeError):
                while True:
                    output(program, bytes(60_000))
        case "early":
            output(program, b"x")
        case "stranger":
            tell(type="exit", program=4711, code=0)
        case "generous":
            tell(type="ok", id=number, result={"credit": 100})
            while True:
                tell(type="credit", program=program, bytes=MIB)
        case "gone":
            tell(type="lost", message="the machine room is on fire")
        case "mute":
            os.close(1)
            hang()
        case "leaves":
            leave_children()
            os._exit(0)
        case "wanders":
            if (child := os.fork()) == 0:
                os.setpgid(0, 0)
                hang()
            if os.fork() == 0:
                hang()
            while os.getpgrp() != child:
                with contextlib.suppress(PermissionError, ProcessLookupError):
                    os.setpgid(0, child)
            os.write(1, b"!\n")
            hang()
        case "answers":
            tell(type="ok", id=number, result={"credit": "plenty", "data": 7, "memory": -1})
        case "fails":
            tell(type="error", id=number, kind="failed", message="no more room")
        case "refuses":
            tell(type="error", id=number, kind="missing", message="install a frobnicator")
        case "empty":
            tell(type="ok", id=number, result={"data": "", "end": False})
        case "cries":
            for _ in range(64):
                os.write(2, b"alas! " * 10_000)
            tell(type="ok", id=number, result={})


def on_order(message: dict[str, Any]) -> None:
    program, verb = message["program"], message["verb"]
    if verb == "input":
        data = base64.b64decode(message["data"])
        if data == b"exit":
            tell(type="exit", program=program, code=5)
            return
        output(program, data)
        tell(type="credit", program=program, bytes=len(data))
    elif verb in {"forget", "signal"}:
        tell(type="exit", program=program, signal=9)


def main() -> None:
    if WHAT == "leaves":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for line in sys.stdin:
        message = json.loads(line)
        verb, number = message["verb"], message.get("id")
        if verb == AT:
            misbehave(number, message.get("program", 0))
            if WHAT != "deaf":
                continue
        if number is None:
            on_order(message)
        elif verb == "hello":
            tell(type="ok", id=number, result=HELLO)
        elif verb == "exec":
            tell(type="ok", id=number, result={"credit": 1 << 20})
        elif verb == "get_data":
            tell(type="ok", id=number, result={"data": "eA==", "end": True})
        else:
            tell(type="ok", id=number)
        if WHAT == "deaf" and verb == AT:
            hang()


if __name__ == "__main__":
    main()
