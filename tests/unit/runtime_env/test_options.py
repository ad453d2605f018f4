"""What a user may say as runtime_env, and what is said back about the rest."""

from __future__ import annotations

import math
from typing import Any

import pytest

from guactors.errors import UnknownOption
from guactors.options import ACTOR, METHOD, TASK, check_options
from guactors.runtime_env.description import Packages
from guactors.runtime_env.options import (
    MOST_BYTES,
    check_given,
    most_bytes,
    packages_of,
    timeout_of,
)

GOOD: list[dict[str, Any]] = [
    {},
    {"env_vars": {"A": "1"}, "working_dir": ".", "excludes": ["*.bin"]},
    {"py_modules": [math, "somewhere/package"]},
    {"pip": ["a==1"]},
    {"pip": "requirements.txt"},
    {"pip": {"packages": ["a"], "pip_check": True, "pip_version": "==24.0"}},
    {"uv": {"packages": ["a"], "uv_pip_install_options": ["--no-index"]}},
    {"py_executable": "/usr/bin/python3"},
    {"worker_process_setup_hook": "module.function"},
    {"worker_process_setup_hook": print},
    {"config": {"setup_timeout_seconds": 30, "max_bytes": 10}},
    {"config": {"setup_timeout_seconds": -1}},
    {"working_dir": None, "env_vars": None},
]


@pytest.mark.parametrize("given", GOOD)
def test_what_is_possible(given: dict[str, Any]) -> None:
    check_given(given)
    check_options({"runtime_env": given}, TASK)
    check_options({"runtime_env": given}, ACTOR)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"env_var": {"A": "1"}}, "did you mean env_vars"),
        ({"workingdir": "."}, "did you mean working_dir"),
        ({"pipp": []}, "did you mean pip"),
        ({"zzz": 1}, "there are config, env_vars"),
        ({"conda": "x"}, "use pip= or uv="),
        ({"container": {}}, "image="),
        ({"image_uri": "x"}, "image="),
        ({"env_vars": {"A": 1}}, "it takes a dict of texts"),
        ({"env_vars": ["A"]}, "it takes a dict of texts"),
        ({"working_dir": 3}, "the path of a directory"),
        ({"pip": ["a"], "uv": ["b"]}, "choose one"),
        ({"pip": {"packages": ["a"], "pip_chek": True}}, "did you mean pip_check"),
        ({"pip": {"pip_check": True}}, "a list, the path"),
        ({"uv": {"packages": ["a"], "uv_check": "yes"}}, "uv_check='yes' is impossible"),
        ({"pip": 3}, "a list, the path"),
        ({"excludes": ["a"]}, "needs a working_dir"),
        ({"config": {"setup_timeout_second": 3}}, "did you mean setup_timeout_seconds"),
        ({"config": {"setup_timeout_seconds": 0}}, "1 to 86400"),
        ({"config": {"setup_timeout_seconds": True}}, "1 to 86400"),
        ({"config": {"max_bytes": 0}}, "max_bytes"),
        ({"config": {"eager_install": True}}, "no eager_install"),
        ({"worker_process_setup_hook": 3}, "a function"),
        ({"py_executable": ""}, "the path of a Python"),
        ([("pip", [])], "is a dict, not list"),
    ],
)
def test_what_is_not_is_named(given: Any, words: str) -> None:
    with pytest.raises(UnknownOption, match=words):
        check_given(given)


def test_methods_have_none() -> None:
    with pytest.raises(UnknownOption, match="runtime_env"):
        check_options({"runtime_env": {}}, METHOD)


def test_packages_in_all_forms_are_the_same() -> None:
    lines = {"requirements.txt": ["a==1", "b"]}.__getitem__
    whole = Packages(["a==1", "b"])
    assert packages_of("pip", ["a==1", "b"], lines) == whole
    assert packages_of("pip", "requirements.txt", lines) == whole
    assert packages_of("uv", {"packages": ["a==1", "b"]}, lines) == whole
    assert packages_of("pip", {"packages": "requirements.txt"}, lines) == whole
    full = {"packages": ["a"], "pip_check": True, "pip_version": "==24",
            "pip_install_options": ("--no-index",)}  # fmt: skip
    assert packages_of("pip", full, lines) == Packages(["a"], ["--no-index"], True, "==24")


def test_limits() -> None:
    assert timeout_of({}) == 600
    assert timeout_of({"config": {"setup_timeout_seconds": -1}}) == 86_400
    assert timeout_of({"config": {"setup_timeout_seconds": 7}}) == 7
    assert most_bytes({}) == MOST_BYTES
    assert most_bytes({"config": {"max_bytes": 7}}) == 7
