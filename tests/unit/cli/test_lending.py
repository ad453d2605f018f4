"""When a machine is lent, by the options of ``gu provider``."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from guactors.cli.lending import lending
from guactors.config import Lending

NOTHING: dict[str, Any] = {
    "available": "", "when_idle": False, "idle_source": "", "idle_command": "", "idle_after": None,
    "busy_after": None, "busy_load": None, "dwell": None, "leave_after": None,
}  # fmt: skip


def lent(**given: Any) -> Lending:
    return lending(**{**NOTHING, **given})


def test_always_unless_told_otherwise() -> None:
    assert lent() == Lending()


def test_hours() -> None:
    assert lent(available="sat; sun") == Lending(hours="sat; sun")


def test_while_nobody_uses_it() -> None:
    assert lent(when_idle=True).sources == ["input", "load"]
    found = lent(
        idle_source="power, load", idle_after="15m", busy_after="30s", busy_load=1.5, dwell="1.5h",
        leave_after="20",
    )  # fmt: skip
    assert found == Lending("", ["power", "load"], 900.0, 30.0, 5400.0, 1.5, [], 20.0)


def test_a_command_is_a_source() -> None:
    found = lent(idle_command="test ! -e '/run/the owner'")
    assert found.sources == ["command"]
    assert found.command == ["test", "!", "-e", "/run/the owner"]
    assert lent(idle_command="x", when_idle=True).sources == ["command"]
    assert lent(idle_command="x", idle_source="load,command").sources == ["load", "command"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"available": "mon-fry"}, "--available: 'fry'"),
        ({"idle_source": "webcam"}, "--idle-source: there is no 'webcam'"),
        ({"idle_source": "command"}, "command"),
        ({"idle_after": "15m"}, "--idle-after is about idleness"),
        ({"when_idle": True, "idle_after": "soon"}, "--idle-after 'soon'"),
        ({"when_idle": True, "busy_after": "-3s"}, "--busy-after '-3s'"),
        ({"when_idle": True, "busy_load": -1.0}, "busy_load"),
        ({"when_idle": True, "busy_load": float("nan")}, "busy_load"),
        ({"idle_command": "sh -c 'x"}, "--idle-command"),
        ({"leave_after": "1e100"}, "--leave-after '1e100'"),
        ({"leave_after": "9" * 30}, "leave_after"),
    ],
)
def test_what_cannot_be_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        lent(**given)
    assert named in str(caught.value)
