"""The runtime_env of a session's calls: what the user gave, made into what travels.

Owns: which directories were sent already in this session, and the environment that a session's
calls inherit. Must never: read a directory twice in one session, or send what the hub has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from guactors import values
from guactors.errors import MailboxFull, UsageError
from guactors.messages import Done, EnvWord, OfferImage, PutChunk, SealImage, Shape, WantChunks
from guactors.runtime_env import description as envs
from guactors.runtime_env import options
from guactors.security.code_signing import signatures_for

if TYPE_CHECKING:
    from guactors.runtime_env.packing import Archive
    from guactors.session import Session

HUB_WITHIN: Final = 600.0
"""Seconds for one answer of the hub, whose disk may be slow."""
PURPOSE: Final = "environment"


class Environments:
    """Of one session. ``base``: what its calls inherit, None for nothing."""

    def __init__(self, session: Session, base: envs.Description | None = None) -> None:
        self._session = session
        self.base = base
        self._sent: dict[object, str] = {}

    def adopt(self, word: EnvWord) -> None:
        """This process runs in that environment; its calls inherit it, signatures and all."""
        self.base = envs.decode(word.description)
        if word.signatures:
            from guactors.security.code import Purpose
            from guactors.security.code_signing import remember

            remember(Purpose.ENVIRONMENT, word.description, word.signatures)

    def inherit(self, given: Mapping[str, Any] | None) -> None:
        """From here on every call has ``given``, unless it says otherwise."""
        if given:
            self.base = self.merged(given)

    def shape(self, shape: Shape, given: Mapping[str, Any] | None) -> Shape:
        """``shape`` with the environment that ``given`` makes on top of the inherited one. Raises
        UsageError for what cannot be sent, and whatever the hub refuses it with."""
        if self.base is None and not given:
            return shape
        if shape.runtime == "native":
            if given:
                raise UsageError(
                    "runtime_env is for Python; a program of an image gets its variables with env="
                )
            return shape
        found = self.merged(given)
        if found == envs.NOTHING:
            return shape
        data = envs.encode(found)
        signatures = signatures_for(self._session, self._session.code_signers, PURPOSE, data)
        return msgspec.structs.replace(shape, env=EnvWord(data, signatures))

    def merged(self, given: Mapping[str, Any] | None) -> envs.Description:
        """What calls with ``given`` run in; its files are at the hub when this returns."""
        return envs.merge(self.base, self._fields(given) if given else {})

    def _fields(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Of a Description, those that are given; None takes away what is inherited."""
        from guactors.runtime_env import packing

        most, excludes = options.most_bytes(given), list(given.get("excludes") or ())
        fields: dict[str, Any] = {}
        for key, value in given.items():
            match key:
                case "env_vars":
                    fields[key] = dict(value or {})
                case "working_dir":
                    fields[key] = self._send(key, value, excludes, most) if value else ""
                case "py_modules":
                    sent = [self._send(key, one, excludes, most) for one in value or ()]
                    fields[key] = sent
                case "pip" | "uv":
                    lines_of = packing.lines_of
                    fields[key] = options.packages_of(key, value, lines_of) if value else None
                case "py_executable":
                    fields[key] = value or ""
                case "worker_process_setup_hook":
                    fields["hook"] = self._hook(value) if value else ""
                case "config":
                    fields["setup_timeout"] = options.timeout_of(given)
        return fields

    def _hook(self, hook: Any) -> str:
        if isinstance(hook, str):
            return hook
        from guactors.runtime_env import packing

        name = getattr(hook, "__qualname__", "the setup hook")
        blob, captured = values.pack_code(hook, name)
        if captured:
            raise UsageError(f"{name}: a setup hook cannot use references to objects")
        return self._sent_as(("hook", blob), lambda: packing.pack_file(packing.HOOK_FILE, blob))

    def _send(
        self, kind: str, given: str | os.PathLike[str] | ModuleType, excludes: list[str], most: int
    ) -> str:
        """The id of the archive, which the hub has from here on."""
        from guactors.runtime_env import packing

        where = packing.key_of(given)
        key = (kind, where, tuple(excludes), most)
        if kind == "working_dir":
            return self._sent_as(key, lambda: packing.pack_directory(str(where), excludes, most))
        return self._sent_as(key, lambda: packing.pack_module(where, excludes, most))

    def _sent_as(self, key: object, pack: Any) -> str:
        known = self._sent.get(key)
        if known is None:
            archive = pack()
            self._upload(archive)
            known = self._sent[key] = archive.id
        return known

    def _upload(self, archive: Archive) -> None:
        ask = self._session.ask
        offered = ask(lambda n: OfferImage(n, archive.manifest), timeout=HUB_WITHIN)
        if isinstance(offered, Done):
            return
        if not isinstance(offered, WantChunks):
            raise MailboxFull(f"the hub does not take files now: {offered!r}")
        for index in offered.missing[0].chunks if offered.missing else ():
            chunk = archive.chunks[index]
            put = _put(archive, index, chunk)
            ask(put, timeout=HUB_WITHIN)
        ask(lambda n: SealImage(n, archive.id), timeout=HUB_WITHIN)


def _put(archive: Archive, index: int, chunk: bytes) -> Any:
    return lambda n: PutChunk(n, archive.id, archive.blob, index, chunk)
