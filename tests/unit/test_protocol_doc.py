"""``docs/protocol.md`` says what ``messages.py`` says: tags, lanes, fields, types, directions."""

from __future__ import annotations

import re
import typing
from pathlib import Path
from types import UnionType

import msgspec
import pytest

from guactors import messages
from guactors.messages import BULK, Message, Word
from guactors.transport import frames

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
DIRECTIONS = (
    "CallerToHub",
    "HubToCaller",
    "ProviderToHub",
    "HubToProvider",
    "WorkerToProvider",
    "ProviderToWorker",
    "CallerToWorker",
    "WorkerToCaller",
)


def defined(base: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """The subclasses of ``base`` that messages.py defines, in its order."""
    return [
        kind
        for kind in vars(messages).values()
        if isinstance(kind, type) and issubclass(kind, base) and kind is not base
    ]


def field_text(kind: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> str:
    """``name: type = default`` as the document writes it."""
    annotation: str = kind.__annotations__[field.name]
    limit = re.fullmatch(r"Annotated\[(\w+), Meta\(max_length=(\d+)\)\]", annotation)
    if limit:
        annotation = f"{limit[1]} to {limit[2]}"
    text = f"{field.name}: {annotation.replace(' | ', ' or ')}"
    if field.default is not msgspec.NODEFAULT:
        text += f" = {field.default!r}"
    elif field.default_factory is not msgspec.NODEFAULT:
        text += f" = {field.default_factory()!r}"
    return text.replace("'", '"')


def signature(kind: type[msgspec.Struct]) -> str:
    """All fields of ``kind``, in the order of the wire, as one cell of the tables."""
    return "<br>".join(f"`{field_text(kind, field)}`" for field in msgspec.structs.fields(kind))


def rows() -> dict[str, list[str]]:
    """Every table row by the name in its second cell (messages) or first (words)."""
    found: dict[str, list[str]] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            name = cells[1] if cells[0].isdigit() else cells[0]
            found.setdefault(name.strip("`"), cells)
    return found


@pytest.mark.parametrize("kind", defined(Message), ids=lambda kind: kind.__name__)
def test_message_is_documented(kind: type[Message]) -> None:
    lane = "data" if kind in BULK else "control"
    cells = rows().get(kind.__name__, [])
    tag = kind.__struct_config__.tag
    expected = [str(tag), f"`{kind.__name__}`", lane, signature(kind)]
    assert cells[:4] == expected, "expected row: | " + " | ".join(expected) + " | meaning |"
    assert len(cells) == 5
    assert cells[4]


@pytest.mark.parametrize("kind", defined(Word), ids=lambda kind: kind.__name__)
def test_word_is_documented(kind: type[Word]) -> None:
    cells = rows().get(kind.__name__, [])
    expected = [f"`{kind.__name__}`", signature(kind)]
    assert cells[:2] == expected, "expected row: | " + " | ".join(expected) + " | meaning |"
    assert len(cells) == 3
    assert cells[2]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_direction_is_documented(direction: str) -> None:
    union: UnionType = getattr(messages, direction)
    common = set(typing.get_args(messages.Common))
    names = [f"`{kind.__name__}`" for kind in typing.get_args(union) if kind not in common]
    cells = rows().get(direction, [])
    assert cells[-1:] == [", ".join(names)], f"expected: {', '.join(names)}"


def test_nothing_else_is_documented() -> None:
    known = {str(kind.__struct_config__.tag) for kind in defined(Message)}
    documented = {cells[0] for cells in rows().values() if cells[0].isdigit()}
    assert documented == known


def test_limits_are_documented() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"version {messages.PROTOCOL_VERSION}" in text
    assert f"{frames.CONTROL_HEADER_LIMIT >> 20} MiB on the control lane" in text
    assert f"{frames.DATA_HEADER_LIMIT >> 20} MiB on the data lane" in text
    assert f"{frames.MAX_FRAMES:,} frames" in text
