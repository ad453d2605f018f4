"""Placement groups and rights: a group is asked for as leases are, and what runs inside is not
counted twice."""

from __future__ import annotations

from typing import Any

import pytest

from guactors import messages as m
from guactors.security.grants import Quotas
from guactors.security.keys import Kind
from tests.unit.hub.bench import spec
from tests.unit.hub.keyed_bench import APP, OTHER, OWNER, PROVIDER, KeyedBench
from tests.unit.security.samples import secret

CPU = {"CPU": 1.0}
INSIDE = m.Placing(group="g-1")


@pytest.fixture
def bench() -> KeyedBench:
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, OTHER, PROVIDER)
    bench.keyed_provider(cpus=4.0, labels={"zone": "lab"})
    return bench


def make(bench: KeyedBench, id: str, *bundles: dict[str, float], caller: str = "c-1") -> None:
    spec = m.GroupSpec(id, caller.replace("c", "s"), caller, list(bundles), "PACK")
    bench.say(caller, m.CreateGroups([spec]))


def latest(bench: KeyedBench, id: str, caller: str = "c-1") -> m.GroupUpdate:
    updates = [x for one in bench.heard(caller, m.GroupsAre) for x in one.groups if x.group == id]
    return updates[-1]


def test_without_a_grant_there_is_no_group(bench: KeyedBench) -> None:
    bench.come(APP, "c-1", "s-1")
    make(bench, "g-1", CPU)
    update = latest(bench, "g-1")
    assert (update.state, update.kind) == ("removed", "PermissionDenied")
    assert "no grant" in update.reason
    assert any(x.decision == "refused" and x.who == APP.public.text for x in bench.core.decisions)


@pytest.mark.parametrize(
    ("grant", "words"),
    [
        ({"providers": [secret(Kind.PROVIDER, 9).public.text]}, "provider"),
        ({"quotas": Quotas(500, "*", "*", "*", "*")}, "CPU"),
        ({"actions": ["read_stats"]}, "submit"),
    ],
)
def test_a_grant_that_does_not_fit_is_named(
    bench: KeyedBench, grant: dict[str, Any], words: str
) -> None:
    bench.grant(**grant)
    bench.come(APP, "c-1", "s-1")
    make(bench, "g-1", CPU)
    update = latest(bench, "g-1")
    assert (update.state, update.kind) == ("removed", "PermissionDenied")
    assert words in update.reason


def test_the_quota_counts_all_bundles_and_the_rest_waits(bench: KeyedBench) -> None:
    bench.grant(quotas=Quotas(2000, "*", "*", "*", "*"))
    bench.come(APP, "c-1", "s-1")
    bench.come(APP, "c-2", "s-2")
    make(bench, "g-1", CPU, CPU)
    assert latest(bench, "g-1").state == "created"
    make(bench, "g-2", CPU, caller="c-2")
    assert latest(bench, "g-2", "c-2").state == "pending"
    bench.demand("c-2")
    assert not bench.start_leases()
    bench.say("c-1", m.RemoveGroups(["g-1"]))
    assert latest(bench, "g-2", "c-2").state == "created"
    assert len(bench.start_leases()) == 1


def test_who_waits_for_a_quota_takes_nothing_from_others(bench: KeyedBench) -> None:
    bench.grant(quotas=Quotas(2000, "*", "*", "*", "*"))
    bench.grant(OTHER)
    bench.come(APP, "c-1", "s-1")
    bench.come(OTHER, "c-2", "s-2")
    make(bench, "g-1", CPU, CPU)
    assert bench.leases("c-2", count=2)
    make(bench, "g-2", CPU)
    bench.pass_time(5.0)
    assert latest(bench, "g-2").state == "pending"
    assert not bench.heard("c-2", m.LeaseRecalled)


def test_what_runs_inside_is_counted_once(bench: KeyedBench) -> None:
    bench.grant(quotas=Quotas(2000, "*", "*", "*", 2))
    bench.come(APP, "c-1", "s-1")
    make(bench, "g-1", CPU, CPU)
    bench.demand("c-1", count=3, place=INSIDE)
    assert len(bench.start_leases()) == 2, "two instances, within the CPUs of the group"


def test_another_app_neither_sees_it_nor_gets_in(bench: KeyedBench) -> None:
    bench.grant()
    bench.grant(OTHER)
    bench.come(APP, "c-1", "s-1")
    bench.come(OTHER, "c-2", "s-2")
    make(bench, "g-1", CPU)
    bench.say("c-2", m.WatchGroups(["g-1"]), m.RemoveGroups(["g-1"]), m.AskGroups(1))
    assert latest(bench, "g-1", "c-2").state == "unknown"
    assert bench.one("c-2", m.GroupList).groups == []
    bench.demand("c-2", place=INSIDE)
    assert not bench.heard("p-1", m.StartLease)
    assert bench.one("c-2", m.DemandInfeasible).kind == "PlacementGroupRemoved"
    bench.create(spec("a-9", "c-2", "s-2", shape=m.Shape({}, place=INSIDE)))
    assert not bench.heard("p-1", m.StartActor)
    assert bench.one("c-2", m.DemandInfeasible).key == "a-9"
    make(bench, "g-1", CPU, caller="c-2")
    assert "somebody else's" in latest(bench, "g-1", "c-2").reason
    assert latest(bench, "g-1").state == "created"


@pytest.mark.parametrize(("running", "state"), [("stop", "removed"), ("finish", "created")])
def test_a_revoked_grant_takes_the_group_unless_it_may_finish(
    bench: KeyedBench, running: str, state: str
) -> None:
    serial = bench.grant()
    bench.come(APP, "c-1", "s-1")
    make(bench, "g-1", CPU)
    bench.done(m.RevokeGrant(0, OWNER.public.text, serial, running))
    assert latest(bench, "g-1").state == state


def test_who_may_not_work_in_his_group_any_more_is_told(bench: KeyedBench) -> None:
    serial = bench.grant()
    bench.come(APP, "c-1", "s-1")
    make(bench, "g-1", CPU)
    bench.demand("c-1", place=INSIDE)
    [start] = bench.start_leases()
    bench.done(m.RevokeGrant(0, OWNER.public.text, serial, "finish"))
    assert not bench.heard("c-1", m.DemandInfeasible), "it may have started"
    death = m.DeathReport("refused", "no grant")
    bench.say("p-1", m.LeaseEnded(start.lease, death))
    refused = bench.one("c-1", m.DemandInfeasible)
    assert refused.kind == "PermissionDenied"
    assert "no grant" in refused.reason
    bench.grant()
    bench.demand("c-1", place=INSIDE)
    assert bench.start_leases(), "with a new grant it goes on"


def test_a_provider_cannot_make_groups_up() -> None:
    """What it tells a hub of must bear the hub's own mark."""
    bench = KeyedBench()
    bench.owner()
    bench.approve(APP, PROVIDER)
    bench.keyed_provider()
    made_up = m.GroupSpec("g-1", "s-1", "c-1", [CPU], "PACK", detached=True, homes=["p-1"])
    bench.say("p-1", m.KeepGroups([made_up]))
    assert bench.one("p-1", m.DropGroups).groups == ["g-1"]
    assert not bench.core.scheduler.desk.groups.live
