"""A seed is a world: the same every time, different from the next, and shown as it was."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.sim.world import World


def story_of(seed: int, *, keyed: bool = False) -> list[str]:
    world = World(seed, keyed=keyed)
    world.flow.loud = True
    world.run()
    return world.flow.lines()


def test_a_seed_is_the_same_every_time() -> None:
    for seed in (3, 8, 21):
        assert story_of(seed) == story_of(seed)
        assert story_of(seed, keyed=True) == story_of(seed, keyed=True)


@pytest.mark.parametrize("keyed", [False, True])
def test_a_seed_is_the_same_in_another_process(keyed: bool) -> None:
    """Nothing depends on the order of sets of texts, which differs between processes."""
    print_it = (
        "from tests.sim.test_replay import story_of; "
        f"print('\\n'.join(story_of(21, keyed={keyed})))"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", print_it],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    )
    assert first == second
    assert "Calls(" in first


def test_seeds_differ() -> None:
    assert len({tuple(story_of(seed)) for seed in range(10)}) == 10


def test_seeds_meet_all_that_can_go_wrong() -> None:
    """A fault that is never drawn tests nothing."""
    seen: set[str] = set()
    calls = 0
    for seed in range(300):
        world = World(seed)
        world.run()
        calls += world.ledger.runs
        for line in world.flow.lines():
            if "FAULT" in line:
                seen |= {word for word in FAULTS if word in line}
    assert seen == set(FAULTS)
    assert calls > 1000


FAULTS = (
    "the hub ends", "provider p", "power of", "worker w", "caller c", "breaks", "nothing passes",
    "times as long",
)  # fmt: skip


def test_seeds_with_keys_meet_what_they_are_for() -> None:
    seen: set[str] = set()
    for seed in range(150):
        world = World(seed, keyed=True)
        world.run()
        text = "\n".join(world.flow.lines())
        seen |= {word for word in WITH_KEYS if word in text}
    assert seen == set(WITH_KEYS)


WITH_KEYS = (
    "Challenge(", "Proof(", "Vouch(", "Warrant(", "Admit(", "the owner says RevokeGrant",
    "the owner says PutGrant", "Revoked(epoch=1", "kind='PermissionDenied'", "cause='revoked'",
)  # fmt: skip
