"""Hypothesis strategies for every message type, read off the types themselves."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect as mi

from guactors import messages
from guactors.messages import Message

KINDS: list[type[Message]] = [
    kind
    for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]


def of(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """All values of ``kind`` that the wire may carry."""
    return _of(mi.type_info(kind))


def _of(info: mi.Type) -> st.SearchStrategy[Any]:
    match info:
        case mi.StructType(cls=cls, fields=fields):
            return st.builds(cls, **{field.name: _of(field.type) for field in fields})
        case mi.StrType(pattern=str(pattern)):
            return st.from_regex(pattern)
        case mi.StrType(max_length=most):
            # Limits count code points; surrogates are no text on the wire.
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=min(most or 40, 40))
        case mi.BytesType(max_length=most):
            return st.binary(max_size=min(most or 80, 80))
        case mi.IntType(ge=low, le=high):
            return st.integers(
                -(2**63) if low is None else low, 2**63 - 1 if high is None else high
            )
        case mi.FloatType(ge=low, le=high):
            return st.floats(low, high, allow_nan=False)
        case mi.BoolType():
            return st.booleans()
        case mi.NoneType():
            return st.none()
        case mi.ListType(item_type=item, min_length=least):
            return st.lists(_of(item), min_size=least or 0, max_size=3)
        case mi.DictType(key_type=key, value_type=value):
            return st.dictionaries(_of(key), _of(value), max_size=3)
        case mi.UnionType(types=types):
            return st.one_of([_of(one) for one in types])
        case _:
            raise TypeError(f"no strategy for {info}: add one")
