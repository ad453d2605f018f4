"""Which parts of environments are on this machine, which are being built, which are to go.

Owns: one build at a time for each part, what is known of those that are there, and what makes room.
Must never: decide who may have an environment (``gate`` asks ``permits``), or touch a file.

An environment is made of parts: the files of an archive, and the directory with what pip or uv
installed. A part is named by its content and by whose it is: two principals never work in the same
directory. Environments that differ in their variables only have the same parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import msgspec
from msgspec import Struct

from guactors.messages import EnvPlace, EnvWord
from guactors.provider_state.effects import BuildPart, Effect, Part, RemovePart
from guactors.runtime_env.description import PIP, UV, Description
from guactors.security.words import is_image_id

MOST_FAILURES = 1000
IDLE_LIMIT = 3600.0
"""Seconds that a part which nobody uses is kept."""
LINK_LOST = "link_lost"
"""The reason of a failure that says nothing of the part: it is built again."""
HOOK_FILE = "hook.pickle"
_RELATIVE = (".", "-r", "-c", "-e", "--", "file:")


class Built(Struct):
    """A part that is there. ``path``: its directory; ``size``: bytes; ``used_at``: monotonic."""

    path: str
    size: int
    used_at: float


class Failure(Struct, frozen=True):
    """``at``: monotonic seconds."""

    detail: str
    at: float


class Wanted(Struct, frozen=True):
    """An environment as an order wants it. ``files``: parts by archive; ``tool``: what is
    installed, None for nothing."""

    word: EnvWord
    description: Description
    files: dict[str, Part]
    tool: Part | None = None

    @property
    def parts(self) -> list[Part]:
        """All of them; what others are built in comes first."""
        return [*self.files.values(), *([self.tool] if self.tool is not None else [])]


def wanted(word: EnvWord, description: Description, principal: str) -> Wanted:
    """The parts of an environment of ``principal``."""
    archives = [description.working_dir, *description.py_modules]
    if is_image_id(description.hook):
        archives.append(description.hook)
    files = {
        image: Part(
            _key("files", principal, image), "files", image, timeout=description.setup_timeout
        )
        for image in archives
        if image
    }
    packages, tool = (description.pip, PIP) if description.pip else (description.uv, UV)
    if packages is None:
        return Wanted(word, description, files)
    base = ""
    if description.working_dir and any(_relative(line) for line in packages.packages):
        base = files[description.working_dir].key
    spec = msgspec.json.encode((tool, packages, description.py_executable, base)).decode()
    part = Part(
        _key("packages", principal, spec), tool, "", packages, description.py_executable, base,
        description.setup_timeout,
    )  # fmt: skip
    return Wanted(word, description, files, part)


def _relative(line: str) -> bool:
    """Whether a requirement may name something of the working directory."""
    return line.startswith(_RELATIVE) or "${" in line or "@ file:" in line or "/" in line


def _key(kind: str, principal: str, content: str) -> str:
    text = f"{kind}\0{principal}\0{content}"
    return hashlib.sha3_256(text.encode()).hexdigest()[:32]


class Envs:
    """Parts by key. ``most``: bytes that they may take while nobody uses them all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._built: dict[str, Built] = {}
        self._building: set[str] = set()
        self._failures: dict[str, Failure] = {}

    def consider(
        self, want: Wanted, since: float, now: float, *, fetch: bool
    ) -> Failure | list[Effect] | None:
        """None where all is there; why it cannot be, if that was found out at ``since`` or later;
        or what is to be done for it, nothing where that is under way. ``fetch``: whether files can
        be had from the hub."""
        effects: list[Effect] = []
        missing = False
        for part in want.parts:
            built = self._built.get(part.key)
            if built is not None:
                built.used_at = now
                continue
            missing = True
            failure = self._failures.get(part.key)
            if failure is not None and failure.at >= since:
                return failure
            early = part.base not in self._built if part.base else part.image and not fetch
            if part.key in self._building or early:
                continue
            self._building.add(part.key)
            effects.append(BuildPart(part, self._built[part.base].path if part.base else ""))
        return effects if missing else None

    def place(self, want: Wanted) -> tuple[EnvPlace, str]:
        """Where all of it is, and its interpreter, empty for the provider's own."""
        description = want.description
        paths = {image: self._built[part.key].path for image, part in want.files.items()}
        cwd = paths.get(description.working_dir, "")
        path = [*([cwd] if cwd else []), *(paths[image] for image in description.py_modules)]
        hook = description.hook
        if is_image_id(hook):
            hook = f"{paths[hook]}/{HOOK_FILE}"
        python = description.py_executable
        if want.tool is not None:
            python = interpreter(self._built[want.tool.key].path)
        return EnvPlace(want.word, description.env_vars, cwd, path, hook), python

    def on_built(self, key: str, path: str, size: int, now: float) -> None:
        """The part is in the directory ``path``."""
        self._building.discard(key)
        self._failures.pop(key, None)
        self._built[key] = Built(path, size, now)

    def on_failed(self, key: str, reason: str, detail: str, now: float) -> None:
        """It could not be built; ``reason`` LINK_LOST: for want of the hub, try again."""
        self._building.discard(key)
        if reason != LINK_LOST:
            self._failures.pop(key, None)
            self._failures[key] = Failure(detail, now)
            while len(self._failures) > MOST_FAILURES:
                del self._failures[next(iter(self._failures))]

    # --- room -----------------------------------------------------------------------------------

    def surplus(self, used: Collection[str], now: float) -> list[Effect]:
        """The parts to remove, none of those ``used``: unused for long, or the longest unused of
        too many."""
        total = sum(built.size for built in self._built.values())
        effects: list[Effect] = []
        for key, built in sorted(self._built.items(), key=lambda item: item[1].used_at):
            if key in used:
                built.used_at = now
                continue
            if total > self._most or now >= built.used_at + IDLE_LIMIT:
                total -= built.size
                del self._built[key]
                effects.append(RemovePart(key, built.path))
        return effects

    def crowded(self, now: float) -> bool:
        """Whether ``surplus`` may find something."""
        if not self._built:
            return False
        oldest = min(built.used_at for built in self._built.values())
        total = sum(built.size for built in self._built.values())
        return total > self._most or now >= oldest + IDLE_LIMIT

    def next_wake(self, _now: float) -> float | None:
        """When the oldest may go."""
        return min((built.used_at + IDLE_LIMIT for built in self._built.values()), default=None)


def interpreter(directory: str) -> str:
    """The Python of a virtual environment."""
    if "\\" in directory:
        return f"{directory}\\Scripts\\python.exe"
    return f"{directory}/bin/python"
