"""Values on several machines: kept beyond the life of their workers, copied to where calls run,
brought from several machines at a time."""

from __future__ import annotations

import pickle

import pytest

from guactors import messages as m
from guactors.caller.away import Away
from guactors.caller.depots import BARRED, IDLE, PATIENCE
from guactors.caller.tasks import Task
from guactors.errors import ObjectLost
from guactors.objects.pulling import CHUNK
from tests.unit.caller.machines import CALLER, FN, Machines

BIG = 3 * CHUNK + 7
MEDIUM = CHUNK + CHUNK // 2


def here(machines: Machines, id: int) -> bytes:
    data = machines.core.objects.entries[id].data
    assert not isinstance(data, bytes | Away | None)
    return bytes(data.parts()[0])


def want(machines: Machines, *ids: int) -> None:
    machines.core.want([machines.core.objects.entries[id] for id in ids], machines.now)
    machines.run()


@pytest.mark.parametrize("seed", range(5))
def test_a_result_that_nobody_wants_yet_outlives_its_worker(seed: int) -> None:
    machines = Machines(1, seed)
    id, block = machines.made(1, MEDIUM)
    assert machines.copies(id) == {"s-1"}
    assert any(isinstance(one, m.Unused) for one in machines.to_worker["w-1"])
    machines.end("w-1")
    assert not machines.read
    want(machines, id)
    assert here(machines, id) == bytes(block.bytes[:MEDIUM])
    assert machines.read == {("d-1", CALLER): MEDIUM}


def test_a_depot_comes_by_what_its_worker_left() -> None:
    """The worker ends before the depot is there: its memory stays for a moment."""
    machines = Machines(1)
    machines.broken.add("s-1")
    id, block = machines.made(1, MEDIUM)
    machines.end("w-1")
    assert isinstance(machines.core.objects.entries[id].data, Away)
    want(machines, id)
    machines.broken.clear()
    machines.cores["d-1"] = machines._add("d-1", "s-1")
    machines._tell_alive(machines.core, "a-1")
    machines.run()
    assert here(machines, id) == bytes(block.bytes[:MEDIUM])


def test_what_no_depot_comes_by_is_made_again_or_lost() -> None:
    machines = Machines(2)
    id, block = machines.made(1, MEDIUM, retries=1)
    other, gone = machines.made(2, MEDIUM)
    for lost in (block, gone):
        del machines.memory[lost.word.store, lost.word.serial]
    machines.end("d-1")
    machines.end("d-2")
    assert machines.where(id)
    entry = machines.core.objects.entries[other]
    assert entry.error
    assert isinstance(pickle.loads(entry.data), ObjectLost)  # type: ignore[arg-type]


def test_a_value_goes_to_a_machine_once_for_all_its_calls() -> None:
    machines = Machines(1)
    id, data = machines.put(BIG)
    for _ in range(3):
        call = machines.call(deps=[id])
        told = machines.call_at(call)
        assert told.deps[0].stored is not None
        assert told.deps[0].stored.store == "s-1"
        assert not told.deps[0].buffers
        machines.answer(call)
    assert machines.read == {(CALLER, "d-1"): len(data)}
    copy = machines.core.objects.places.copies[id]["s-1"]
    assert bytes(machines.memory["s-1", copy.serial].bytes) == data


@pytest.mark.parametrize("seed", range(20))
def test_many_machines_get_a_value_from_each_other(seed: int) -> None:
    machines = Machines(9, seed)
    id, data = machines.put(BIG)
    calls = [machines.submit(deps=[id]) for _ in range(9)]
    machines.run()
    assert machines.copies(id) == {f"s-{number}" for number in range(1, 10)}
    for word in machines.core.objects.places.copies[id].values():
        assert bytes(machines.memory[word.store, word.serial].bytes) == data
    sent = {sender: 0 for sender, _ in machines.read}
    for (sender, _), size in machines.read.items():
        sent[sender] += size
    assert sum(sent.values()) == 9 * len(data), "chunks came twice"
    assert sent[CALLER] <= 4 * len(data), sent
    assert len({machines.where(call) for call in calls}) == 9


@pytest.mark.parametrize("seed", range(40))
def test_a_machine_that_is_lost_on_the_way_costs_only_what_it_owed(seed: int) -> None:
    machines = Machines(6, seed)
    id, data = machines.put(BIG)
    calls = [machines.submit(deps=[id], retries=3) for _ in range(6)]
    machines.run(machines.rng.randrange(1, 150))
    if "d-1" in machines.cores:
        machines.end("d-1")
    machines.run()
    for store, word in machines.core.objects.places.copies[id].items():
        assert bytes(machines.memory[store, word.serial].bytes) == data
    assert all(machines.where(call) for call in calls)


def test_a_value_comes_from_all_machines_that_have_it() -> None:
    machines = Machines(3)
    id, block = machines.made(1, BIG)
    for number in (2, 3):
        machines.core.remote.depots.place(id, f"s-{number}")
        machines.run()
    assert machines.copies(id) == {"s-1", "s-2", "s-3"}
    machines.read.clear()
    want(machines, id)
    assert here(machines, id) == bytes(block.bytes[:BIG])
    assert set(machines.read) == {("d-1", CALLER), ("d-2", CALLER), ("d-3", CALLER)}


def test_the_loss_of_one_copy_is_no_loss() -> None:
    machines = Machines(2)
    id, block = machines.made(1, MEDIUM)
    machines.core.remote.depots.place(id, "s-2")
    machines.run()
    machines.end("d-1")
    want(machines, id)
    assert here(machines, id) == bytes(block.bytes[:MEDIUM])


def test_where_no_depot_can_be_a_value_travels_with_the_call() -> None:
    machines = Machines(1)
    machines.broken.add("s-1")
    id, _ = machines.put(MEDIUM)
    call = machines.call(deps=[id])
    assert not machines.to_worker.get("w-1")
    machines.pass_time(PATIENCE + 1)
    told = machines.call_at(call)
    assert told.deps[0].stored is None
    assert told.deps[0].buffers == 1
    machines.answer(call)
    machines.broken.clear()
    machines.pass_time(BARRED)
    again = machines.call(deps=[id])
    assert machines.call_at(again).deps[0].stored is not None


def test_a_machine_without_room_gets_it_with_the_call() -> None:
    machines = Machines(1)
    machines.full.add("s-1")
    id, _ = machines.put(MEDIUM)
    call = machines.call(deps=[id])
    assert machines.call_at(call).deps[0].buffers == 1


def test_copies_go_with_the_last_reference() -> None:
    machines = Machines(2)
    id, _ = machines.put(MEDIUM)
    machines.core.remote.depots.place(id, "s-1")
    machines.core.remote.depots.place(id, "s-2")
    machines.run()
    assert all(machines.cores[f"d-{n}"].objects.entries for n in (1, 2))
    machines.core.objects.drop(id)
    machines.run()
    assert not any(machines.cores[f"d-{n}"].objects.entries for n in (1, 2))
    assert not machines.core.remote.depots._spread
    machines.pass_time(IDLE + 1)
    kills = [one for one in machines.to_hub if isinstance(one, m.KillActor)]
    assert sorted(one.actor for one in kills) == ["a-1", "a-2"]


def test_dropped_while_it_is_on_its_way() -> None:
    machines = Machines(1)
    id, _ = machines.put(BIG)
    machines.core.remote.depots.place(id, "s-1")
    machines.run(3)
    machines.core.objects.drop(id)
    machines.run()
    assert not machines.cores["d-1"].objects.entries
    assert not machines.core.remote.depots._depots["s-1"].asked


def test_a_copy_that_its_depot_forgot_is_brought_again() -> None:
    machines = Machines(1)
    id, _ = machines.put(MEDIUM)
    call = machines.call(deps=[id], retries=1)
    machines.cores["d-1"].objects.entries.clear()
    machines.cores["d-1"].objects._borrowed.clear()
    machines.cores["d-1"].remote.replicas._kept.clear()
    miss(machines, call)
    assert machines.read == {(CALLER, "d-1"): 2 * MEDIUM}
    assert machines.call_at(call).deps[0].stored is not None
    machines.answer(call)
    assert machines.core.objects.entries[call].data == b"small"


def test_the_hub_is_told_where_the_values_are() -> None:
    machines = Machines(3)
    small, _ = machines.made(1, MEDIUM)
    big, _ = machines.made(2, BIG)
    machines.core.remote.depots.place(small, "s-3")
    machines.run()
    id = machines.core.objects.new()
    demand = machines.core.demand(m.Shape({"GPU": 1.0}))
    machines.core.submit(demand, Task(id, fn=FN, name="f", deps=[small, big]), machines.now)
    machines.run()
    told = [one for one in machines.to_hub if isinstance(one, m.SetDemand) and one.count][-1]
    assert told.prefer == ["p-2", "p-1", "p-3"]


def spill(machines: Machines, id: int, number: int) -> None:
    """The depot moves the value to its disk."""
    core = machines.cores[f"d-{number}"]
    entry = core.objects.entries[core.objects.find(m.RefWord(CALLER, id)) or 0]
    old = entry.data
    assert not isinstance(old, bytes | Away | None)
    fresh = machines.block(f"s-{number}", old.size)
    fresh.bytes[:] = old.body()
    del machines.memory[old.word.store, old.word.serial]
    entry.data = fresh  # type: ignore[assignment]


def miss(machines: Machines, call: int) -> None:
    """The worker says that it did not find what the call needs."""
    worker = machines.where(call)
    attempt = machines.core.leases.by_peer[worker].target.in_flight[call].attempt
    gone = pickle.dumps(ObjectLost("it is gone"))
    reply = m.Reply(call, [m.Value(gone, 0, True)], attempt, "ObjectLost", True)
    machines._say(worker, CALLER, m.Replies([reply]), [])
    machines.run()


@pytest.mark.parametrize("seed", range(5))
def test_what_a_depot_moved_is_found_again_and_not_copied_again(seed: int) -> None:
    machines = Machines(1, seed)
    id, block = machines.made(1, MEDIUM)
    content = bytes(block.bytes)
    call = machines.call(deps=[id])
    spill(machines, id, 1)
    miss(machines, call)
    told = machines.call_at(call).deps[0].stored
    assert told is not None
    assert bytes(machines.memory["s-1", told.serial].bytes) == content
    assert not machines.read, "it never left its machine"
    machines.answer(call)
    want(machines, id)
    assert here(machines, id) == content[:MEDIUM]


def test_what_a_depot_moved_and_lost_comes_from_elsewhere_or_is_lost() -> None:
    machines = Machines(2)
    id, block = machines.made(1, MEDIUM)
    machines.core.remote.depots.place(id, "s-2")
    machines.run()
    machines.end("d-1")
    call = machines.call(deps=[id])
    while machines.where(call) != "w-2":
        machines.answer(call)
        call = machines.call(deps=[id])
    spill(machines, id, 2)
    miss(machines, call)
    assert machines.call_at(call).deps[0].stored is not None
    want(machines, id)
    assert here(machines, id) == bytes(block.bytes[:MEDIUM])
