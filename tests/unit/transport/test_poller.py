"""The poller's wake-up: none is ever lost, whatever the threads do."""

from __future__ import annotations

import threading
import time

from guactors.transport.poller import Poller


def test_a_wake_before_the_wait_counts() -> None:
    poller = Poller()
    poller.wake()
    assert poller.wait(10.0) == []
    poller.close()


def test_no_wake_is_lost_between_two_threads() -> None:
    poller = Poller()
    told = seen = 0
    lock = threading.Lock()

    def tell() -> None:
        nonlocal told
        for _ in range(20_000):
            with lock:
                told += 1
            poller.wake()

    threads = [threading.Thread(target=tell) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while seen < 40_000:
        began = time.monotonic()
        poller.wait(2.0)
        with lock:
            news, seen = told - seen, told
        assert news or time.monotonic() - began < 1.0, "slept although there was news"
        assert time.monotonic() < deadline
    for thread in threads:
        thread.join()
    poller.close()


def test_looking_does_not_sleep_and_tells_a_wake_from_nothing() -> None:
    poller = Poller()
    assert poller.look() is None
    poller.wake()
    assert poller.look() == []
    assert poller.look() is None
    poller.close()
