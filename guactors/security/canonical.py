"""Canonical JSON: one value, one sequence of bytes, so that what is signed is what is read.

Owns: the form. UTF-8, object keys sorted by code point, no spaces, the shortest escapes, integers
of 64 bits, no floats, at most DEPTH containers inside each other. Must never: accept a second
spelling of a document, keep an unknown or repeated field, or read one before its size is checked.

A reader that skipped what it does not know, or took the last of two equal fields, could be shown
other rights than those the signer saw.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from guactors.errors import UsageError

LIMIT: Final = 262_144
"""Bytes of a document, unless its reader says otherwise."""
DEPTH: Final = 8

_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1
_SHOWN: Final = 200
"""Characters of a decoder's message that an error repeats: it may quote the document."""

_encoder: Final = msgspec.json.Encoder(order="sorted")

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """The canonical bytes of ``value``: str, int, bool, None, lists and string-keyed dicts of them,
    or a Struct whose fields are such. Raises UsageError for anything else."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value, order="sorted", builtin_types=(bytes, bytearray))
    _check(value, 0)
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        raise UsageError("half of a surrogate pair cannot be in a signed document") from None


def decode(data: bytes, form: type[T], *, what: str, limit: int = LIMIT) -> T:
    """``data`` as a ``form`` (a Struct that forbids unknown fields, or dict, list ...).

    Raises UsageError, which names the document as ``what``, unless encoding the result gives back
    exactly ``data``: every field written, none twice, in order, without spaces."""
    if len(data) > limit:
        raise UsageError(f"{what} is too large: {len(data)} bytes, at most {limit}")
    try:
        value = msgspec.json.decode(data, type=form)
    except RecursionError:
        raise UsageError(f"{what} is nested too deeply, at most {DEPTH} levels") from None
    except UnicodeError:
        raise UsageError(f"{what} is damaged: it is not UTF-8 text") from None
    except msgspec.MsgspecError as fault:
        raise UsageError(f"{what} is damaged: {shown(str(fault))}") from None
    try:
        again = encode(value)
    except UsageError as fault:
        raise UsageError(f"{what} is refused: {fault}") from None
    if again != data:
        raise UsageError(
            f"{what} is not in canonical form (a repeated or missing field, another order of "
            "fields, or spaces): it must be byte for byte as it was written"
        )
    return value


def shown(text: str) -> str:
    """``text`` fit for a message: one line, printable, and cut where it is long."""
    return escaped(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def escaped(text: str) -> str:
    """``text`` with escapes for what a terminal would obey or not show: control characters, marks
    of writing direction, half surrogates."""
    if text.isprintable():
        return text
    return "".join(
        mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text
    )


def _check(value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not _LEAST <= value <= _MOST:
            raise UsageError("an integer of more than 64 bits cannot be in a signed document")
        return
    if depth == DEPTH and kind in {dict, list, tuple}:
        raise UsageError(f"a signed document is nested too deeply, at most {DEPTH} levels")
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise UsageError(f"a {type(key).__name__} cannot be a field of a signed document")
            _check(item, depth + 1)
    elif kind is list or kind is tuple:
        for item in value:
            _check(item, depth + 1)
    else:
        raise UsageError(f"a {kind.__name__} cannot be in a signed document")
