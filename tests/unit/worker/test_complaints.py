"""How many refusals a worker tells its provider."""

from __future__ import annotations

from guactors.messages import Refusal
from guactors.worker.complaints import MOST, PERIOD, Complaints

REFUSAL = Refusal("who", "code", "function f", "function_signer", "why")


def test_a_flood_is_told_in_part_and_counted() -> None:
    told: list[Refusal] = []
    complaints = Complaints(told.append)
    for _ in range(1000):
        complaints.add(REFUSAL, 0.5)
    assert told == [REFUSAL] * MOST
    complaints.add(REFUSAL, 0.5 + PERIOD)
    assert told[MOST].detail == f"why (and {1000 - MOST} more were not told)"
    complaints.add(REFUSAL, 0.6 + PERIOD)
    assert told[-1] == REFUSAL


def test_few_are_all_told() -> None:
    told: list[Refusal] = []
    complaints = Complaints(told.append)
    for second in range(100):
        complaints.add(REFUSAL, float(second))
    assert told == [REFUSAL] * 100
