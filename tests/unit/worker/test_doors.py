"""The doors of a worker: whose key opens them, and what they wait for before they turn one away."""

from __future__ import annotations

from guactors.worker.admission import CATCH_UP, Doors


def test_a_known_key_comes_in_without_waiting() -> None:
    waits: list[float] = []
    doors = Doors(waits.append)
    doors.admit(["known"])
    assert doors.admits("known")
    assert not waits


def test_an_unknown_key_waits_for_what_the_provider_has_said() -> None:
    waits: list[float] = []
    doors = Doors(lambda seconds: (waits.append(seconds), doors.admit(["late"]))[0])
    assert doors.admits("late")
    assert not doors.admits("stranger")
    assert waits == [CATCH_UP] * 2


def test_an_expelled_key_does_not_even_wait() -> None:
    waits: list[float] = []
    doors = Doors(waits.append)
    doors.admit(["bad"])
    doors.expel(["bad"])
    assert not doors.admits("bad")
    doors.admit(["bad"])
    assert not doors.admits("bad")
    assert not waits


def test_no_key_is_never_admitted() -> None:
    doors = Doors(lambda seconds: doors.admit([""]))
    assert not doors.admits("")
