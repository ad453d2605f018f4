"""What a runtime_env is once it travels: one canonical JSON document.

Owns: its form, its limits, its id, and how a nested one is made of its parent's. Pure. Must never:
hold a path of the caller's machine: files are named by the ids of the archives that hold them.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from guactors.errors import UsageError
from guactors.security import canonical
from guactors.security.words import is_image_id

LIMIT: Final = 65_536
"""Bytes of a description: it stands in every order."""
MOST_WORDS: Final = 1000
"""Variables, packages, options, modules."""
SETUP_TIMEOUT: Final = 600
"""Seconds that a build may take, unless it is said."""
ARCHIVE: Final = "runtime-env"
"""The name, as an image, of every archive of files: hub and providers know it by that."""
PIP: Final = "pip"
UV: Final = "uv"

_WHAT: Final = "the runtime_env"
_HOOK: Final = re.compile(r"[A-Za-z_][\w]*(\.[A-Za-z_][\w]*)+")


class Packages(Struct, frozen=True, forbid_unknown_fields=True):
    """What pip or uv installs. ``packages``: lines of a requirements file; ``options``: words of
    the command line; ``check``: verify afterwards that all fits together; ``version``: of the tool
    itself, such as ``==24.0``, empty for the one there is."""

    packages: list[str] = []
    options: list[str] = []
    check: bool = False
    version: str = ""


class Description(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``working_dir``, ``py_modules``: ids of archives. ``hook``: ``module.function``, or the id of
    an archive with one pickled function in it. ``setup_timeout``: seconds."""

    env_vars: dict[str, str] = {}
    working_dir: str = ""
    py_modules: list[str] = []
    pip: Packages | None = None
    uv: Packages | None = None
    py_executable: str = ""
    hook: str = ""
    setup_timeout: int = SETUP_TIMEOUT


NOTHING: Final = Description()


def only_variables(description: Description) -> Description:
    """What of it does not depend on where Python is."""
    return Description(env_vars=description.env_vars, setup_timeout=description.setup_timeout)


def encode(description: Description) -> bytes:
    """The canonical bytes. Raises UsageError for what no provider would read."""
    data = canonical.encode(description)
    if len(data) > LIMIT:
        raise UsageError(
            f"{_WHAT} is too large: {len(data)} bytes of variables and packages, at most {LIMIT}; "
            "put what is large into working_dir"
        )
    decode(data)
    return data


def decode(data: bytes) -> Description:
    """What ``encode`` made. Raises UsageError for anything else."""
    found = canonical.decode(data, Description, what=_WHAT, limit=LIMIT)
    _check(found)
    return found


def env_id(data: bytes) -> str:
    """The name of a description: equal for equal ones."""
    return f"sha3-256:{hashlib.sha3_256(data).hexdigest()}"


def merge(parent: Description | None, given: dict[str, Any]) -> Description:
    """``given``, some fields of a Description, on top of its parent's: variables are merged, all
    else that is given replaces. pip and uv replace each other."""
    base = parent or NOTHING
    fields = dict(given)
    if "env_vars" in fields:
        fields["env_vars"] = {**base.env_vars, **fields["env_vars"]}
    if fields.get("pip") is not None:
        fields.setdefault("uv", None)
    elif fields.get("uv") is not None:
        fields.setdefault("pip", None)
    return msgspec.structs.replace(base, **fields)


def _check(found: Description) -> None:
    texts = [*found.env_vars, *found.env_vars.values(), found.py_executable]
    for tool in (found.pip, found.uv):
        if tool is not None:
            texts += [*tool.packages, *tool.options, tool.version]
    if len(texts) > 2 * MOST_WORDS or len(found.py_modules) > MOST_WORDS:
        raise UsageError(f"{_WHAT} has more than {MOST_WORDS} entries")
    for text in texts:
        if "\0" in text:
            raise UsageError(f"{_WHAT} has a zero byte in {canonical.shown(text)!r}")
    for tool in (found.pip, found.uv):
        if tool is not None:
            _check_packages(tool)
    if found.pip is not None and found.uv is not None:
        raise UsageError(f"{_WHAT} has both pip and uv: choose one")
    for name in found.env_vars:
        if not name or "=" in name:
            raise UsageError(f"{_WHAT}: {canonical.shown(name)!r} cannot be a variable")
    for image in (*found.py_modules, *([found.working_dir] if found.working_dir else [])):
        if not is_image_id(image):
            raise UsageError(f"{_WHAT}: {canonical.shown(image)!r} is no id of an archive")
    if found.hook and not is_image_id(found.hook) and not _HOOK.fullmatch(found.hook):
        raise UsageError(f"{_WHAT}: the hook {canonical.shown(found.hook)!r} is no module.function")
    if not 1 <= found.setup_timeout <= 86_400:
        raise UsageError(f"{_WHAT}: setup_timeout_seconds is not between 1 and 86400")


def _check_packages(tool: Packages) -> None:
    for text in (*tool.packages, *tool.options, tool.version):
        if not text.isprintable():
            raise UsageError(f"{_WHAT}: {canonical.shown(text)!r} is no line of requirements")
