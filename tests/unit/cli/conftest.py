"""The hub that the commands about authority are tested with."""

from __future__ import annotations

from pathlib import Path

import pytest

from guactors.security import passphrases
from tests.unit.cli.stand_in_hub import StandIn, stand_in


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """None in the environment, and a guess costs nothing."""
    monkeypatch.delenv("GU_PASSPHRASE", raising=False)
    monkeypatch.setattr(passphrases, "OPERATIONS", 1)
    monkeypatch.setattr(passphrases, "MEMORY", 8192)


@pytest.fixture
def hub(gu_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return stand_in(monkeypatch, tmp_path)
