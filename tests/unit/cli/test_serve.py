"""What ``gu hub`` is told at its start."""

from __future__ import annotations

import pytest

from tests.unit.cli.stand_in_hub import gu


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e100", "0.001"])
def test_absurd_aging_is_refused_by_name(seconds: str) -> None:
    told = gu("hub", f"--aging={seconds}", status=2)
    assert "--aging" in told.err
