"""Which programs of an image may run, and with what around them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guactors.errors import PermissionDenied, UsageError
from guactors.runtimes import program
from guactors.runtimes.base import Where
from guactors.worker import programs

pytestmark = pytest.mark.needs("posix")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "bin").mkdir(parents=True)
    (root / "data").mkdir()
    program = root / "bin" / "hello"
    program.write_text('#!/bin/sh\necho "$PWD" "$NAME" "$SECRET" "$@"\nexit 3\n')
    program.chmod(0o755)
    (root / "bin" / "link").symlink_to("hello")
    (root / "bin" / "sh").symlink_to("/bin/sh")
    (root / "bin" / "up").symlink_to("../../outside")
    (root / "host").symlink_to("/bin")
    (root / "plain").write_text("no program")
    outside = tmp_path / "outside"
    outside.write_text("#!/bin/sh\n")
    outside.chmod(0o755)
    return root


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    kept = dict(os.environ)
    os.environ.update(SECRET="s3cret", LC_ALL="C")
    yield
    os.environ.clear()
    os.environ.update(kept)
    program.forget()


def output(root: Path, argv: Any, env: Any = None, cwd: Any = "") -> tuple[str, int]:
    """What it printed, and its exit code."""
    out, code = b"", -1
    for kind, data in programs.run(
        Where("native", str(root), "i"), argv, {} if env is None else env, cwd
    ):
        if kind == "exit":
            code = int(data)
        elif kind == "out":
            assert isinstance(data, bytes)
            out += data
    return out.decode().strip(), code


@pytest.mark.parametrize(
    "name", ["bin/hello", "/bin/hello", "bin/link", "bin/../bin/hello", "//bin/hello"]
)
def test_a_program_of_the_image_runs_in_its_directory(image: Path, name: str) -> None:
    found = output(image, [name, "a b"], {"NAME": "n"}, "/data")
    assert found == (f"{image / 'data'} n  a b", 3)
    assert output(image, [name]) == (f"{image}", 3)


def test_secrets_of_the_worker_are_not_handed_on(image: Path) -> None:
    (image / "bin" / "env").write_text("#!/bin/sh\nexec env\n")
    (image / "bin" / "env").chmod(0o755)
    found = output(image, ["bin/env"])[0].splitlines()
    assert not [line for line in found if "s3cret" in line]
    assert "LC_ALL=C" in found


@pytest.mark.parametrize(
    "name",
    [
        "/bin/sh", "bin/sh", "bin/up", "host/sh", "../outside", "bin/../../outside", sys.executable,
        "../image2/x", "plain", "data", "missing", "/", ".", "..",
    ],
)  # fmt: skip
def test_nothing_else_runs(image: Path, name: str) -> None:
    with pytest.raises(PermissionDenied):
        output(image, [name])


def test_a_sibling_with_the_same_beginning_is_outside(image: Path, tmp_path: Path) -> None:
    sibling = tmp_path / "image2"
    sibling.mkdir()
    with pytest.raises(PermissionDenied, match="leads out"):
        output(image, ["../image2"])


def test_the_image_itself_may_be_reached_by_a_link(image: Path, tmp_path: Path) -> None:
    (tmp_path / "by-link").symlink_to(image)
    assert output(tmp_path / "by-link", ["bin/hello"])[1] == 3


@pytest.mark.parametrize("cwd", ["..", "/..", "host", "../image2", "plain", "missing"])
def test_a_program_starts_in_the_image_only(image: Path, cwd: str) -> None:
    with pytest.raises(PermissionDenied):
        output(image, ["bin/hello"], {}, cwd)


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD", "LD_LIBRARY_PATH", "ld_audit", "DYLD_INSERT_LIBRARIES", "BASH_ENV", "ENV",
        "BASH_FUNC_ls%%", "PATH", "PYTHONPATH", "PYTHONSTARTUP", "PERL5OPT", "RUBYOPT", "IFS",
        "NODE_OPTIONS", "GCONV_PATH", "GLIBC_TUNABLES", "", "A=B",
    ],
)  # fmt: skip
def test_variables_that_bring_other_code_are_refused(image: Path, name: str) -> None:
    with pytest.raises(PermissionDenied, match="variable"):
        output(image, ["bin/hello"], {name: "x"})


@pytest.mark.parametrize("name", ["ENVIRONMENT", "NODE_ENV", "HOME", "A", "LANG"])
def test_other_variables_are_the_callers(image: Path, name: str) -> None:
    assert output(image, ["bin/hello"], {name: "x"})[1] == 3


@pytest.mark.parametrize(
    ("argv", "env", "cwd"),
    [
        ([], {}, ""), ([""], {}, ""), ("bin/hello", {}, ""), (("bin/hello",), {}, ""),
        ([b"bin/hello"], {}, ""), (["bin/hello", 1], {}, ""), (["bin/hello\0x"], {}, ""),
        (["bin/hello"], None, ""), (["bin/hello"], {"a": 1}, ""), (["bin/hello"], {1: "a"}, ""),
        (["bin/hello"], {"a": "\0"}, ""), (["bin/hello"], {}, None), (["bin/hello"], {}, "a\0"),
    ],
)  # fmt: skip
def test_what_is_no_program_is_said_to_be_none(image: Path, argv: Any, env: Any, cwd: Any) -> None:
    with pytest.raises(UsageError):
        programs.run(Where("native", str(image), "i"), argv, env, cwd)
