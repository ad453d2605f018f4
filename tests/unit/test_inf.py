"""`inf` answers under the roadmap's names."""

from __future__ import annotations

from msgspec.structs import replace

from guactors.inf import TOPICS, facts
from guactors.messages import Availability, MachineInfo

MACHINE = MachineInfo(
    os_name="Linux",
    os_release="6.1",
    architecture="x86_64",
    bits=[64],
    cores=4,
    threads=8,
    cpu_percent=12.5,
    load1=0.5,
    memory_total_gib=16.0,
    memory_available_gib=9.0,
    storage_total_gib=500.0,
    storage_free_gib=100.0,
    host="attic",
)


def test_the_roadmaps_fields_are_there() -> None:
    cpu = facts(MACHINE, "cpu")
    assert {k: cpu[k] for k in ("architecture", "bit", "cores", "threads")} == {
        "architecture": "x86_64",
        "bit": [64],
        "cores": 4,
        "threads": 8,
    }
    mem = facts(MACHINE, "mem")
    assert (mem["gib"], mem["total"], mem["available"]) == (16.0, 16.0, 9.0)
    storage = facts(MACHINE, "storage")
    assert (storage["gib"], storage["free"]) == (500.0, 100.0)
    assert facts(MACHINE, "os")["name"] == "Linux"


def test_every_measured_figure_is_told() -> None:
    told = {str(value) for topic in TOPICS for value in facts(MACHINE, topic).values()}
    names = set(MachineInfo.__struct_fields__) - {"availability"}
    assert {str(getattr(MACHINE, name)) for name in names} <= told


def test_whether_its_owner_lends_it() -> None:
    assert facts(MACHINE, "availability") == {"lent": "yes", "reason": "", "until": 0.0}
    word = Availability(False, "it is used", 2e9, 60.0)
    told = facts(replace(MACHINE, availability=word), "availability")
    assert told == {"lent": "no", "reason": "it is used", "until": 2e9}
