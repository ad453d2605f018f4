"""Values: who holds them, who waits, who lends to whom."""

from __future__ import annotations

import pickle

from guactors import messages as m
from guactors.caller.effects import SendPeer
from guactors.caller.objects import ObjectTable
from guactors.errors import OwnerDied
from guactors.messages import Fetch, Object, RefWord, Release, Value


def table() -> ObjectTable:
    return ObjectTable("c-1")


def ready(objects: ObjectTable, data: bytes = b"v", contains: list[int] | None = None) -> int:
    id = objects.new()
    objects.settle(id, data, contains=contains)
    return id


def sent(objects: ObjectTable) -> list[tuple[str, m.Message]]:
    effects, objects.effects[:] = objects.effects[:], []
    return [(e.peer, e.message) for e in effects if isinstance(e, SendPeer)]


def test_ids_of_several_results_are_consecutive() -> None:
    objects = table()
    first = objects.new(3)
    assert list(objects.entries) == [first, first + 1, first + 2]
    assert objects.new() == first + 3


def test_a_value_goes_with_its_last_holder() -> None:
    objects = table()
    id = ready(objects)
    objects.hold(id)
    objects.drop(id)
    assert id in objects.entries
    objects.drop(id)
    assert not objects.entries
    objects.drop(id)


def test_what_a_value_contains_lives_as_long_as_it() -> None:
    objects = table()
    inner = ready(objects)
    outer = ready(objects, contains=[inner])
    assert inner in objects.entries
    objects.drop(outer)
    assert not objects.entries


def test_a_second_value_is_dropped_with_what_it_contains() -> None:
    objects = table()
    id, inner = ready(objects, b"first"), ready(objects)
    objects.settle(id, b"second", contains=[inner])
    assert objects.entries[id].data == b"first"
    assert inner not in objects.entries


def test_only_watched_objects_are_reported() -> None:
    objects = table()
    one, two = objects.new(2), 2
    objects.entries[two].watched = True
    objects.settle(one, b"1")
    objects.settle(two, b"2")
    assert objects.settled == [two]


def test_a_loan_holds_until_it_is_released() -> None:
    objects = table()
    id = ready(objects)
    assert objects.lend([id], "w-1") == [RefWord("c-1", id)]
    objects.drop(id)
    assert id in objects.entries
    assert objects.lends()
    objects.on_release("w-2", [RefWord("c-1", id)])
    assert id in objects.entries, "only the borrower can give it back"
    objects.on_release("w-1", [RefWord("c-1", id)])
    assert not objects.entries
    assert not objects.lends()


def test_a_loan_ends_with_its_neighbour() -> None:
    objects = table()
    id = ready(objects)
    objects.lend([id, id], "w-1")
    objects.drop(id)
    objects.on_neighbour_lost("w-1")
    assert not objects.entries


def test_a_fetch_is_answered_now_or_when_the_value_comes() -> None:
    objects = table()
    there, coming = ready(objects, b"here"), objects.new()
    objects.fetches.on_fetch("w-1", 7, RefWord("c-1", there))
    objects.fetches.on_fetch("w-1", 8, RefWord("c-1", coming))
    assert sent(objects) == [("w-1", Object(7, Value(b"here")))]
    objects.settle(coming, b"late")
    assert sent(objects) == [("w-1", Object(8, Value(b"late")))]


def test_a_fetch_for_what_is_gone_is_answered_with_an_error() -> None:
    objects = table()
    objects.fetches.on_fetch("w-1", 7, RefWord("c-1", 99))
    ((_, answer),) = sent(objects)
    assert isinstance(answer, Object)
    assert isinstance(pickle.loads(answer.value.data), OwnerDied)


def test_a_borrowed_value_is_fetched_once_and_given_back_once_per_loan() -> None:
    objects = table()
    word = RefWord("c-9", 5)
    (id,) = objects.borrow([word], "w-1")
    assert objects.borrow([word], "w-1") == [id]
    objects.need(id)
    objects.need(id)
    assert sent(objects) == [("w-1", Fetch(id, word))]
    objects.fetches.on_object("w-1", id, Value(b"v"), ())
    assert objects.entries[id].data == b"v"
    objects.drop(id)
    objects.drop(id)
    assert sent(objects) == [("w-1", Release([word, word]))]


def test_who_is_gone_is_not_answered() -> None:
    objects = table()
    inner, coming = ready(objects), objects.new()
    objects.fetches.on_fetch("w-1", 7, RefWord("c-1", coming))
    objects.fetches.on_fetch("w-2", 8, RefWord("c-1", coming))
    objects.on_neighbour_lost("w-1")
    objects.settle(coming, b"late", contains=[inner])
    assert [peer for peer, _ in sent(objects)] == ["w-2"]
    objects.on_neighbour_lost("w-2")
    assert not objects.lends()


def test_a_borrowed_value_dies_with_its_only_lender() -> None:
    objects = table()
    (id,) = objects.borrow([RefWord("c-9", 5)], "w-1")
    objects.need(id)
    objects.on_neighbour_lost("w-1")
    entry = objects.entries[id]
    assert entry.error
    assert isinstance(pickle.loads(entry.data or b""), OwnerDied)


def test_another_lender_is_asked_when_the_first_is_lost() -> None:
    objects = table()
    word = RefWord("c-9", 5)
    (id,) = objects.borrow([word], "w-1")
    objects.borrow([word], "w-2")
    objects.need(id)
    objects.on_neighbour_lost("w-1")
    assert sent(objects) == [("w-1", Fetch(id, word)), ("w-2", Fetch(id, word))]


def test_an_own_reference_that_comes_home_is_no_loan() -> None:
    objects = table()
    id = ready(objects)
    assert objects.borrow([RefWord("c-1", id)], "w-1") == [id]
    assert sent(objects) == [("w-1", Release([RefWord("c-1", id)]))]


def test_an_own_reference_that_was_let_go_comes_home_twice_as_one() -> None:
    """It is known by its lender then, like any other."""
    objects = table()
    word = RefWord("c-1", ready(objects))
    objects.drop(word.object)
    first, second = objects.borrow([word, word], "w-1")
    assert first == second
    objects.drop(first)
    objects.drop(second)
    objects.check()
    assert not objects.entries


def test_a_stray_reference_that_nobody_lends_fails_when_it_is_needed() -> None:
    objects = table()
    id = objects.stray(RefWord("c-9", 5))
    assert objects.entries[id].data is None
    objects.need(id)
    assert objects.entries[id].error
