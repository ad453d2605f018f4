"""The order, the bound and the fairness of the priority mailbox."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from guactors.actors.mailbox import USER_LEVELS, Priority, PriorityMailbox, user_priority
from guactors.errors import MailboxFull, UsageError

SYSTEM, HIGH, NORMAL, LOW = Priority


def drained(mailbox: PriorityMailbox[str]) -> list[str]:
    taken = []
    while (item := mailbox.take()) is not None:
        taken.append(item)
        mailbox.check()
    return taken


def filled(*items: tuple[str, Priority], patience: int = 64) -> PriorityMailbox[str]:
    mailbox: PriorityMailbox[str] = PriorityMailbox(patience=patience)
    for now, (item, level) in enumerate(items):
        mailbox.put(item, level, float(now))
    return mailbox


def test_higher_levels_first_and_in_order_of_arrival_inside_one() -> None:
    mailbox = filled(
        ("low", LOW), ("one", NORMAL), ("high", HIGH), ("kill", SYSTEM), ("two", NORMAL)
    )
    assert drained(mailbox) == ["kill", "high", "one", "two", "low"]
    assert not mailbox


def test_a_lower_message_is_served_after_patience_higher_ones() -> None:
    mailbox = filled(("low", LOW), *[(f"high {n}", HIGH) for n in range(200)])
    assert drained(mailbox).index("low") == 64


def test_every_waiting_level_gets_its_turn_under_a_flood() -> None:
    levels = [NORMAL] * 20 + [LOW] * 20 + [HIGH] * 200
    mailbox = filled(*[(level.name, level) for level in levels], patience=10)
    served = drained(mailbox)[:120]
    assert Counter(served) == {"HIGH": 100, "NORMAL": 10, "LOW": 10}


def test_system_messages_do_not_use_up_anybodys_patience() -> None:
    mailbox = filled(("low", LOW), ("high", HIGH), *[("sys", SYSTEM)] * 100, patience=2)
    assert drained(mailbox)[100:] == ["high", "low"]


def test_patience_starts_anew_when_a_level_ran_empty() -> None:
    mailbox = filled(("low", LOW), *[("high", HIGH)] * 6, patience=3)
    assert [mailbox.take(), mailbox.take()] == ["high", "high"]
    assert mailbox.remove(lambda item: item == "low") == "low"
    mailbox.put("late", LOW, 9.0)
    assert [mailbox.take() for _ in range(4)] == ["high", "high", "high", "late"]


def test_the_bound_counts_the_users_messages_only() -> None:
    mailbox: PriorityMailbox[str] = PriorityMailbox(capacity=2)
    mailbox.put("a", HIGH, 0.0)
    mailbox.put("b", LOW, 0.0)
    assert mailbox.full
    with pytest.raises(MailboxFull, match="holds 2 messages"):
        mailbox.put("c", HIGH, 0.0)
    mailbox.put("kill", SYSTEM, 0.0)
    assert drained(mailbox) == ["kill", "a", "b"]
    mailbox.put("c", HIGH, 0.0)


def test_ages_and_counts() -> None:
    mailbox = filled(("a", NORMAL), ("b", NORMAL), ("c", HIGH))
    assert mailbox.oldest_age(NORMAL, 10.0) == 10.0
    assert mailbox.oldest_age(HIGH, 10.0) == 8.0
    assert mailbox.oldest_age(LOW, 10.0) == 0.0
    mailbox.take()
    mailbox.take()
    look = mailbox.statistics(10.0)
    assert look.depth == {SYSTEM: 0, HIGH: 0, NORMAL: 1, LOW: 0}
    assert look.oldest_age[NORMAL] == 9.0
    assert (look.waiting, look.accepted, look.refused) == (1, 3, 0)


def test_take_back_takes_what_would_be_served_last() -> None:
    mailbox = filled(("h", HIGH), ("n1", NORMAL), ("l1", LOW), ("n2", NORMAL), ("l2", LOW))
    assert mailbox.take_back(3) == ["n2", "l1", "l2"]
    assert drained(mailbox) == ["h", "n1"]


def test_take_back_leaves_what_is_not_wanted_in_its_place() -> None:
    mailbox = filled(*[(name, NORMAL) for name in ("keep 1", "a", "keep 2", "b", "c", "keep 3")])
    assert mailbox.take_back(2, lambda item: not item.startswith("keep")) == ["b", "c"]
    mailbox.check()
    assert drained(mailbox) == ["keep 1", "a", "keep 2", "keep 3"]


def test_take_back_never_takes_system_messages() -> None:
    mailbox = filled(("kill", SYSTEM), ("a", NORMAL))
    assert mailbox.take_back(10) == ["a"]
    assert drained(mailbox) == ["kill"]


def test_remove_takes_one_by_key() -> None:
    mailbox = filled(("a", NORMAL), ("b", NORMAL), ("a", NORMAL))
    assert mailbox.remove(lambda item: item == "a") == "a"
    assert mailbox.remove(lambda item: item == "x") is None
    assert drained(mailbox) == ["b", "a"]


@pytest.mark.parametrize("arguments", [{"capacity": 0}, {"patience": 0}])
def test_impossible_sizes_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        PriorityMailbox(**arguments)


def test_users_may_not_send_at_system() -> None:
    assert [user_priority(level) for level in USER_LEVELS] == list(USER_LEVELS)
    for level in (SYSTEM, 4, -1):
        with pytest.raises(UsageError, match=r"Priority\."):
            user_priority(level)


def test_the_mailbox_alone_loads_no_event_loop() -> None:
    code = (
        "import sys, guactors.actors.mailbox\n"
        "print([m for m in ('asyncio', 'threading', 'zmq') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class MailboxAgainstModel(RuleBasedStateMachine):
    """The same operations on plain lists: nothing is lost, doubled or reordered in a level."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox: PriorityMailbox[int] = PriorityMailbox(capacity=12, patience=3)
        self.model: dict[Priority, list[int]] = {level: [] for level in Priority}
        self.waits: Counter[Priority] = Counter()
        self.last = 0

    @rule(level=st.sampled_from(Priority))
    def put(self, level: Priority) -> None:
        self.last += 1
        user = sum(len(self.model[one]) for one in USER_LEVELS)
        if level is not SYSTEM and user == 12:
            with pytest.raises(MailboxFull):
                self.mailbox.put(self.last, level, float(self.last))
            return
        self.mailbox.put(self.last, level, float(self.last))
        self.model[level].append(self.last)

    @rule()
    def take(self) -> None:
        item = self.mailbox.take()
        heads = {level: queue[0] for level, queue in self.model.items() if queue}
        if item is None:
            assert not heads
            return
        (served,) = [level for level, head in heads.items() if head == item]
        self.model[served].pop(0)
        self.waits[served] = 0
        if served is SYSTEM:
            return
        assert SYSTEM not in heads
        for level in heads:
            if level > served:
                self.waits[level] += 1
                assert self.waits[level] <= 2 * 3 + 2, f"{level.name} starves"

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        wanted = data.draw(st.integers(0, self.last))
        found = self.mailbox.remove(lambda item: item == wanted)
        queue = next((queue for queue in self.model.values() if wanted in queue), None)
        assert found == (wanted if queue is not None else None)
        if queue is not None:
            queue.remove(wanted)

    @rule(most=st.integers(0, 5))
    def take_back(self, most: int) -> None:
        order = [item for level in USER_LEVELS for item in self.model[level]]
        expected = order[max(0, len(order) - most) :]
        assert self.mailbox.take_back(most) == expected
        for queue in self.model.values():
            queue[:] = [item for item in queue if item not in expected]

    @invariant()
    def agrees(self) -> None:
        self.mailbox.check()
        assert len(self.mailbox) == sum(map(len, self.model.values()))
        for level in Priority:
            assert self.mailbox.depth(level) == len(self.model[level])
            if not self.model[level]:
                self.waits[level] = 0


TestMailboxAgainstModel = MailboxAgainstModel.TestCase
