"""runtime_env on a grid of keys: who may send files, what must be signed, what an owner forbids."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import guactors as gu
from guactors import errors
from guactors.security.keys import Kind
from guactors.security.policy import default_policy
from tests import leaks
from tests.e2e.keyed_grid import KeyedGrid

pytestmark = pytest.mark.may_keep(*leaks.KINDS)
SENDS: dict[str, Any] = {
    "providers": ["*"], "actions": ["submit", "read_stats", "upload_images"],
}  # fmt: skip


@gu.remote(max_retries=0)
def read(name: str) -> str:
    with open(name) as file:
        return file.read()


@gu.remote(max_retries=0)
def variable(name: str) -> str | None:
    return os.environ.get(name)


@pytest.fixture(scope="module")
def world(
    permanent_threads: None, run_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KeyedGrid]:
    root = tmp_path_factory.mktemp("grid")
    before = leaks.take(root, run_root)
    with KeyedGrid(root) as grid:
        grid.add_provider("box")
        policy = msgspec.to_builtins(default_policy([grid.owner_key.public.text]))
        grid.add_provider("strict", policy={**policy, "environments": ["uv"]})
        yield grid
    found = leaks.settle(before, root, run_root, leaks.KINDS)
    if found:
        pytest.fail("the grid left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture
def grid(world: KeyedGrid, monkeypatch: pytest.MonkeyPatch) -> KeyedGrid:
    monkeypatch.setenv("GU_TRANSPORT", "tcp")
    return world


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "note.txt").write_text("from afar")
    return {"working_dir": str(tmp_path), "excludes": ["gu-home"]}


def test_files_reach_every_machine(grid: KeyedGrid, files: dict[str, Any]) -> None:
    with grid.session(grid.add_app(**SENDS)):
        there = [
            read.options(runtime_env=files, provider=name).remote("note.txt")
            for name in ("box", "strict")
        ]
        assert gu.get(there, timeout=30) == ["from afar"] * 2


def test_sending_files_needs_the_right(grid: KeyedGrid, files: dict[str, Any]) -> None:
    with grid.session(grid.add_app(providers=["*"])):
        given = {"env_vars": {"GT_A": "1"}}
        assert gu.get(variable.options(runtime_env=given).remote("GT_A"), timeout=30) == "1"
        with pytest.raises(errors.PermissionDenied, match="upload_images"):
            read.options(runtime_env=files).remote("note.txt")


def test_what_an_owner_forbids(grid: KeyedGrid) -> None:
    with grid.session(grid.add_app(**SENDS)):
        given = {"pip": {"packages": ["x"], "pip_install_options": ["--no-index"]}}
        with pytest.raises(errors.PermissionDenied, match="has pip, which the owner of this"):
            gu.get(variable.options(runtime_env=given, provider="strict").remote("A"), timeout=30)
        with pytest.raises(errors.RuntimeEnvSetupError, match="No matching distribution"):
            gu.get(variable.options(runtime_env=given, provider="box").remote("A"), timeout=30)


def test_where_code_is_signed_so_is_the_environment(grid: KeyedGrid, files: dict[str, Any]) -> None:
    signer = grid.new_key(Kind.SIGNER)
    app = grid.add_app(**SENDS, function_signers=[grid.key(signer).public.text])
    with grid.session(app, signer=str(signer)):
        assert gu.get(read.options(runtime_env=files).remote("note.txt"), timeout=30) == "from afar"
    with grid.session(app), pytest.raises(errors.PermissionDenied, match="runtime_env may not be"):
        gu.get(read.options(runtime_env=files).remote("note.txt"), timeout=30)
