"""What a process that we start finds in its environment."""

from __future__ import annotations

import os

import pytest

from guactors.runtimes.command import SECRETS, environment, forget_secrets, holds_secrets
from guactors.security.key_files import PASSPHRASE_VARIABLE


def test_the_passphrase_is_a_secret() -> None:
    assert PASSPHRASE_VARIABLE in SECRETS


def test_secrets_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER", "1")
    assert not holds_secrets()
    for name in SECRETS:
        monkeypatch.setenv(name, "open sesame")
    assert holds_secrets()
    found = environment()
    assert "open sesame" not in found.values()
    assert found["OTHER"] == "1"


def test_secrets_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "open sesame")
    forget_secrets()
    assert not holds_secrets()
    assert "open sesame" not in os.environ.values()
    forget_secrets()
