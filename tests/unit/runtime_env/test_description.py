"""The canonical form of a runtime_env, and how a child's is made of its parent's."""

from __future__ import annotations

from typing import Any

import pytest

from guactors.errors import UsageError
from guactors.messages import EnvPlace, EnvWord, Shape
from guactors.runtime_env.description import (
    NOTHING,
    Description,
    Packages,
    decode,
    encode,
    env_id,
    merge,
)

ARCHIVE = "sha3-256:" + "a" * 64
FULL = Description(
    env_vars={"B": "2", "A": "1"},
    working_dir=ARCHIVE,
    py_modules=[ARCHIVE],
    pip=Packages(["numpy==1.26"], ["--no-index"], True, "==24"),
    py_executable="/usr/bin/python3",
    hook="module.function",
    setup_timeout=9,
)


def test_it_survives_the_way() -> None:
    assert decode(encode(FULL)) == FULL
    assert decode(encode(NOTHING)) == NOTHING


def test_equal_ones_have_equal_ids_and_others_others() -> None:
    turned = merge(None, {"env_vars": {"A": "1", "B": "2"}})
    assert encode(turned) == encode(Description(env_vars={"B": "2", "A": "1"}))
    assert env_id(encode(turned)) != env_id(encode(NOTHING))


@pytest.mark.parametrize(
    "fields",
    [
        {"env_vars": {"": "1"}},
        {"env_vars": {"A=B": "1"}},
        {"env_vars": {"A": "1\0"}},
        {"env_vars": {"A": "x" * 70_000}},
        {"env_vars": {f"V{number}": "" for number in range(2500)}},
        {"working_dir": "/home/me"},
        {"py_modules": ["../x"]},
        {"hook": "not a name"},
        {"hook": "alone"},
        {"setup_timeout": 0},
        {"setup_timeout": 86_401},
        {"pip": Packages(["a\nb"])},
        {"pip": Packages(["a"]), "uv": Packages(["a"])},
    ],
)
def test_what_no_provider_would_read(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="runtime_env"):
        encode(Description(**fields))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b'{"nonsense":1}', encode(FULL) + b" ", encode(FULL)[:-1], b"\xff" * 9],
)
def test_bytes_that_are_no_description(data: bytes) -> None:
    with pytest.raises(UsageError, match="runtime_env"):
        decode(data)


def test_variables_are_merged_and_all_else_is_replaced() -> None:
    parent = merge(None, {"env_vars": {"A": "1", "B": "1"}, "pip": Packages(["a"]), "hook": "m.f"})
    child = merge(parent, {"env_vars": {"B": "2", "C": "2"}})
    assert child.env_vars == {"A": "1", "B": "2", "C": "2"}
    assert (child.pip, child.hook) == (Packages(["a"]), "m.f")
    child = merge(parent, {"pip": Packages(["b"]), "hook": ""})
    assert (child.pip, child.hook, child.env_vars) == (Packages(["b"]), "", {"A": "1", "B": "1"})


def test_pip_and_uv_replace_each_other() -> None:
    parent = merge(None, {"pip": Packages(["a"])})
    child = merge(parent, {"uv": Packages(["b"])})
    assert (child.pip, child.uv) == (None, Packages(["b"]))
    assert merge(child, {"pip": Packages(["c"])}).uv is None


def test_variables_are_in_no_repr() -> None:
    word = EnvWord(encode(Description(env_vars={"TOKEN": "secret"})))
    shape = Shape({}, env=word)
    assert "secret" not in repr(shape)
    assert "secret" not in repr(EnvPlace(word, {"TOKEN": "secret"}))
