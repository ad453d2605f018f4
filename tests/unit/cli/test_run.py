"""``gu run``: how its program gives way, and wrong values by their names."""

from __future__ import annotations

import pytest

from tests.unit.cli.stand_in_hub import refused


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--preemption", "pause"), ("--min-runtime", "nan"), ("--min-runtime", "-1"),
     ("--max-suspended", "1e100"), ("--grace", "inf"), ("--priority", "99999999999")],
)  # fmt: skip
def test_a_wrong_value_is_named(flag: str, value: str) -> None:
    assert flag in refused("run", flag, value, "--", "true", status=2)


def test_never_goes_with_nothing_else() -> None:
    given = ("--preemption", "never", "--preemption", "stop")
    assert "--preemption" in refused("run", *given, "--", "true", status=2)
