"""Heartbeats: when to ping, when a peer is silent, lost, back; and our own sleep is forgiven."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from guactors.config import Timing
from guactors.transport.liveness import Effect, Liveness, Lost, Recovered, SendPing, Silent

TIMING = Timing()  # heartbeat 1 s, silent after 2.5 s, lost after 10 s


def started(now: float = 100.0) -> Liveness:
    watch = Liveness(TIMING)
    assert watch.tick(now) == []
    return watch


def run(watch: Liveness, now: float, until: float) -> list[tuple[float, Effect]]:
    """Tick exactly when asked to, and never twice without progress."""
    seen: list[tuple[float, Effect]] = []
    while (wake := watch.next_wake(now)) <= until:
        effects = watch.tick(wake)
        assert effects or wake > now, f"woken at {wake} for nothing"
        seen += [(wake, effect) for effect in effects]
        now = wake
    return seen


def test_a_silent_peer_is_pinged_then_silent_then_lost() -> None:
    seen = run(started(), 100.0, 200.0)
    pings = [at for at, effect in seen if isinstance(effect, SendPing)]
    assert pings == [101.0, 102.0, 103.0, 104.0, 105.0, 106.0, 107.0, 108.0, 109.0]
    assert [effect for _, effect in seen if isinstance(effect, SendPing)] == [
        SendPing(number) for number in range(1, 10)
    ]
    assert [(at, effect) for at, effect in seen if not isinstance(effect, SendPing)] == [
        (102.5, Silent()),
        (110.0, Lost()),
    ]


def test_lost_is_final() -> None:
    watch = started()
    run(watch, 100.0, 200.0)
    watch.on_heard(111.0)
    assert watch.lost
    assert watch.tick(112.0) == []
    assert watch.next_wake(112.0) == math.inf


def test_a_talking_peer_is_not_pinged() -> None:
    watch = started()
    for tenth in range(1, 300):
        now = 100.0 + tenth / 10
        watch.on_heard(now)
        assert watch.tick(now) == []


def test_recovered_once() -> None:
    watch = started()
    run(watch, 100.0, 103.0)
    assert watch.silent
    watch.on_heard(103.5)
    assert watch.tick(103.6) == [Recovered()]
    assert not watch.silent
    assert watch.tick(103.7) == []


def test_our_own_sleep_is_not_the_peers_silence() -> None:
    watch = started()
    assert watch.tick(3700.0) == [SendPing(1)]
    watch.on_heard(3700.5)
    assert watch.tick(3701.0) == []
    assert not watch.silent


def test_no_verdict_before_a_heartbeat_after_sleep() -> None:
    watch = started()
    run(watch, 100.0, 109.9)
    assert watch.silent
    # Nothing was heard for 9.9 s, then we slept for an hour: the answers may lie in our sockets.
    assert [type(effect) for effect in watch.tick(3709.9)] == [SendPing]
    assert not watch.lost
    assert watch.next_wake(3709.9) == 3710.9
    assert watch.tick(3710.9) == [Lost()]


def test_a_process_too_busy_to_tick_in_time_still_comes_to_a_verdict() -> None:
    watch = started()
    now = 100.0
    while not watch.lost:
        now += 3.0
        watch.tick(now)
        assert now < 200.0


@given(
    st.lists(st.tuples(st.floats(0.001, 5.0), st.booleans()), max_size=60),
)
def test_effects_alternate_and_numbers_grow(steps: list[tuple[float, bool]]) -> None:
    watch = started(0.0)
    now, number, silent = 0.0, 0, False
    for pause, heard in steps:
        now += pause
        if heard:
            watch.on_heard(now)
        for effect in watch.tick(now):
            if isinstance(effect, SendPing):
                number += 1
                assert effect.number == number
            elif isinstance(effect, Silent):
                assert not silent
                silent = True
            elif isinstance(effect, Recovered):
                assert silent
                silent = False
        assert watch.silent == silent
        assert watch.next_wake(now) >= now
        if watch.lost:
            return
