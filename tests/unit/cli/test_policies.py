"""``gu policy``: a policy is read as the provider reads it, and answers a question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guactors.security.keys import Kind
from guactors.security.policy import default_policy, parse_policy
from tests.unit.cli.stand_in_hub import StandIn, gu, make_key, refused
from tests.unit.security.samples import public

APP, OTHER_APP = public(Kind.APP), public(Kind.APP, 2)
SIGNER, OWNER = public(Kind.SIGNER), public(Kind.OWNER)
HASH = "sha3-256:" + "b" * 64

STRICT: dict[str, Any] = {
    "format": "guactors.policy/1",
    "owners": [OWNER.text],
    "apps": [APP.text],
    "runtimes": ["python", "docker"],
    "image_hashes": [HASH],
    "image_signers": [SIGNER.text],
    "function_signers": [SIGNER.text],
    "max_priority": 5,
    "tests": [
        {"app": APP.text, "function_signer": SIGNER.text, "expect": "allowed"},
        {"app": OTHER_APP.text, "expect": "app"},
    ],
}


@pytest.fixture
def strict(tmp_path: Path) -> str:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(STRICT))
    return str(path)


def test_show_writes_out_every_field(strict: str) -> None:
    shown = json.loads(gu("policy", "show", strict).out)
    assert shown["apps"] == [APP.text]
    assert (shown["deny_apps"], shown["hub_sessions"]) == ([], False)
    parse_policy(json.dumps(shown).encode())


def test_without_a_file_it_is_that_of_a_new_provider(hub: StandIn, gu_home: Path) -> None:
    shown = gu("policy", "show").out.encode()
    assert parse_policy(shown) == default_policy([hub.owner.public.text])
    (gu_home / "policy.json").write_text(json.dumps(STRICT))
    assert json.loads(gu("policy", "show").out)["max_priority"] == 5


def test_without_a_file_and_a_grid_there_is_none() -> None:
    assert "give a file" in refused("policy", "show")


def test_check_runs_the_tests(strict: str) -> None:
    done = gu("policy", "check", strict)
    assert "2 tests" in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_priority": "high"}, "max_priority"),
        ({"limits": []}, "limits"),
        ({"apps": ["somebody"]}, "apps"),
        ({"tests": [{"app": APP.text, "expect": "allowed"}]}, "test 1"),
        ({"tests": [{"app": OTHER_APP.text, "expect": "allowed"}]}, "test 1"),
    ],
)
def test_a_bad_policy_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(STRICT | change))
    for command in ("check", "show"):
        assert said in refused("policy", command, str(path))


def test_a_missing_policy_is_named(tmp_path: Path) -> None:
    assert "none.json" in refused("policy", "check", str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (["--app", APP.text, "--function-signer", SIGNER.text], ""),
        (["--app", APP.text, "--runtime", "docker", "--image", HASH], ""),
        (["--app", APP.text, "--runtime", "docker", "--signer", SIGNER.text, "--image",
          HASH.replace("b", "c")], ""),
        (["--app", APP.text], "signed by nobody"),
        (["--app", OTHER_APP.text], "apps it lists"),
        (["--runtime", "python"], "without an app key"),
        (["--app", APP.text, "--runtime", "qemu"], "runtime"),
        (["--app", APP.text, "--runtime", "docker", "--image", HASH.replace("b", "c")], "image"),
        (["--app", APP.text, "--priority", "6"], "priority"),
        (["--app", SIGNER.text], "an app key is needed"),
    ],
)  # fmt: skip
def test_a_question_is_answered(strict: str, question: list[str], said: str) -> None:
    if not said:
        assert gu("policy", "check", strict, *question).line == "allowed"
        return
    done = gu("policy", "check", strict, *question, status=1)
    assert done.out == ""
    assert said in done.err.splitlines()[-1]


def test_names_are_those_of_files_here(strict: str, tmp_path: Path) -> None:
    mine = make_key(Kind.APP, "lab")
    path = tmp_path / "other.json"
    path.write_text(json.dumps(STRICT | {"apps": [mine.public.text], "tests": []}))
    question = ["--app", "lab", "--function-signer", SIGNER.text]
    assert gu("policy", "check", str(path), *question).line == "allowed"
