"""runtime_env on a real embedded grid: what a task or actor finds when it begins, what is built
how often, and what is said when it cannot be. Packages come from a directory, never from a net."""

from __future__ import annotations

import os
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import guactors as gu
from guactors import errors
from tests import leaks

pytestmark = [
    pytest.mark.usefixtures("grid"), pytest.mark.needs("fork"), pytest.mark.may_keep(*leaks.KINDS),
]  # fmt: skip
WITHIN = 40.0


def wheel(directory: Path, name: str, source: str) -> Path:
    """A wheel of one module, which pip installs without building anything."""
    path = directory / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr(f"{name}.py", source)
        out.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        out.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        out.writestr(f"{info}/RECORD", "")
    return path


def offline(directory: Path, *packages: str, **more: Any) -> dict[str, Any]:
    """A pip that looks nowhere else than in the directory."""
    words = ["--no-index", "--find-links", str(directory)]
    return {"packages": list(packages), "pip_install_options": words, **more}


@gu.remote
def variable(name: str) -> str | None:
    return os.environ.get(name)


@gu.remote
def run(what: Callable[..., Any], *arguments: Any) -> Any:
    return what(*arguments)


def get(ref: gu.ObjectRef) -> Any:
    return gu.get(ref, timeout=WITHIN)


# --- variables ------------------------------------------------------------------------------------


def test_variables_are_set_before_user_code_and_for_it_alone() -> None:
    given = {"env_vars": {"GT_COLOUR": "red", "GT_HOME": "${HOME}/x"}}
    assert get(variable.options(runtime_env=given).remote("GT_COLOUR")) == "red"
    home = get(variable.remote("HOME"))
    assert get(variable.options(runtime_env=given).remote("GT_HOME")) == f"{home}/x"
    assert get(variable.remote("GT_COLOUR")) is None
    other = {"env_vars": {"GT_COLOUR": "blue"}}
    assert get(variable.options(runtime_env=other).remote("GT_COLOUR")) == "blue"


def test_a_worker_of_one_environment_serves_no_other() -> None:
    @gu.remote
    def pid() -> int:
        return os.getpid()

    pids = {
        name: {get(pid.options(runtime_env={"env_vars": {"GT_N": name}}).remote()) for _ in "123"}
        for name in ("1", "2")
    }
    assert not pids["1"] & pids["2"]


def test_an_actor_and_its_decorator() -> None:
    @gu.remote(runtime_env={"env_vars": {"GT_COLOUR": "green"}})
    class Painter:
        def __init__(self) -> None:
            self.colour = os.environ["GT_COLOUR"]

        def see(self) -> str:
            return self.colour

    assert get(Painter.remote().see.remote()) == "green"
    other = Painter.options(runtime_env={"env_vars": {"GT_COLOUR": "grey"}}).remote()
    assert get(other.see.remote()) == "grey"


def test_children_inherit_and_add() -> None:
    @gu.remote
    def parent() -> list[str | None]:
        more = {"env_vars": {"GT_B": "child"}}
        child = variable.options(runtime_env=more)
        return gu.get(
            [variable.remote("GT_A"), variable.remote("GT_B"), child.remote("GT_A"),
             child.remote("GT_B")]
        )  # fmt: skip

    given = {"env_vars": {"GT_A": "parent", "GT_B": "parent"}}
    found = get(parent.options(runtime_env=given).remote())
    assert found == ["parent", "parent", "parent", "child"]


def test_pythonpath_counts_for_imports(tmp_path: Path) -> None:
    (tmp_path / "gt_by_path.py").write_text("X = 9")

    def look() -> int:
        import gt_by_path  # type: ignore[import-not-found]

        return int(gt_by_path.X)

    given = {"env_vars": {"PYTHONPATH": str(tmp_path)}}
    assert get(run.options(runtime_env=given).remote(look)) == 9


# --- files ----------------------------------------------------------------------------------------


def test_working_dir_is_where_it_runs_and_what_it_imports(tmp_path: Path) -> None:
    (tmp_path / "gt_project.py").write_text("from pathlib import Path\nX = Path('in.txt')\n")
    (tmp_path / "in.txt").write_text("hello")
    (tmp_path / "large.bin").write_bytes(b"x" * 1000)

    def look() -> tuple[str, list[str], str]:
        import gt_project

        return gt_project.X.read_text(), sorted(os.listdir()), os.getcwd()

    given = {"working_dir": str(tmp_path), "excludes": ["*.bin"]}
    text, names, where = get(run.options(runtime_env=given).remote(look))
    assert (text, [one for one in names if one != "__pycache__"]) == (
        "hello", ["gt_project.py", "in.txt"],
    )  # fmt: skip
    assert where != str(tmp_path)
    packed = tmp_path / "project.zip"
    with zipfile.ZipFile(packed, "w") as out:
        out.write(tmp_path / "gt_project.py", "gt_project.py")
        out.writestr("in.txt", "from the zip")
    assert get(run.options(runtime_env={"working_dir": str(packed)}).remote(look))[0] == (
        "from the zip"
    )


def test_py_modules_are_imported(tmp_path: Path) -> None:
    (tmp_path / "gt_package").mkdir()
    (tmp_path / "gt_package" / "__init__.py").write_text("X = 3")

    def look() -> int:
        import gt_package

        return int(gt_package.X)

    given = {"py_modules": [str(tmp_path / "gt_package")]}
    assert get(run.options(runtime_env=given).remote(look)) == 3
    with pytest.raises(errors.TaskError, match="gt_package"):
        get(run.remote(look))


def test_too_many_bytes_are_refused_at_the_call(tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(b"x" * 3000)
    given = {"working_dir": str(tmp_path), "config": {"max_bytes": 2000}}
    with pytest.raises(errors.UsageError, match=r"large\.bin"):
        variable.options(runtime_env=given).remote("A")


# --- packages -------------------------------------------------------------------------------------


def test_packages_are_installed_once_and_only_there(tmp_path: Path) -> None:
    wheel(tmp_path, "gt_once", "VALUE = 7\n")
    given = {"pip": offline(tmp_path, "gt_once", pip_check=False)}

    def look() -> tuple[int, str]:
        import gt_once

        return gt_once.VALUE, sys.prefix

    first, prefix = get(run.options(runtime_env=given).remote(look))
    began = time.monotonic()
    more = {**given, "env_vars": {"GT_X": "1"}}
    assert get(run.options(runtime_env=more).remote(look)) == (7, prefix)
    assert first == 7
    assert prefix != sys.prefix
    assert time.monotonic() - began < 10
    with pytest.raises(errors.TaskError, match="gt_once"):
        get(run.remote(look))

    @gu.remote(runtime_env=given)
    class Holder:
        def see(self) -> int:
            return look()[0]

    assert get(Holder.remote().see.remote()) == 7


def test_what_the_provider_has_is_there_too(tmp_path: Path) -> None:
    wheel(tmp_path, "gt_more", "VALUE = 1\n")

    def look() -> list[str]:
        import cloudpickle
        import gt_more
        import numpy as np

        import guactors

        return [one.__name__ for one in (gt_more, cloudpickle, np, guactors)]

    given = {"pip": offline(tmp_path, "gt_more")}
    found = get(run.options(runtime_env=given).remote(look))
    assert found == ["gt_more", "cloudpickle", "numpy", "guactors"]


def test_requirements_in_the_working_directory(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    wheel(project, "gt_local", "VALUE = 11\n")
    lines = tmp_path / "requirements.txt"
    lines.write_text("./gt_local-1.0-py3-none-any.whl\n")

    def look() -> int:
        import gt_local

        return int(gt_local.VALUE)

    given = {"working_dir": str(project), "pip": {"packages": str(lines),
             "pip_install_options": ["--no-index"]}}  # fmt: skip
    assert get(run.options(runtime_env=given).remote(look)) == 11


def test_another_interpreter(tmp_path: Path) -> None:
    given = {"py_executable": sys.executable}
    assert get(run.options(runtime_env=given).remote(lambda: sys.executable)) == sys.executable
    none = tmp_path / "none"
    none.write_text("#!/bin/sh\necho no python here >&2\nexit 3\n")
    none.chmod(0o755)
    for wrong in (tmp_path / "missing", none):
        began = time.monotonic()
        given = {"py_executable": str(wrong)}
        with pytest.raises(errors.RuntimeEnvSetupError, match=f"{wrong} runs no workers"):
            get(variable.options(runtime_env=given).remote("A"))
        assert time.monotonic() - began < 8


def test_a_failed_build_says_what_pip_said_to_all_who_wait(tmp_path: Path) -> None:
    given = {"pip": offline(tmp_path, "gt-nonesuch")}
    refs = [variable.options(runtime_env=given).remote("A") for _ in range(3)]

    @gu.remote(runtime_env=given)
    class Never:
        def see(self) -> None: ...

    refs.append(Never.remote().see.remote())
    for ref in refs:
        with pytest.raises(errors.RuntimeEnvSetupError, match=r"distribution.*nonesuch"):
            get(ref)
    # Whoever comes later has it tried anew.
    wheel(tmp_path, "gt_nonesuch", "")
    assert get(variable.options(runtime_env=given).remote("NONE")) is None


def slow_wheel(directory: Path, name: str) -> None:
    """A source package whose build waits for a file ``go`` to appear, and says when it began."""
    project = directory / name
    project.mkdir()
    (project / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    (project / "backend.py").write_text(
        "import os, time\n"
        "def build_wheel(*_args, **_more):\n"
        f"    open({str(directory / 'began')!r}, 'w').close()\n"
        f"    while not os.path.exists({str(directory / 'go')!r}): time.sleep(0.01)\n"
        "    raise RuntimeError('no wheel in the end')\n"
    )


def eventually(ask: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not ask():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_long_build_blocks_nobody_else(tmp_path: Path) -> None:
    slow_wheel(tmp_path, "gt_slow")
    words = ["--no-index", "--no-build-isolation"]
    given = {"pip": {"packages": [str(tmp_path / "gt_slow")], "pip_install_options": words}}
    # More of them than there are CPUs.
    slow = [variable.options(runtime_env=given).remote("A") for _ in range(4)]
    eventually((tmp_path / "began").exists)
    assert gu.get([variable.remote("NONE") for _ in range(20)], timeout=10) == [None] * 20
    assert gu.wait(slow, num_returns=1, timeout=0)[0] == []
    (tmp_path / "go").touch()
    for ref in slow:
        with pytest.raises(errors.RuntimeEnvSetupError, match="no wheel in the end"):
            get(ref)


def test_a_build_has_its_time(tmp_path: Path) -> None:
    slow_wheel(tmp_path, "gt_late")
    words = ["--no-index", "--no-build-isolation"]
    given = {
        "pip": {"packages": [str(tmp_path / "gt_late")], "pip_install_options": words},
        "config": {"setup_timeout_seconds": 1},
    }
    with pytest.raises(errors.RuntimeEnvSetupError, match="did not end within 1 s"):
        get(variable.options(runtime_env=given).remote("A"))


# --- hooks ----------------------------------------------------------------------------------------


def test_a_hook_runs_once_before_all_else(tmp_path: Path) -> None:
    log = str(tmp_path / "log")

    def hook() -> None:
        with open(log, "a") as out:
            out.write(f"{os.getpid()}\n")

    given = {"worker_process_setup_hook": hook}
    pids = {get(run.options(runtime_env=given).remote(os.getpid)) for _ in range(3)}
    told = Path(log).read_text().split()
    assert len(told) == len(set(told))
    assert {str(pid) for pid in pids} <= set(told)


def test_a_hook_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "gt_hooks.py").write_text("import os\ndef f(): os.environ['GT_HOOKED'] = '1'\n")
    given = {"worker_process_setup_hook": "gt_hooks.f", "working_dir": str(tmp_path)}
    assert get(variable.options(runtime_env=given).remote("GT_HOOKED")) == "1"


def test_a_hook_that_raises_is_the_error_of_the_calls() -> None:
    def hook() -> None:
        raise LookupError("nothing to hook")

    given = {"worker_process_setup_hook": hook}
    with pytest.raises(errors.RuntimeEnvSetupError, match="nothing to hook"):
        get(variable.options(runtime_env=given).remote("A"))

    @gu.remote(runtime_env=given)
    class Never:
        def see(self) -> None: ...

    with pytest.raises(errors.GuactorsError, match="nothing to hook"):
        get(Never.remote().see.remote())


# --- the session ----------------------------------------------------------------------------------


def test_a_session_gives_all_its_calls_one(tmp_path: Path, run_root: Path) -> None:
    """In a program of its own, which also shows that nothing is left behind."""
    import subprocess

    program = f"""
import os, guactors as gu
gu.init(num_cpus=1, runtime_env={{"env_vars": {{"GT_A": "all", "GT_B": "all"}},
                                 "working_dir": {str(tmp_path)!r}}})
@gu.remote
def f(): return os.environ["GT_A"], os.environ["GT_B"], os.path.exists("there.txt")
print(gu.get(f.remote()), gu.get(f.options(runtime_env={{"env_vars": {{"GT_B": "one"}}}}).remote()))
gu.shutdown()
try:
    gu.init(num_cpus=1, runtime_env={{"env_var": {{}}}})
except gu.exceptions.UnknownOption as error:
    print(error)
"""
    (tmp_path / "there.txt").write_text("")
    before = set(os.listdir(run_root))
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "('all', 'all', True) ('all', 'one', True)"
    assert "did you mean env_vars" in second
    assert set(os.listdir(run_root)) == before
