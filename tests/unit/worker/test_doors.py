"""The doors of a worker: whose key opens them, and what they wait for before they turn one away."""

from __future__ import annotations

import threading

import pytest

from guactors.worker import admission
from guactors.worker.admission import Doors


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 0.05)


def test_a_known_key_comes_in() -> None:
    doors = Doors()
    doors.admit(["known"])
    assert doors.admits("known")


def test_an_unknown_key_waits_for_the_word_that_lets_it_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 30.0)
    doors = Doors()
    threading.Timer(0.02, doors.admit, (["late"],)).start()
    assert doors.admits("late")


def test_a_stranger_is_turned_away_after_a_moment() -> None:
    assert not Doors().admits("stranger")


def test_an_expelled_key_does_not_even_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "PATIENCE", 1000.0)
    doors = Doors()
    doors.admit(["bad"])
    doors.expel(["bad"])
    assert not doors.admits("bad")
    doors.admit(["bad"])
    assert not doors.admits("bad")


def test_no_key_is_never_admitted() -> None:
    doors = Doors()
    doors.admit([""])
    assert not doors.admits("")
