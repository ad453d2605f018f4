"""Remote functions: results, dependencies, several results, options, cancelling, failing."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import guactors as ray

ray.init(num_cpus=2)


@ray.remote
def square(x: int) -> int:
    return x * x


futures = [square.remote(i) for i in range(4)]
assert ray.get(futures) == [0, 1, 4, 9]


# A ref as an argument is the value by the time the function runs.
@ray.remote
def add(a: int, b: int) -> int:
    return a + b


assert ray.get(add.remote(square.remote(3), b=square.remote(4))) == 25


# Inside a list it stays a ref.
@ray.remote
def total(refs: list[Any]) -> int:
    assert all(isinstance(ref, ray.ObjectRef) for ref in refs)
    return sum(ray.get(refs))


assert ray.get(total.remote([square.remote(i) for i in range(10)])) == 285


# Tasks start tasks and wait for them, although there are only two CPUs.
@ray.remote
def fibonacci(n: int) -> int:
    if n < 2:
        return n
    return sum(ray.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))


assert ray.get(fibonacci.remote(6)) == 8


@ray.remote(num_returns=3)
def three() -> tuple[int, str, None]:
    return 1, "two", None


first, second, third = three.remote()
assert ray.get([first, second, third]) == [1, "two", None]
assert ray.get(three.options(num_returns=1).remote()) == (1, "two", None)


@ray.remote(num_returns=3)
def one_by_one() -> Any:
    yield from range(3)


assert ray.get(one_by_one.remote()) == [0, 1, 2]


@ray.remote(num_cpus=0.5, num_returns=0)
def nothing() -> None: ...


assert nothing.remote() is None
assert ray.get(square.options(num_cpus=2, name="wide").remote(5)) == 25
assert ray.get(ray.remote(num_cpus=1)(lambda x: x + 1).remote(1)) == 2
assert ray.get(ray.remote(max).remote(3, 7)) == 7


# Whoever is ready first.
@ray.remote
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


slow, quick = nap.remote(30), nap.remote(0)
ready, rest = ray.wait([slow, quick], num_returns=1, timeout=20)
assert (ready, rest) == ([quick], [slow])
assert ray.wait([slow], timeout=0) == ([], [slow])
try:
    ray.get(slow, timeout=0.05)
    raise AssertionError("it had not ended")
except ray.exceptions.GetTimeoutError:
    pass
except TimeoutError as error:
    raise AssertionError("a GetTimeoutError comes first") from error

ray.cancel(slow)
try:
    ray.get(slow)
    raise AssertionError("it was cancelled")
except ray.exceptions.TaskCancelledError:
    pass


@ray.remote
def stubborn() -> None:
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(30)


endless = stubborn.remote()
ray.wait([endless], timeout=0.3)
ray.cancel(endless, force=True)
try:
    ray.get(endless)
    raise AssertionError("its worker was ended")
except (ray.exceptions.TaskCancelledError, ray.exceptions.WorkerCrashedError):
    pass


# Errors of the function are both a RayTaskError and what was raised.
@ray.remote
def divide(a: int, b: int) -> float:
    return a / b


try:
    ray.get(divide.remote(1, 0))
    raise AssertionError("it failed")
except ZeroDivisionError as error:
    failure: Any = error
assert isinstance(failure, ray.exceptions.RayTaskError)
assert isinstance(failure.cause, ZeroDivisionError)
try:
    ray.get(square.remote(divide.remote(1, 0)))
    raise AssertionError("what it needed failed")
except ray.exceptions.RayTaskError:
    pass


class Attempts(Exception):
    pass


@ray.remote(max_retries=3, retry_exceptions=[Attempts])
def third_time_lucky(counter: Any) -> int:
    count: int = ray.get(counter.increment.remote())
    if count < 3:
        raise Attempts
    return count


@ray.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def increment(self) -> int:
        self.count += 1
        return self.count


assert ray.get(third_time_lucky.remote(Counter.remote())) == 3


@ray.remote(max_retries=0)
def crash() -> None:
    import os

    os._exit(1)


try:
    ray.get(crash.remote())
    raise AssertionError("its worker died")
except ray.exceptions.WorkerCrashedError:
    pass

try:
    square(2)
    raise AssertionError("remote functions are not called directly")
except TypeError:
    pass

ray.shutdown()
assert not ray.is_initialized()
print("done")
