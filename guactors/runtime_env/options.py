"""How a user says a runtime_env: Ray's keys, checked before anything is read or sent.

Owns: the keys, what each may be, and what to use instead of those there are not. Pure. Must never:
open a file (``packing`` does).
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from guactors.errors import UnknownOption
from guactors.runtime_env.description import PIP, SETUP_TIMEOUT, UV, Packages

MOST_BYTES: Final = 100 << 20
"""Bytes of the files of one directory, unless ``config={"max_bytes": ...}`` says otherwise."""

_INSTEAD: Final = {
    "conda": "use pip= or uv=, or py_executable= for an interpreter that conda made",
    "container": "use the option image= (gu image --help)",
    "image_uri": "use the option image= (gu image --help)",
}
_PIP_KEYS: Final = {
    "packages": "packages", "pip_check": "check", "pip_version": "version",
    "pip_install_options": "options",
}  # fmt: skip
_UV_KEYS: Final = {
    "packages": "packages", "uv_check": "check", "uv_version": "version",
    "uv_pip_install_options": "options",
}  # fmt: skip
_CONFIG: Final = ("setup_timeout_seconds", "max_bytes", "eager_install", "log_files")


def check_runtime_env(value: Any) -> bool:
    """Whether it is a runtime_env, or None. Raises UnknownOption that names the key."""
    if value is None:
        return True
    if not isinstance(value, Mapping):
        return False
    for key, part in value.items():
        known = _KEYS.get(key)
        if known is None:
            raise UnknownOption(_unknown(str(key)))
        if part is not None and not known[0](part):
            raise UnknownOption(
                f"runtime_env[{key!r}]={part!r:.200} is impossible: it takes {known[1]}"
            )
    if value.get(PIP) and value.get(UV):
        raise UnknownOption("runtime_env has both pip and uv: choose one")
    if value.get("excludes") and not value.get("working_dir") and not value.get("py_modules"):
        raise UnknownOption("runtime_env: excludes= needs a working_dir or py_modules")
    return True


def check_given(value: Any) -> None:
    """Raises UnknownOption for what is no runtime_env, and not None either."""
    if not check_runtime_env(value):
        raise UnknownOption(f"runtime_env is a dict, not {type(value).__name__}")


def _unknown(key: str) -> str:
    if key in _INSTEAD:
        return f"runtime_env has no {key!r} here: {_INSTEAD[key]}"
    near = difflib.get_close_matches(key, _KEYS, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(_KEYS))}"
    return f"{key!r} is no part of a runtime_env; {hint}"


def packages_of(tool: str, value: Any, lines_of: Callable[[str], list[str]]) -> Packages:
    """What ``pip`` or ``uv`` is given as: a list, a dict, or the path of a requirements file, which
    ``lines_of`` reads."""
    if isinstance(value, Mapping):
        keys = _PIP_KEYS if tool == PIP else _UV_KEYS
        fields = {keys[key]: part for key, part in value.items() if part is not None}
        packages = fields.get("packages", [])
        if isinstance(packages, str):
            fields["packages"] = lines_of(packages)
        return Packages(**{name: _listed(part) for name, part in fields.items()})
    return Packages(lines_of(value) if isinstance(value, str) else [str(one) for one in value])


def _listed(part: Any) -> Any:
    return [str(one) for one in part] if isinstance(part, list | tuple) else part


def timeout_of(value: Mapping[str, Any]) -> int:
    """Seconds that a build may take; Ray's -1 is a day."""
    seconds = (value.get("config") or {}).get("setup_timeout_seconds", SETUP_TIMEOUT)
    return 86_400 if seconds == -1 else int(seconds)


def most_bytes(value: Mapping[str, Any]) -> int:
    """Bytes that a directory may have."""
    return int((value.get("config") or {}).get("max_bytes", MOST_BYTES))


# --- what each key may be -------------------------------------------------------------------------


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) and one for one in value)


def _variables(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and k and isinstance(v, str) for k, v in value.items()
    )


def _path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and bool(os.fspath(value))


def _modules(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        _path(one) or isinstance(one, ModuleType) for one in value
    )


_PARTS: Final[dict[str, Callable[[Any], bool]]] = {
    "packages": lambda value: _texts(value) or isinstance(value, str),
    "options": _texts,
    "check": lambda value: isinstance(value, bool),
    "version": lambda value: isinstance(value, str),
}


def _packages(keys: Mapping[str, str]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        if not isinstance(value, Mapping):
            return _texts(value) or (isinstance(value, str) and bool(value))
        for key, part in value.items():
            if key not in keys:
                near = difflib.get_close_matches(str(key), keys, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(keys)}"
                raise UnknownOption(f"{key!r} is no part of a runtime_env's pip or uv; {hint}")
            if part is not None and not _PARTS[keys[key]](part):
                raise UnknownOption(f"runtime_env: {key}={part!r:.200} is impossible")
        return "packages" in value

    return check


def _config(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    for key in value:
        if key not in _CONFIG:
            near = difflib.get_close_matches(str(key), _CONFIG, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_CONFIG)}"
            raise UnknownOption(f"{key!r} is no part of a runtime_env's config; {hint}")
    seconds, most = value.get("setup_timeout_seconds", 1), value.get("max_bytes", 1)
    whole = [isinstance(one, int) and not isinstance(one, bool) for one in (seconds, most)]
    if value.get("eager_install") or value.get("log_files"):
        raise UnknownOption(
            "runtime_env: config has no eager_install and no log_files here: an environment is "
            "built at its first use, and what the tool said stands in the error"
        )
    return all(whole) and (seconds == -1 or 1 <= seconds <= 86_400) and most >= 1


_KEYS: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "env_vars": (_variables, "a dict of texts"),
    "working_dir": (_path, "the path of a directory or of a zip"),
    "excludes": (_texts, "a list of patterns, such as ['data/', '*.bin']"),
    "py_modules": (_modules, "a list of modules, or paths of packages, files or wheels"),
    "pip": (_packages(_PIP_KEYS), "a list, the path of a requirements file, or a dict"),
    "uv": (_packages(_UV_KEYS), "a list, the path of a requirements file, or a dict"),
    "py_executable": (lambda v: isinstance(v, str) and bool(v), "the path of a Python"),
    "worker_process_setup_hook": (
        lambda v: callable(v) or (isinstance(v, str) and "." in v),
        "a function, or 'module.function'",
    ),
    "config": (_config, "a dict with setup_timeout_seconds (1 to 86400, -1) and max_bytes"),
}
