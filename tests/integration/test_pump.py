"""Who polls: a thread that waits, or the one in the background, and never nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from guactors import pump as room
from guactors.pump import Pump

PATIENCE = 20.0


class Service:
    """Counts how often it is called; ``due`` once there is something to be done."""

    def __init__(self) -> None:
        self.due = False
        self.done = threading.Event()

    def __call__(self, _ready: list[int]) -> None:
        if self.due:
            self.done.set()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def pump(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pump]:
    """One that would sleep for longer than anybody waits, were it not woken."""
    monkeypatch.setattr(room, "LONGEST", 3 * PATIENCE)
    made = Pump("pump", service, lambda _ready: -1.0)
    made.start()
    yield made
    made.close()


def _wake_until(pump: Pump, seen: threading.Event) -> None:
    """Of two threads that poll the system wakes one, now this, now that."""
    while not seen.wait(0.01):
        pump.poller.wake()
    pump.poller.wake()


def test_after_a_short_wait_the_background_thread_goes_on_soon(
    pump: Pump, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is submitted then, by a thread that waits for nothing more, is not left lying."""
    stood_back = threading.Event()
    nap = Pump._nap

    def noted(self: Pump, seconds: float) -> None:
        if self._leader == waiter:
            stood_back.set()
        nap(self, seconds)

    monkeypatch.setattr(Pump, "_nap", noted)
    waiter = threading.get_ident()
    waker = threading.Thread(target=_wake_until, args=(pump, stood_back))
    waker.start()
    assert pump.wait(stood_back.is_set, PATIENCE)
    waker.join()
    service.due = True
    pump.kick()
    assert service.done.wait(PATIENCE)
