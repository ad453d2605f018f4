"""Canonical JSON: one spelling for each document, and every other one refused."""

from __future__ import annotations

import datetime
import json
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guactors.errors import UsageError
from guactors.security import canonical

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["sample/1"]
    name: str
    count: int = 0
    flag: bool = False
    words: tuple[str, ...] = ()


SAMPLE = Sample("sample/1", "né", 3, True, ("b", "a"))
SAMPLE_TEXT = '{"count":3,"flag":true,"format":"sample/1","name":"né","words":["b","a"]}'


@given(values.filter(lambda value: depth(value) <= canonical.DEPTH))
def test_a_value_survives_and_has_the_bytes_another_encoder_gives_it(value: Any) -> None:
    data = canonical.encode(value)
    reference = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert data == reference.encode()
    assert canonical.decode(data, object, what="it") == value


@given(values.filter(lambda value: depth(value) <= canonical.DEPTH), st.randoms())
def test_another_spelling_of_a_value_is_refused(value: Any, random: Any) -> None:
    def shuffled(part: Any) -> Any:
        if isinstance(part, dict):
            items = [(key, shuffled(item)) for key, item in part.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in part] if isinstance(part, list) else part

    exact = canonical.encode(value)
    spaced = random.choice([(",", ":"), (", ", ":"), (",", ": ")])
    other = json.dumps(
        shuffled(value), separators=spaced, ensure_ascii=random.choice([True, False])
    ).encode()
    if other == exact:
        assert canonical.decode(other, object, what="it") == value
    else:
        with pytest.raises(UsageError, match="canonical form"):
            canonical.decode(other, object, what="it")


@given(st.binary(max_size=64))
def test_whatever_arrives_is_read_exactly_or_refused(data: bytes) -> None:
    try:
        value = canonical.decode(data, object, what="it")
    except UsageError as fault:
        told = str(fault)
    else:
        assert canonical.encode(value) == data
        return
    assert told.startswith("it ")
    assert told.isprintable()


def test_a_struct_survives_with_every_field_written() -> None:
    assert canonical.encode(SAMPLE) == SAMPLE_TEXT.encode()
    assert canonical.decode(SAMPLE_TEXT.encode(), Sample, what="the sample") == SAMPLE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"count":3,', '"count":3,"count":3,'),
        ('"count":3,', '"count":4,"count":3,'),
        ('"count":3,', '"count": 3,'),
        ('"count":3,', '"count":3.0,'),
        ('"count":3,', '"count":3e0,'),
        ('"count":3,', '"count":-0,'),
        ('"count":3,', '"count":03,'),
        ('"count":3,', '"count":true,'),
        ('"count":3,', '"count":"3",'),
        ('"count":3,', '"count":null,'),
        ('"count":3,', '"count":NaN,'),
        ('"count":3,', '"count":Infinity,'),
        ('"count":3,', f'"count":{2**63},'),
        ('"count":3,', f'"count":{2**64},'),
        ('"count":3,', f'"count":{-(2**63) - 1},'),
        ('"count":3,', f'"count":1{"0" * 400},'),
        ('"count":3,', ""),
        ('"count":3,', '"Count":3,'),
        ('"count":3,', '"cents":1,"count":3,'),
        ('"flag":true', '"flag":1'),
        ("sample/1", "sample/2"),
        ("sample/1", "sample\\/1"),
        ("né", "n\\u00e9"),
        ("né", "\\ud800"),
        ("né", "\\ud800\\ud800"),
        ("né", "n\\x00"),
        ("né", "n\x00"),
        ('["b","a"]', '["b","a",]'),
        ('["b","a"]', '["b",1]'),
        ("}", "}\n"),
        ("}", "}}"),
        ("}", "} {}"),
        ("}", ""),
        ('{"count"', ' {"count"'),
        ('{"count"', '\ufeff{"count"'),
        ('"count":3,"flag":true', '"flag":true,"count":3'),
    ],
)
def test_a_document_that_differs_by_a_little_is_refused(old: str, new: str) -> None:
    assert old in SAMPLE_TEXT
    with pytest.raises(UsageError, match=r"^the sample "):
        canonical.decode(SAMPLE_TEXT.replace(old, new, 1).encode(), Sample, what="the sample")


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'["\xe9"]', b"nul", b"'a'", b"//"],
)
def test_bytes_that_are_no_document_are_refused(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"^it is damaged"):
        canonical.decode(data, object, what="it")


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        float("inf"),
        b"bytes",
        {1, 2},
        {1: "a"},
        {None: 1},
        {True: 1},
        [1.5],
        {"a": [{"b": 0.0}]},
        datetime.date(2020, 1, 1),
        object(),
        2**63,
        -(2**63) - 1,
        [2**200],
        "\ud800",
        {"\udfff": 1},
        type("Text", (str,), {})("a"),
    ],
)
def test_what_has_no_canonical_form_is_not_encoded(value: Any) -> None:
    with pytest.raises(UsageError, match="cannot be"):
        canonical.encode(value)


@pytest.mark.parametrize("value", [0.5, b"raw"])
def test_a_struct_is_checked_as_its_parts_are(value: Any) -> None:
    with pytest.raises(UsageError, match="cannot be in a signed document"):
        canonical.encode(msgspec.defstruct("S", ["x"])(value))


def test_true_is_not_one() -> None:
    assert canonical.encode([True, 1, False, 0, None]) == b"[true,1,false,0,null]"


def test_depth_is_limited() -> None:
    deepest = nested(canonical.DEPTH)
    assert canonical.decode(canonical.encode(deepest), object, what="it") == deepest
    with pytest.raises(UsageError, match="nested too deeply"):
        canonical.encode(nested(canonical.DEPTH + 1))
    with pytest.raises(UsageError, match=r"it is refused: .* nested too deeply"):
        canonical.decode(b"[" * 9 + b"]" * 9, object, what="it")
    with pytest.raises(UsageError, match="it is nested too deeply"):
        canonical.decode(b"[" * 100_000 + b"]" * 100_000, object, what="it")
    with pytest.raises(UsageError, match="it is nested too deeply"):
        canonical.decode(b'{"a":' * 40_000, object, what="it")


def test_size_is_limited_before_anything_is_read() -> None:
    assert canonical.decode(b'"' + b"a" * 8 + b'"', str, what="it", limit=10) == "a" * 8
    with pytest.raises(UsageError, match="it is too large: 11 bytes, at most 10"):
        canonical.decode(b"\xff" * 11, str, what="it", limit=10)
    with pytest.raises(UsageError, match="too large"):
        canonical.decode(b" " * (canonical.LIMIT + 1), str, what="it")


def test_a_message_is_one_short_printable_line() -> None:
    data = json.dumps({"format": "sample/1", "name": "", "\x1b[31m\n\u202e" + "x" * 5000: 1})
    with pytest.raises(UsageError) as caught:
        canonical.decode(data.encode(), Sample, what="the sample")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
