"""Calls that guactors' pool and ``multiprocessing.Pool`` must answer alike, and the answers of the
latter."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.integration import pool_jobs as jobs

AnyPool = Any


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    """A value, or an error's type, arguments and text."""
    try:
        return "value", call()
    except Exception as error:  # noqa: BLE001 - it is what is compared
        return type(error), error.args, str(error)


def broken() -> Iterator[int]:
    yield 1
    yield 2
    raise OSError("no more")


def later(pool: AnyPool, name: str, *args: Any) -> list[Any]:
    """What a callback and the result's own methods tell of an ``_async`` call."""
    seen: list[Any] = []
    told = threading.Event()

    def tell(value: Any) -> None:
        seen.append((type(value), str(value)) if isinstance(value, Exception) else value)
        told.set()

    result = getattr(pool, name)(*args, callback=tell, error_callback=tell)
    result.wait(30)
    assert told.wait(30)
    return [seen, result.ready(), result.successful(), outcome(result.get)]


def taken(results: Iterator[Any]) -> list[Any]:
    """Everything an iterator gives, errors in their places."""
    found = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except Exception as error:  # noqa: BLE001 - it is what is compared
            found.append((type(error), str(error)))
            if len(found) > 100:
                return found


SAME: dict[str, Callable[[AnyPool], Any]] = {
    "apply": lambda p: p.apply(jobs.power, (2, 3), {"z": 5}),
    "apply a builtin": lambda p: p.apply(pow, (2, 5)),
    "apply, an error": lambda p: p.apply(jobs.refuse, (3,)),
    "apply_async": lambda p: later(p, "apply_async", jobs.power, (2, 3)),
    "apply_async, an error": lambda p: later(p, "apply_async", jobs.refuse, (3,)),
    "map": lambda p: p.map(jobs.square, range(100)),
    "map nothing": lambda p: p.map(jobs.square, []),
    "map a generator": lambda p: p.map(jobs.square, (i for i in range(10)), 3),
    "map, chunks of 7": lambda p: p.map(jobs.square, range(100), chunksize=7),
    "map, a huge chunk": lambda p: p.map(jobs.square, range(5), chunksize=1000),
    "map, an error": lambda p: p.map(jobs.invert, [1.0, 2.0, 0.0, 4.0]),
    "map, a broken iterable": lambda p: p.map(jobs.square, broken()),
    "map_async": lambda p: later(p, "map_async", jobs.square, range(30)),
    "map_async nothing": lambda p: p.map_async(jobs.square, []).get(5),
    "map_async, an error": lambda p: later(p, "map_async", jobs.refuse, [4]),
    "starmap": lambda p: p.starmap(jobs.power, [(1, 2), (3, 4), (5, 6)]),
    "starmap, an error": lambda p: p.starmap(jobs.power, [(1, 2), (3,)], 1),
    "starmap_async": lambda p: later(p, "starmap_async", jobs.power, [(1, 2), (3, 4)], 2),
    "imap": lambda p: taken(p.imap(jobs.square, range(50))),
    "imap, chunks of 6": lambda p: taken(p.imap(jobs.square, range(50), 6)),
    "imap nothing": lambda p: taken(p.imap(jobs.square, [])),
    "imap, an error": lambda p: taken(p.imap(jobs.invert, [1.0, 0.0, 4.0])),
    "imap, a broken iterable": lambda p: taken(p.imap(jobs.square, broken())),
    "imap_unordered": lambda p: sorted(taken(p.imap_unordered(jobs.square, range(50)))),
    "imap_unordered, chunks": lambda p: sorted(taken(p.imap_unordered(jobs.square, range(50), 9))),
    "imap_unordered, an error": lambda p: len(taken(p.imap_unordered(jobs.invert, [1, 0, 4]))),
    "imap, a chunk of nothing": lambda p: p.imap(jobs.square, [1], 0),
    "initialized": lambda p: set(p.map(jobs.started, range(20), 1)),
    "get, too late": lambda p: p.apply_async(jobs.slow_pid, (0.2,)).get(0.01),
    "successful, too early": lambda p: p.apply_async(jobs.slow_pid, (0.1,)).successful(),
    "join, still open": lambda p: p.join(),
    "no process": lambda p: type(p)(0),
    "no task per child": lambda p: type(p)(1, maxtasksperchild=0),
    "an initializer that is none": lambda p: type(p)(1, 3),
    "two processes": lambda p: len(set(p.map(jobs.slow_pid, [0.1] * 6, 1))),
}
DIFFERENT_TEXT = {"get, too late", "successful, too early"}
"""Same meaning, our words."""


def print_outcomes() -> None:
    """What the standard pool makes of each case, pickled, on stdout."""
    with multiprocessing.get_context("spawn").Pool(2, jobs.start, ("s",)) as pool:
        outcomes = {what: outcome(lambda call=call: call(pool)) for what, call in SAME.items()}
    sys.stdout.buffer.write(pickle.dumps(outcomes))
