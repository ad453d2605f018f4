"""What others need of a worker that is idle, or is to end: values of theirs, and references.

Owns: that its provider knows of it, and that callers are told to fetch what ends with the process.
Must never: keep a process that was told to end at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from guactors import messages as m
from guactors.refs import present_session

if TYPE_CHECKING:
    from guactors.worker.process import Worker

HAND_OVER: Final = 50.0
"""Seconds that callers have to fetch what is theirs when this process is to end."""
NAP: Final = 0.5
"""Longest wait of the main thread meanwhile."""


def keeps(worker: Worker) -> bool:
    """Whether others need what is here."""
    if worker.sharing.takers():
        return True
    session = present_session()
    if session is None:
        return False
    with session.lock:
        return session.core.objects.lends()


def hand_over(worker: Worker) -> None:
    """Have callers elsewhere fetch what they have here, before that ends with this process. The
    main thread, when it runs nothing any more."""
    takers = worker.sharing.takers()
    if not takers:
        return
    worker.control.tell_provider(m.Keeping(True))
    for link in takers:
        worker.control.send(link, m.Leaving())
    latest = time.monotonic() + HAND_OVER
    while worker.sharing.takers() and time.monotonic() < latest:
        with worker.lock:
            worker.drain(time.monotonic())
        worker.poller.wait(NAP)
