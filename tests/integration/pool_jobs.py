"""What the pools of test_pool run: few imports, because spawned processes load it."""

from __future__ import annotations

import os
import time

_started = ""


def square(x: int) -> int:
    return x * x


def power(x: int, y: int, *, z: int = 1) -> int:
    return x**y + z


def invert(x: float) -> float:
    return 1 / x


class Refused(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def refuse(x: int) -> int:
    raise Refused(x)


def pid(_: object = None) -> int:
    return os.getpid()


def slow_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def start(text: str) -> None:
    global _started  # noqa: PLW0603 - what an initializer is for
    _started += text


def started(_: object = None) -> str:
    return _started
