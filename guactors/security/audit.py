"""The audit chain: one line for each decision, each bound to the one before by its hash.

Owns: the form of an entry, the chain of hashes, the check of a log, and the filter of its readers.
Must never: touch a disk or a clock (``audit_file`` does), or take secrets or arguments of calls.

A line is the canonical JSON of an :class:`Entry` and a newline. ``hash`` is the SHA3-256 (hex) of
``previous`` and the canonical JSON of all other fields; ``previous`` is the hash of the line
before, 64 zeros in the first. So a line that was changed, added, moved or taken out shows. What
does not show: an end that was cut off, or a log that was written anew as a whole. Who must know
keeps the :class:`Head` of a check elsewhere, and compares.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, MsgspecError, Struct, json, to_builtins

from guactors.errors import GuactorsError, UsageError
from guactors.security import canonical

TEXT_MOST: Final = 512
"""Characters of a text field; a longer one is cut and ends in an ellipsis."""
LINE_MOST: Final = 16_384
"""Bytes of a line at most: six full fields of four-byte characters fit."""

Decision = Literal["allowed", "refused"]
Fault = Literal["hash", "order", "form", "torn"]
"""What is wrong with a line: its hash does not fit what it says; it does not follow the one before;
it is not in the canonical form; it is the unfinished last one."""

_Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class AuditBroken(GuactorsError):
    """A line of an audit log is not what was written. ``name`` is the log or file, ``line`` counts
    from 1 (0: unknown), ``fault`` is one of :data:`Fault`."""

    def __init__(self, name: str, line: int, fault: Fault, detail: str) -> None:
        super().__init__(name, line, fault, detail)
        self.name = name
        self.line = line
        self.fault = fault
        self.detail = detail

    def __str__(self) -> str:
        place = f"line {self.line} of {self.name}" if self.line else self.name
        return f"{place} is broken ({self.fault}): {self.detail}"


class Draft(Struct, frozen=True):
    """A decision to write down.

    ``time``: wall seconds; ``who``: the public key or name of the principal; ``action``: what it
    wanted; ``object``: to what (image or function hash, session, key); ``where``: the provider;
    ``reason``: a stable word; ``detail``: for people; ``grant``: its serial, 0 for none;
    ``epoch``: that of the hub. Texts are cut and escaped when they become an :class:`Entry`."""

    time: float
    who: str
    action: str
    decision: Decision
    reason: str
    object: str = ""
    where: str = ""
    detail: str = ""
    grant: int = 0
    epoch: int = 0


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the log: a :class:`Draft` in its place. ``number`` counts from 1; ``time`` is wall
    milliseconds, which a corrected clock may turn back."""

    number: Annotated[int, Meta(ge=1)]
    time: int
    who: str
    action: str
    decision: Decision
    reason: str
    object: str
    where: str
    detail: str
    grant: int
    epoch: int
    previous: _Hash
    hash: _Hash


_decoder: Final = json.Decoder(Entry)


class Head(Struct, frozen=True):
    """The end of a chain: the number and hash of its last entry. It stands for all before."""

    number: int
    hash: str


GENESIS: Final = Head(0, "0" * 64)
"""The end of a chain without entries."""


class Chain:
    """The writer's end: gives each draft its number and hashes. Set ``head`` back to take back
    lines that could not be written."""

    def __init__(self, head: Head = GENESIS) -> None:
        self.head = head

    def append(self, draft: Draft) -> bytes:
        """The line of ``draft``, newline included."""
        fields: dict[str, Any] = {
            "number": self.head.number + 1,
            "time": round(draft.time * 1000),
            "who": clean(draft.who),
            "action": clean(draft.action),
            "decision": clean(draft.decision),
            "reason": clean(draft.reason),
            "object": clean(draft.object),
            "where": clean(draft.where),
            "detail": clean(draft.detail),
            "grant": draft.grant,
            "epoch": draft.epoch,
            "previous": self.head.hash,
        }
        fields["hash"] = _hash(fields)
        line = canonical.encode(fields) + b"\n"
        self.head = Head(self.head.number + 1, fields["hash"])
        return line


def clean(text: str) -> str:
    """``text`` fit for a line: what a terminal would obey or not show (control characters, marks
    of writing direction, half surrogates) is escaped, and what is too long is cut. A member of an
    enumeration becomes the plain text that it stands for."""
    text = str.__str__(text)
    if len(text) <= TEXT_MOST and text.isprintable():
        return text
    safe = canonical.escaped(text[: TEXT_MOST + 1])
    return safe if len(safe) <= TEXT_MOST else safe[: TEXT_MOST - 1] + "…"


def check_line(head: Head, line: bytes, name: str = "the audit log", number: int = 0) -> Entry:
    """The entry of ``line``, if it is the one that follows ``head``. Raises AuditBroken, which
    tells the place as line ``number`` of ``name``."""
    entry = read_line(line, name, number)
    fields = to_builtins(entry)
    try:
        canonical_line = canonical.encode(fields) + b"\n"
    except UsageError as fault:
        raise AuditBroken(name, number, "form", str(fault)) from None
    if line != canonical_line:
        raise AuditBroken(name, number, "form", "it is not in canonical form")
    texts = (entry.who, entry.action, entry.reason, entry.object, entry.where, entry.detail)
    if any(text != clean(text) for text in texts):
        raise AuditBroken(name, number, "form", "a text in it is too long or not escaped")
    del fields["hash"]
    if _hash(fields) != entry.hash:
        raise AuditBroken(name, number, "hash", "it was changed after it was written")
    if entry.number != head.number + 1:
        raise AuditBroken(
            name, number, "order", f"entry {entry.number} follows {head.number or 'nothing'}"
        )
    if entry.previous != head.hash:
        raise AuditBroken(
            name, number, "order", f"it was not written after what stands as entry {head.number}"
        )
    return entry


def read_line(line: bytes, name: str = "the audit log", number: int = 0) -> Entry:
    """The entry of ``line`` by its form alone: several times faster than :func:`check_line`."""
    if len(line) > LINE_MOST:
        raise AuditBroken(name, number, "form", f"it is longer than {LINE_MOST} bytes")
    if not line.endswith(b"\n"):
        raise AuditBroken(name, number, "torn", "its end is missing")
    try:
        return _decoder.decode(line)
    except (MsgspecError, UnicodeError) as fault:
        raise AuditBroken(name, number, "form", clean(str(fault))) from None


def follow(lines: Iterable[bytes], head: Head = GENESIS, name: str = "the audit log") -> Head:
    """The end of the chain ``lines``, which must begin after ``head``. Holds one line at a time.
    Raises AuditBroken for the first line that does not fit."""
    for number, line in enumerate(lines, start=1):
        entry = check_line(head, line, name, number)
        head = Head(entry.number, entry.hash)
    return head


def verify(lines: Iterable[bytes]) -> int:
    """The number of entries of the whole log ``lines``, as :func:`follow` checks it."""
    return follow(lines).number


class Filter(Struct, frozen=True):
    """Which entries a reader wants; an empty field wants all.

    ``who``: the principal, or how its key begins; ``action``, ``decision``, ``reason``: exactly;
    ``since`` (inclusive) and ``until`` (exclusive, 0: no end): wall seconds; ``object``: a part."""

    who: str = ""
    action: str = ""
    decision: str = ""
    reason: str = ""
    since: float = 0.0
    until: float = 0.0
    object: str = ""

    def matches(self, entry: Entry) -> bool:
        """Whether ``entry`` is wanted."""
        return (
            entry.who.startswith(self.who)
            and self.action in {"", entry.action}
            and self.decision in {"", entry.decision}
            and self.reason in {"", entry.reason}
            and entry.time >= self.since * 1000
            and (not self.until or entry.time < self.until * 1000)
            and self.object in entry.object
        )


def _hash(fields: dict[str, Any]) -> str:
    """``fields``: all but ``hash``."""
    data = str(fields["previous"]).encode() + canonical.encode(fields)
    return hashlib.sha3_256(data).hexdigest()
