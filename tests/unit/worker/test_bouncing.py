"""An instance that does not obey while its worker stands still, or goes on."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from guactors import messages as m
from guactors.errors import RuntimeMissing
from guactors.worker import bouncing
from guactors.worker.bouncing import Bouncing


class Control:
    def __init__(self) -> None:
        self.told: list[m.Message] = []

    def tell_provider(self, message: m.Message) -> None:
        self.told.append(message)


def made() -> tuple[Bouncing, Control]:
    """Of a worker without callers."""
    control = Control()
    worker = SimpleNamespace(
        control=control, known_links=list, lock=threading.Lock(), spec=None, flush=lambda: None,
        drain=lambda now: None, intake=SimpleNamespace(bounce_all=dict),
    )  # fmt: skip
    return Bouncing(worker), control  # type: ignore[arg-type]


def fails() -> None:
    raise RuntimeMissing("the daemon does not answer")


def test_one_that_does_not_stand_still_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bouncing, "pause_all", fails)
    found, control = made()
    found.stand(7)
    assert control.told == [m.Stood(7, "the daemon does not answer")]
    assert found.refuses()


def test_one_that_does_not_go_on_ends_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bouncing, "pause_all", lambda: None)
    monkeypatch.setattr(bouncing, "resume_all", fails)
    found, control = made()
    found.stand(7)
    found.go_on()
    (gone,) = [x for x in control.told if isinstance(x, m.InstanceGone)]
    assert gone.cause == "unresponsive" and "does not answer" in gone.detail
