"""What a machine offers, by the options of ``gu provider``."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from guactors.cli import offers
from guactors.cli.offers import Offered, offered
from guactors.machine import Gpu

A100 = "NVIDIA A100-SXM4-80GB"


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, eight CPUs and a terabyte."""
    gpus = [Gpu("0", A100), Gpu("1", A100)]
    there = {"CPU": 8.0, "memory": 1e12, "GPU": 2.0}
    monkeypatch.setattr(offers, "find_gpus", lambda: gpus)
    monkeypatch.setattr(offers, "detect_resources", lambda: dict(there))
    monkeypatch.setattr(offers, "usual_runtimes", lambda: ["docker"])
    monkeypatch.setattr(offers, "find_labels", lambda: {"accelerator_type": "A100"})


def offer(**given: Any) -> Offered:
    names = ("cpus", "memory", "gpus", "resource", "device", "label", "runtime")
    return offered(*(given.get(name) for name in names))


def test_all_that_is_there_unless_told_otherwise() -> None:
    assert offer() == Offered(
        {"CPU": 8.0, "memory": 1e12, "GPU": 2.0},
        {"accelerator_type": "A100"},
        {"GPU": ["0", "1"]},
        ["docker"],
    )


def test_runtimes_are_those_that_are_named() -> None:
    assert offer(runtime=["qemu", "native"]).runtimes == ["qemu"]
    assert offer(runtime=["none"]).runtimes == []
    with pytest.raises(typer.BadParameter, match="there is no runtime 'dokcer', there are docker"):
        offer(runtime=["dokcer"])


@pytest.mark.parametrize(
    ("gpus", "amount", "ids"), [(0, 0.0, {}), (1, 1.0, {"GPU": ["0"]}), (4, 4.0, {})]
)
def test_fewer_gpus_or_some_that_were_not_found(
    gpus: int, amount: float, ids: dict[str, list[str]]
) -> None:
    found = offer(gpus=gpus)
    assert (found.resources["GPU"], found.devices) == (amount, ids)


def test_own_resources_labels_and_devices() -> None:
    found = offer(
        cpus=2.0,
        memory="4GiB",
        resource=["desk=1.5"],
        device=["port=9000, 9001", "GPU=GPU-7f"],
        label=["zone=lab", "accelerator_type=none"],
        runtime=["qemu", "native"],
    )
    amounts = {"CPU": 2.0, "memory": 2.0**32, "GPU": 1.0, "desk": 1.5, "port": 2.0}
    assert found == Offered(
        amounts,
        {"accelerator_type": "none", "zone": "lab"},
        {"GPU": ["GPU-7f"], "port": ["9000", "9001"]},
        ["qemu"],
    )


@pytest.mark.parametrize(
    "given",
    [
        {"resource": ["desk=much"]},
        {"resource": ["desk=-1"]},
        {"resource": ["desk=nan"]},
        {"resource": ["GPU=1"]},
        {"resource": ["desk"]},
        {"device": ["port="]},
        {"device": ["port=1,1"]},
        {"device": ["CPU=1"]},
        {"device": ["GPU=4"], "gpus": 2},
        {"label": ["zone"]},
        {"runtime": ["nonesuch"]},
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(typer.BadParameter):
        offer(**given)
