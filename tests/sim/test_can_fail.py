"""The simulation finds what it is there to find: each test breaks something on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from guactors.caller.core import CallerCore
from guactors.hub_state.standing import StandingRules
from guactors.messages import Message, Replies
from guactors.provider_state import ProviderCore
from guactors.provider_state.binder import Binder
from guactors.provider_state.devices import DeviceBook
from guactors.scheduling import groups
from guactors.scheduling.aging import Aging
from guactors.scheduling.group_rules import GroupRules
from guactors.transport.base import Frame
from guactors.worker.intake import Intake
from tests.sim.network import Network, SimLink
from tests.sim.replay import fails

SEEDS = range(100)


def first_story(
    core: Callable[..., CallerCore] = CallerCore, *, keyed: bool = False, seeds: range = SEEDS
) -> str:
    """Of the first seed that fails."""
    return next((story for seed in seeds if (story := fails(seed, core, keyed=keyed))), "")


class Forgetful(CallerCore):
    """Loses every fifth batch of replies."""

    replies = 0

    def on_peer(self, peer: str, message: Message, buffers: Sequence[Frame], now: float) -> None:
        if isinstance(message, Replies):
            self.replies += 1
            if self.replies % 5 == 0:
                return
        super().on_peer(peer, message, buffers, now)


class Eager(CallerCore):
    """Believes that every call may be tried again."""

    def submit(self, home: Any, task: Any, now: float) -> None:
        task.retries = 3
        super().submit(home, task, now)


class Greedy(CallerCore):
    """Never gives a lease back."""

    def __init__(self, me: str, **options: Any) -> None:
        super().__init__(me, **{**options, "linger": 1e9})


@pytest.mark.parametrize("keyed", [False, True])
def test_all_is_well_before_anything_is_broken(keyed: bool) -> None:
    assert first_story(keyed=keyed) == ""


def test_a_lost_reply_leaves_a_call_hanging() -> None:
    story = first_story(Forgetful)
    assert "pending" in story
    assert "replay: python -m tests.sim" in story
    assert "-> hub " in story, "the flow of messages"


def test_a_call_without_retries_that_runs_twice_is_seen() -> None:
    assert "has no retries and runs again" in first_story(Eager)


def test_a_lease_that_nobody_uses_is_seen() -> None:
    assert "holds ['l-" in first_story(Greedy)


def test_a_wrong_value_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replies of one batch change places."""
    honest = CallerCore.on_peer

    def mixed(core: CallerCore, peer: str, message: Message, buffers: Any, now: float) -> None:
        if isinstance(message, Replies) and len(message.replies) > 1:
            one, other, *rest = message.replies
            values = [type(one)(one.id, other.values, one.attempt)]
            values += [type(one)(other.id, one.values, other.attempt), *rest]
            message = Replies(values)
        honest(core, peer, message, buffers, now)

    monkeypatch.setattr(CallerCore, "on_peer", mixed)
    assert "returned" in first_story()


def test_a_message_that_overtakes_another_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that breaks its promise of order inside a lane."""
    honest = Network._arrive

    def hasty(network: Network, link: SimLink, direction: int, lane: Any) -> None:
        waiting = link.ways[direction][lane].waiting
        if len(waiting) > 1 and not link.broken:
            waiting.rotate(-1)
        honest(network, link, direction, lane)

    monkeypatch.setattr(Network, "_arrive", hasty)
    assert first_story()


def test_calls_of_an_actor_out_of_order_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Intake.add

    def backwards(intake: Intake, link: str, calls: Any, buffers: Any, now: float) -> None:
        honest(intake, link, calls if buffers else list(reversed(calls)), buffers, now)

    monkeypatch.setattr(Intake, "add", backwards)
    assert "after" in first_story()


def test_a_grant_that_was_revoked_and_still_counts_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the hub nor the providers take anything back, and both go on giving."""
    monkeypatch.setattr(StandingRules, "changed", lambda *_: [])
    monkeypatch.setattr(ProviderCore, "_on_revoked", lambda *_: [])
    story = first_story(keyed=True)
    assert "after its grant was revoked" in story
    assert " --keys)" in story


def test_a_worker_that_nobody_vouches_for_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its nested calls wait for ever."""
    monkeypatch.setattr(Binder, "_vouch", lambda *_: [])
    assert "pending" in first_story(keyed=True)


def test_a_group_that_outlives_its_session_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GroupRules, "session_over", lambda *_: None)
    assert "the hub has <Group" in first_story()


def test_a_group_that_is_placed_in_part_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = groups.Group.unplaced

    def half(group: groups.Group) -> list[groups.Bundle]:
        missing = honest(group)
        return missing[:-1] if len(missing) > 1 else missing

    monkeypatch.setattr(groups.Group, "unplaced", half)
    assert "has only" in first_story()


def test_a_device_that_is_given_out_twice_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeviceBook, "_find", lambda book, kind, steps: ["0"] if steps else [])
    assert "steps are taken" in first_story()


def test_it_finds_out_that_what_has_waited_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Aging, "_update", lambda *_: None)
    monkeypatch.setattr(Aging, "check", lambda *_: None)
    # One in a hundred or two has something that waits for so long.
    assert "and was passed by" in first_story(seeds=range(1000))
