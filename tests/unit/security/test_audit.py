"""The audit chain: what a line holds, and that no change to a log goes unnoticed."""

from __future__ import annotations

import enum
import hashlib
import json
import pickle
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Self

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from guactors.security.audit import (
    GENESIS,
    LINE_MOST,
    TEXT_MOST,
    AuditBroken,
    Chain,
    Draft,
    Entry,
    Filter,
    Head,
    check_line,
    clean,
    follow,
    read_line,
    verify,
)

DRAFT = Draft(
    time=1_700_000_000.1234,
    who="gu_app_a",
    action="submit",
    decision="refused",
    reason="image",
    object="sha3-256:" + "5" * 64,
    where="gu_provider_p",
    detail="the image is not in the grant",
    grant=7,
    epoch=3,
)


def chained(count: int, draft: Draft = DRAFT) -> list[bytes]:
    chain = Chain()
    return [chain.append(replace(draft, time=draft.time + number)) for number in range(count)]


def broken(lines: list[bytes]) -> tuple[int, str]:
    """Number and fault of the first bad line."""
    with pytest.raises(AuditBroken) as caught:
        verify(lines)
    return caught.value.line, caught.value.fault


def edited(line: bytes, **changes: Any) -> bytes:
    """The line with other fields, in canonical form, its hash left as it was."""
    fields = json.loads(line) | changes
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def rehashed(line: bytes, **changes: Any) -> bytes:
    """The line with other fields and the hash that fits them: the form is written out here, so
    that a change of it cannot go unnoticed."""
    fields = json.loads(edited(line, **changes))
    del fields["hash"]
    data = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    return edited(
        line, **changes, hash=hashlib.sha3_256(fields["previous"].encode() + data).hexdigest()
    )


def test_a_line_is_canonical_json_of_the_whole_entry() -> None:
    line = Chain().append(DRAFT)
    fields = json.loads(line)
    assert line == edited(line)
    assert fields.pop("hash") == json.loads(rehashed(line))["hash"]
    assert fields == {
        "number": 1,
        "time": 1_700_000_000_123,
        "who": "gu_app_a",
        "action": "submit",
        "decision": "refused",
        "reason": "image",
        "object": "sha3-256:" + "5" * 64,
        "where": "gu_provider_p",
        "detail": "the image is not in the grant",
        "grant": 7,
        "epoch": 3,
        "previous": "0" * 64,
    }


class Word(enum.StrEnum):
    SUBMIT = "submit"
    REFUSED = "refused"


class Old(str, enum.Enum):  # noqa: UP042 - whose text is not its value
    SUBMIT = "submit"
    REFUSED = "refused"


@pytest.mark.parametrize("words", [Word, Old])
def test_members_of_enumerations_are_written_as_their_texts(words: type[Word]) -> None:
    fields = dict.fromkeys(("who", "action", "reason", "object", "where"), words.SUBMIT)
    plain = dict.fromkeys(fields, "submit")
    given: Any = {**fields, "detail": words.SUBMIT, "decision": words.REFUSED}
    assert Chain().append(replace(DRAFT, **given)) == Chain().append(
        replace(DRAFT, **plain, detail="submit", decision="refused")
    )
    assert type(clean(words.SUBMIT)) is str


def test_each_line_is_bound_to_the_one_before() -> None:
    entries = [read_line(line) for line in chained(5)]
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert all(after.previous == before.hash for before, after in pairwise(entries))
    assert len({entry.hash for entry in entries}) == 5


def test_a_whole_log_is_counted() -> None:
    assert verify([]) == 0
    assert verify(chained(5)) == 5
    assert verify(line for line in chained(3)) == 3


def test_a_chain_goes_on_from_its_head() -> None:
    lines = chained(5)
    head = follow(lines[:2])
    assert head == Head(2, read_line(lines[1]).hash)
    assert follow(lines[2:], head).number == 5
    chain = Chain(head)
    assert chain.append(replace(DRAFT, time=DRAFT.time + 2)) == lines[2]
    assert chain.head.number == 3


def test_a_line_that_was_taken_back_is_not_in_the_chain() -> None:
    chain = Chain()
    first = chain.append(DRAFT)
    before = chain.head
    chain.append(replace(DRAFT, detail="never written"))
    chain.head = before
    assert verify([first, chain.append(DRAFT)]) == 2


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda line: edited(line, decision="allowed"), "hash"),
        (lambda line: edited(line, grant=8), "hash"),
        (lambda line: edited(line, hash="0" * 64), "hash"),
        (lambda line: rehashed(line, number=99), "order"),
        (lambda line: rehashed(line, previous="1" * 64), "order"),
        (lambda line: edited(line, more=1), "form"),
        (lambda line: edited(line, number=2**64), "form"),
        (lambda line: edited(line, number=0), "form"),
        (lambda line: edited(line, time=1.5), "form"),
        (lambda line: edited(line, decision="perhaps"), "form"),
        (lambda line: edited(line, hash="A" * 64), "form"),
        (lambda line: edited(line, previous="1" * 63), "form"),
        (lambda line: rehashed(line, detail="\x1b[2J"), "form"),
        (lambda line: rehashed(line, detail="a" * (TEXT_MOST + 1)), "form"),
        (lambda line: line[:1] + b" " + line[1:], "form"),
        (lambda line: line[:-1] + b"\r\n", "form"),
        (lambda line: line.replace(b',"grant":7', b',"grant":7,"grant":7'), "form"),
        (lambda line: line.replace(b',"grant":7', b""), "form"),
        (lambda line: line.replace(b"refused", b"\\u0072efused"), "form"),
        (lambda line: line.replace(b"gu_app_a", b"\xff"), "form"),
        (lambda line: b"\n", "form"),
        (lambda line: b"\0" * 100 + b"\n", "form"),
        (lambda line: b"[" * 10_000 + b"\n", "form"),
        (lambda line: b"[]\n", "form"),
        (lambda line: edited(line, detail="a" * LINE_MOST), "form"),
        (lambda line: b"a" * (LINE_MOST + 1), "form"),
        (lambda line: line[:-1], "torn"),
        (lambda line: line[:40], "torn"),
    ],
)
def test_the_first_bad_line_is_named(
    place: int, change: Callable[[bytes], bytes], fault: str
) -> None:
    lines = chained(5)
    lines[place] = change(lines[place])
    assert broken(lines) == (place + 1, fault)


def test_a_forged_line_with_a_fitting_hash_shows_in_the_next() -> None:
    lines = chained(5)
    lines[2] = rehashed(lines[2], decision="allowed")
    assert broken(lines) == (4, "order")


def test_the_end_that_is_kept_elsewhere_shows_what_the_chain_cannot() -> None:
    lines = chained(5)
    head = follow(lines)
    assert follow(lines[:4]) != head
    lines[4] = rehashed(lines[4], decision="allowed")
    assert follow(lines) != head


@given(st.data())
def test_no_move_of_lines_goes_unnoticed(data: st.DataObject) -> None:
    lines = chained(6)
    order = data.draw(st.lists(st.integers(0, 5), max_size=8), label="lines")
    found = [lines[number] for number in order]
    assume(order != list(range(len(order))))
    first = next(place for place, number in enumerate(order) if place != number)
    assert broken(found) == (first + 1, "order")


@given(st.integers(0, 4), st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(place: int, at: int, change: int) -> None:
    lines = chained(5)
    line = bytearray(lines[place])
    line[at % len(line)] ^= change
    lines[place] = bytes(line)
    found, _ = broken(b"".join(lines).splitlines(keepends=True))
    assert found == place + 1


@given(st.integers(0, 10_000))
def test_no_cut_goes_unnoticed_but_between_lines(at: int) -> None:
    whole = b"".join(chained(4))
    at %= len(whole)
    kept = whole[:at].split(b"\n")
    lines = [line + b"\n" for line in kept[:-1]] + [kept[-1]] * bool(kept[-1])
    if kept[-1]:
        assert broken(lines) == (len(lines), "torn")
    else:
        assert verify(lines) == len(lines)


texts = st.text(st.characters(exclude_categories=()), max_size=TEXT_MOST + 40)
integers = st.integers(-(2**63), 2**63 - 1)


@given(
    st.lists(
        st.builds(
            Draft, st.floats(-1e9, 1e11), texts, texts, st.sampled_from(["allowed", "refused"]),
            texts, texts, texts, texts, integers, integers,
        ),
        max_size=4,
    )
)  # fmt: skip
def test_whatever_is_written_can_be_verified(drafts: list[Draft]) -> None:
    chain = Chain()
    assert verify([chain.append(draft) for draft in drafts]) == len(drafts)


@pytest.mark.parametrize(
    "full", ["a", '"', "\\", "ü", "\U0001f600", "\x07", "\ud800", "\U000e0001"]
)
def test_the_longest_line_fits(full: str) -> None:
    text = full * 2 * TEXT_MOST
    line = Chain().append(
        Draft(1e11, text, text, "refused", text, text, text, text, 2**63 - 1, 2**63 - 1)
    )
    assert len(line) <= LINE_MOST
    assert verify([line]) == 1


@given(texts)
def test_texts_are_safe_to_show(text: str) -> None:
    safe = clean(text)
    assert len(safe) <= TEXT_MOST
    assert all(
        character == " " or unicodedata.category(character)[0] not in "CZ" for character in safe
    )
    assert clean(safe) == safe
    if text.isprintable() and len(text) <= TEXT_MOST:
        assert safe == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("two words", "two words"),
        ("line\nline\r\t\x1b[2J\x00\x7f\x9b", r"line\nline\r\t\x1b[2J\x00\x7f\x9b"),
        ("a\u202eb\u2028c\u200bd", r"a\u202eb\u2028c\u200bd"),
        ("\ud800", r"\ud800"),
        ("naïve 漢字", "naïve 漢字"),
        ("a" * TEXT_MOST, "a" * TEXT_MOST),
        ("a" * (TEXT_MOST + 1), "a" * (TEXT_MOST - 1) + "…"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_verifying_holds_one_line_at_a_time() -> None:
    alive = 0
    most = 0

    class Line(bytes):
        def __new__(cls, data: bytes) -> Self:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().__new__(cls, data)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    assert verify(map(Line, chained(200))) == 200
    assert most <= 2


def test_an_error_says_where_and_travels() -> None:
    with pytest.raises(
        AuditBroken, match=r"^line 2 of audit\.log\.3 is broken \(torn\): "
    ) as caught:
        follow([chained(1)[0], b"{"], name="audit.log.3")
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == str(caught.value)
    assert (error.name, error.line, error.fault) == ("audit.log.3", 2, "torn")
    with pytest.raises(AuditBroken, match=r"^audit\.log is broken \(order\): entry 1 follows 1$"):
        check_line(Head(1, "0" * 64), chained(1)[0], "audit.log")
    assert GENESIS.number == 0


ENTRY = read_line(Chain().append(DRAFT))


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(),
        Filter(who="gu_app_a"),
        Filter(who="gu_app"),
        Filter(action="submit"),
        Filter(decision="refused"),
        Filter(reason="image"),
        Filter(since=1_700_000_000.123),
        Filter(until=1_700_000_000.124),
        Filter(object="5555"),
        Filter("gu_app_a", "submit", "refused", "image", 1.0, 2e9, "sha3"),
    ],
)
def test_wanted(wanted: Filter) -> None:
    assert wanted.matches(ENTRY)


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(who="gu_app_b"),
        Filter(who="gu_app_ab"),
        Filter(who="app_a"),
        Filter(action="sub"),
        Filter(decision="allowed"),
        Filter(reason="image_signer"),
        Filter(since=1_700_000_000.124),
        Filter(until=1_700_000_000.123),
        Filter(object="7"),
        Filter("gu_app_a", "submit", "refused", "image", 1.0, 2e9, "sha2"),
    ],
)
def test_unwanted(wanted: Filter) -> None:
    assert not wanted.matches(ENTRY)


def test_an_entry_has_the_fields_of_a_draft_and_its_place() -> None:
    own = {"number", "previous", "hash"}
    assert set(Entry.__struct_fields__) == set(Draft.__struct_fields__) | own
