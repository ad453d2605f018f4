"""What an earlier process of a provider left in its runtimes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from guactors.config import ProviderConfig, Seal
from guactors.errors import RuntimeMissing
from guactors.provider_leftovers import end_leftovers
from guactors.runtimes import choice


class Left:
    def __init__(self, name: str, told: list[tuple[str, str]]) -> None:
        self.name, self.told = name, told

    def reap(self, owner: str) -> list[str]:
        self.told.append((self.name, owner))
        return ["i-1"]

    def close(self) -> None:
        self.told.append((self.name, "closed"))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []

    def opened(name: str, images: Callable[[], Any]) -> Left:
        if name == "docker":
            raise RuntimeMissing("no daemon answers")
        return Left(name, found)

    monkeypatch.setattr(choice, "open_runtime", opened)
    return found


def config(provider: str, key: str) -> ProviderConfig:
    return ProviderConfig(
        provider, "box", [], {}, "/run", seal=Seal(key), runtimes=["docker", "qemu"]
    )


def test_each_runtime_is_asked_for_what_is_of_the_same_key(
    told: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = config("p-1", "a key"), config("p-2", "a key")
    assert first.owner == second.owner != config("p-1", "another").owner
    end_leftovers(second)
    assert told == [("qemu", first.owner), ("qemu", "closed")]
    assert "no daemon answers" in caplog.text
    assert "left in qemu, ended now: i-1" in caplog.text


def test_without_a_key_there_was_nobody_before(told: list[tuple[str, str]]) -> None:
    end_leftovers(config("p-1", ""))
    assert told == []
    assert config("p-1", "").owner == "p-1"
