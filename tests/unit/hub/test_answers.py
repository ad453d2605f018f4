"""What people ask of the hub: the grid, a machine."""

from __future__ import annotations

from guactors import messages as m
from tests.unit.hub.bench import Bench, spec


def test_the_grid_in_one_answer() -> None:
    bench = Bench()
    bench.caller()
    bench.provider(cpus=2.0, labels={"room": "lab"}, GPU=1.0)
    bench.say("p-1", m.Sample(m.MachineInfo(), 3))
    bench.leases(resources={"CPU": 0.5, "GPU": 1.0})
    bench.actor(spec(shape=m.Shape({"CPU": 1.0})))
    bench.demand(key="d-2", count=4, resources={"CPU": 1.0})
    info = bench.grid()
    assert (info.hub, info.sessions, info.leases, info.waiting) == ("h-1", 1, 1, 4)
    assert info.uptime > 0
    caller, provider = info.peers
    assert (caller.peer, caller.role, caller.state, caller.leases) == ("c-1", "caller", "up", 1)
    assert provider.total == {"CPU": 2.0, "GPU": 1.0}
    assert provider.free == {"CPU": 0.5, "GPU": 0.0}
    assert (provider.name, provider.workers, provider.leases, provider.actors) == ("box1", 3, 1, 1)
    assert provider.labels == {"room": "lab"}
    (actor,) = info.actors
    assert (actor.spec.actor, actor.state, actor.provider) == ("a-1", "alive", "p-1")


def test_machine_info_by_id_and_by_name_with_its_age() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.say("p-1", m.Sample(m.MachineInfo(cores=8), 0))
    bench.pass_time(1.5)
    for name in ("p-1", "box1"):
        bench.say("c-1", m.AskInfo(3, name))
        info = bench.one("c-1", m.Info)
        assert (info.request, info.peer, info.info.cores) == (3, "p-1", 8)
        assert info.age == 1.5


def test_machine_info_of_nobody_names_those_there_are() -> None:
    bench = Bench()
    bench.caller()
    bench.provider()
    bench.say("c-1", m.AskInfo(3, "box9"))
    fault = bench.one("c-1", m.Fault)
    assert (fault.kind, fault.request) == ("UsageError", 3)
    assert "box9" in fault.detail
    assert "box1" in fault.detail


def test_a_caller_without_a_session_may_ask_but_not_compute() -> None:
    bench = Bench()
    bench.caller("c-1", session="", root=False)
    assert bench.grid().sessions == 0
    bench.demand()
    assert bench.one("c-1", m.Fault).kind == "UsageError"
