"""A worker takes on the environment it was bound to.

Owns: variables, working directory, import path and setup hook of this process, set once. Must
never: build or fetch anything: all of it lies on this machine when Bind comes.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any, Final

from guactors import values
from guactors.errors import RuntimeEnvSetupError
from guactors.messages import EnvPlace

_REFERENCE: Final = re.compile(r"\$\{(\w+)\}")
_TAIL: Final = 4096


class Setup:
    """What is left to do when the first call comes: the hook runs on the thread of the calls.
    ``place``: where this is, for messages."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._hook = ""
        self._failure = ""
        self.env: EnvPlace | None = None

    def take(self, env: EnvPlace) -> None:
        """Become a process of that environment, but for its hook."""
        self.env = env
        try:
            _set_variables(env.variables)
            if env.cwd:
                os.chdir(env.cwd)
        except (OSError, ValueError) as error:
            self._failure = f"{type(error).__name__}: {error}"
        # A Python that was started in this environment would have these.
        given = os.environ.get("PYTHONPATH", "") if "PYTHONPATH" in env.variables else ""
        path = [*env.path, *(one for one in given.split(os.pathsep) if one)]
        sys.path[:] = [*path, *(one for one in sys.path if one not in path)]
        if env.path:
            older = os.environ.get("PYTHONPATH")
            os.environ["PYTHONPATH"] = os.pathsep.join([*env.path, *([older] if older else [])])
        if path:
            importlib.invalidate_caches()
        self._hook = env.hook

    def check(self) -> None:
        """Run the hook if it has not run. Raises RuntimeEnvSetupError, for each call anew, when it
        failed."""
        if self._hook and not self._failure:
            hook, self._hook = self._hook, ""
            try:
                _load(hook)()
            except Exception as error:
                lines = traceback.format_exception(type(error), error, error.__traceback__)
                self._failure = f"its setup hook raised\n{''.join(lines)[-_TAIL:]}"
        if self._failure:
            raise RuntimeEnvSetupError(
                f"the runtime_env was not taken on {self._place}: {self._failure}"
            )


def _set_variables(variables: dict[str, str]) -> None:
    before = dict(os.environ)
    for name, value in variables.items():
        # As in Ray: ${NAME} stands for what the provider has.
        os.environ[name] = _REFERENCE.sub(lambda found: before.get(found[1], ""), value)


def _load(hook: str) -> Any:
    if os.path.isabs(hook):
        return values.unpack_code(Path(hook).read_bytes())
    module, _, name = hook.rpartition(".")
    return getattr(importlib.import_module(module), name)
