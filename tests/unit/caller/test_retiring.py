"""Functions that run only so often in one process: no call is lost, none is charged."""

from __future__ import annotations

from msgspec.structs import replace

from guactors import messages as m
from guactors.caller.leases import DEEPEST
from tests.unit.caller.bench import FN, Bench


def limited(runs: int) -> Bench:
    bench = Bench()
    bench.core.blobs[FN] = replace(bench.core.blobs[FN], max_calls=runs)
    bench.core.leases.service[FN] = 1e-6
    return bench


def test_a_worker_gets_no_more_calls_than_it_may_run() -> None:
    bench = limited(3)
    calls = [bench.call() for _ in range(10)]
    bench.grant()
    assert bench.calls("w-1") == calls[:3]
    assert bench.core.leases.depth(b"another") == 1
    bench.core.leases.service[b"another"] = 1e-6
    assert bench.core.leases.depth(b"another") == DEEPEST


def test_what_a_retiring_worker_did_not_start_runs_elsewhere_uncharged() -> None:
    bench = limited(4)
    calls = [bench.call(retries=0) for _ in range(4)]
    bench.grant()
    assert bench.calls("w-1") == calls
    bench.told(m.ReturnLease)
    bench.says("w-1", m.Bounced(calls[2:], blocked=True, retiring=True))
    bench.reply("w-1", calls[0])
    assert bench.told(m.ReturnLease) == []
    bench.reply("w-1", calls[1])
    assert bench.told(m.ReturnLease) == [m.ReturnLease("l-1")]
    assert bench.hung_up == ["w-1"]
    bench.grant("l-2", "w-2")
    assert bench.calls("w-2") == calls[2:]
    for id in calls[2:]:
        bench.reply("w-2", id)
        assert bench.data(id) == b"v"


def test_one_that_retires_when_all_is_answered_is_returned_at_once() -> None:
    bench = limited(1)
    call = bench.call()
    bench.grant()
    bench.reply("w-1", call)
    bench.told(m.ReturnLease)
    bench.says("w-1", m.Bounced([], blocked=True, retiring=True))
    assert bench.told(m.ReturnLease) == [m.ReturnLease("l-1")]
    late = bench.call()
    assert bench.calls("w-1") == [call]
    bench.grant("l-2", "w-2")
    assert bench.calls("w-2") == [late]


def test_a_call_that_crossed_the_word_comes_back_when_the_lease_is_gone() -> None:
    bench = limited(2)
    first, second = bench.call(), bench.call()
    bench.grant()
    assert bench.calls("w-1") == [first, second]
    bench.says("w-1", m.Bounced([], blocked=True, retiring=True))
    bench.reply("w-1", first)
    bench.says("w-1", m.Bounced([second], blocked=True, retiring=True))
    bench.grant("l-2", "w-2")
    assert bench.calls("w-2") == [second]
