"""What tests of key files get: a path, a home of their own, and passphrases that cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from guactors.security import passphrases


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alice.key"


@pytest.fixture
def cheap_and_bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Passphrases cost next to nothing, nothing is set from outside, and the home is empty."""
    monkeypatch.setattr(passphrases, "OPERATIONS", 1)
    monkeypatch.setattr(passphrases, "MEMORY", 8192)
    monkeypatch.delenv("GU_KEY", raising=False)
    monkeypatch.delenv("GU_PASSPHRASE", raising=False)
    monkeypatch.setenv("GU_HOME", str(tmp_path / "home"))
