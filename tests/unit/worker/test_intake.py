"""What waits for concurrency groups waits apart, and is found wherever it waits."""

from __future__ import annotations

from guactors.messages import Call
from guactors.worker.intake import Intake


def call(id: int, group: str = "", priority: int = 0) -> Call:
    return Call(id, b"", "go", b"", priority=priority, group=group)


def intake(*calls: Call) -> Intake:
    made = Intake()
    made.divide(["io", "compute"])
    made.add("k-1", calls, (), 0.0)
    return made


def taken(made: Intake, group: str = "") -> list[int]:
    mailbox = made.groups[group] if group else made.mailbox
    return [item.call.id for item in iter(mailbox.take, None)]


def test_each_group_has_its_own_order() -> None:
    made = intake(call(1), call(2, "io"), call(3), call(4, "io", 5), call(5, "compute"))
    assert taken(made, "io") == [4, 2]
    assert taken(made) == [1, 3]
    assert taken(made, "compute") == [5]


def test_an_unknown_group_is_the_default_one() -> None:
    made = intake(call(1, "nobody's"))
    assert taken(made) == [1]


def test_what_waits_in_a_group_is_cancelled_taken_back_bounced_and_forgotten() -> None:
    made = intake(call(1), call(2, "io"), call(3, "io"), call(4, "compute"))
    found = made.cancel("k-1", 2)
    assert found is not None
    assert found.call.id == 2
    assert made.cancel("k-2", 3) is None
    assert sorted(made.take_back("k-1", 2)) == [1, 3]
    assert made.bounce_all() == {"k-1": [4]}
    made.add("k-1", [call(5, "io"), call(6)], (), 0.0)
    made.add("k-2", [call(7, "io")], (), 0.0)
    assert made.forget("k-1") == 2
    assert taken(made, "io") == [7]
