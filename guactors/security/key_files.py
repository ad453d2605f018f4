"""Key files: where the secret keys of this machine are kept.

Owns: the file format, its modes, passphrases, the directory of keys and the names in it. Must
never: write a secret that others may read at any moment, follow a link to one, overwrite a key
unasked, or show a secret in a repr, a message or a traceback.

A file is JSON: the public part, readable without a passphrase, then the secrets, either as they
are or behind a passphrase. A digest among the secrets binds the two parts together.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from guactors.errors import UsageError
from guactors.home import home, private_directory, write_private
from guactors.security import canonical
from guactors.security.keys import (
    KEY_BYTES,
    Kind,
    PublicKey,
    SecretKey,
    new_secret,
    parse_public,
    parse_secret,
)
from guactors.security.passphrases import Lock, lock, unlock
from guactors.security.signing import Envelope
from guactors.security.succession import name_successor

FORMAT: Final = "guactors.key/1"
SUFFIX: Final = ".key"
KEY_VARIABLE: Final = "GU_KEY"
PASSPHRASE_VARIABLE: Final = "GU_PASSPHRASE"  # noqa: S105 - the name of one

_LIMIT: Final = 262_144
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_Z85: Final = re.compile(r"[0-9A-Za-z.:+=^!/*?&<>()\[\]{}@%$#-]{40}", re.ASCII)

KeyPair = tuple[str, str]
"""Public and secret key, as ``transport.zmq_link.new_keypair`` makes them."""


class KeyFile(Struct, frozen=True):
    """A principal's two keys: ``secret`` signs, the transport pair (CURVE, z85 text) encrypts.

    ``created``: epoch seconds; ``succession``: the statements that lead from earlier keys here."""

    name: str
    secret: SecretKey
    transport_public: str
    transport_secret: str
    created: int
    succession: list[Envelope]

    @property
    def public(self) -> PublicKey:
        """Who it is."""
        return self.secret.public

    def __repr__(self) -> str:
        return f"KeyFile({self.name!r}, {self.public.text})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("name", self.name), ("public", self.public.text)]


class Listed(NamedTuple):
    """A key file as listed. ``public`` is empty for one that ``load_key`` would refuse unread: it
    says why."""

    path: Path
    kind: Kind
    name: str
    public: str
    encrypted: bool


class Head(Struct, frozen=True, forbid_unknown_fields=True):
    """The public part of a key file, readable without a passphrase."""

    format: Literal["guactors.key/1"]
    kind: Kind
    name: str
    public: str
    transport_public: str
    created: int
    succession: list[Envelope]


class _Secrets(Struct, frozen=True, forbid_unknown_fields=True):
    secret: str
    transport_secret: str
    digest: str

    def __repr__(self) -> str:
        return "_Secrets()"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """One of ``secrets`` and ``locked`` is there."""

    public: Head
    secrets: _Secrets | None
    locked: Lock | None


def new_key_file(
    kind: Kind,
    name: str,
    new_keypair: Callable[[], KeyPair],
    random: Callable[[int], bytes],
    now: int,
) -> KeyFile:
    """Fresh keys. ``random`` gives that many bytes fit for secrets, ``now`` is epoch seconds."""
    return KeyFile(
        _check_name(name), new_secret(kind, random(KEY_BYTES)), *new_keypair(), int(now), []
    )


def rotate_transport(key: KeyFile, new_keypair: Callable[[], KeyPair]) -> KeyFile:
    """The same principal with another transport pair; save it with ``replace``."""
    public, secret = new_keypair()
    return msgspec.structs.replace(key, transport_public=public, transport_secret=secret)


def succeed(old: KeyFile, new: SecretKey, now: int) -> KeyFile:
    """The same principal with another signing key: the statement that it follows, signed by both
    keys, is added. The transport pair stays."""
    statement = name_successor(old.secret, new, int(now))
    return msgspec.structs.replace(
        old, secret=new, created=int(now), succession=[*old.succession, statement]
    )


def keys_directory() -> Path:
    """Where keys are kept by name: ``keys`` in the home, mode 0700, made if it is missing."""
    return private_directory(home() / "keys")


def key_path(kind: Kind, name: str) -> Path:
    """The file of a named key, whether it is there or not."""
    return keys_directory() / f"{kind.value}-{_check_name(name)}{SUFFIX}"


def find_key(given: str | None, kind: Kind) -> Path | None:
    """The key file that ``given`` means: a path, or the name of a key of this ``kind``.

    Without it, for an app, what ``GU_KEY`` means; None when nothing is given. Raises UsageError
    when there is no such file."""
    source = ""
    if given is None and kind is Kind.APP:
        given, source = os.environ.get(KEY_VARIABLE), f" (from {KEY_VARIABLE})"
    if not given:
        return None
    path = Path(os.path.expanduser(given))
    if path.parent != Path() or given.startswith(".") or given.endswith(SUFFIX):
        if not os.path.lexists(path):
            raise UsageError(f"there is no key file {path}{source}")
        return path
    if _NAME.fullmatch(given) and os.path.lexists(named := key_path(kind, given)):
        return named
    if os.path.lexists(path):
        return path
    names = [entry.name for entry in list_keys() if entry.kind is kind]
    there = f"there are {', '.join(names)}" if names else "there are none of this kind"
    raise UsageError(
        f"no {kind.value} key is named {canonical.shown(given)!r}{source} in {keys_directory()}: "
        f"{there}; a path to a key file will do as well"
    )


def list_keys() -> list[Listed]:
    """The keys of the directory, by kind and name; no passphrase is needed."""
    found = []
    for path in sorted(keys_directory().glob(f"*{SUFFIX}")):
        kind_text, _, name = path.name.removesuffix(SUFFIX).partition("-")
        kind = next((kind for kind in Kind if kind.value == kind_text), None)
        if kind is None or not _NAME.fullmatch(name):
            continue
        try:
            file = _read_file(path)
        except UsageError:
            found.append(Listed(path, kind, name, "", False))
        else:
            head = file.public
            found.append(Listed(path, head.kind, head.name, head.public, file.locked is not None))
    return found


def read_head(path: Path) -> Head:
    """The public part of a key file. Raises UsageError as ``load_key`` does."""
    return _read_file(path).public


def save_key(
    path: Path, key: KeyFile, passphrase: str | None = None, *, replace: bool = False
) -> None:
    """Write a key file, mode 0600, whole or not at all; locked if there is a passphrase. Its
    directory is made, mode 0700, if it is missing. Raises UsageError if the file is there."""
    data = _encode(key, passphrase)
    if not path.parent.exists():
        private_directory(path.parent)
    if replace:
        write_private(path, data)
        return
    try:
        # An empty file of ours first: what replaces it cannot replace somebody else's.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise UsageError(
            f"{path} is there already: a key is not overwritten, for it could never be had again; "
            "choose another name, or move the file away"
        ) from None
    try:
        write_private(path, data)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def load_key(path: Path, kind: Kind | None = None, ask: Callable[[], str] | None = None) -> KeyFile:
    """Read a key file. ``ask`` gives the passphrase and is called only if the file is locked;
    without it, ``GU_PASSPHRASE`` holds it.

    Raises UsageError when the file is missing, damaged, a link, readable by others, of another
    kind than ``kind``, or locked with another passphrase."""
    file = _read_file(path)
    head, secrets = file.public, file.secrets
    if kind is not None and head.kind is not kind:
        raise UsageError(
            f"{path} holds the {head.kind.value} key {head.name!r}, but a key of kind "
            f"{kind.value} is needed"
        )
    if file.locked is not None:
        secrets = _unlock(path, file.locked, _ask(path, ask))
    key = None if secrets is None else _join(head, secrets)
    if key is None:
        raise _damaged(path)
    return key


def _join(head: Head, secrets: _Secrets) -> KeyFile | None:
    """The key that both parts make; None where they do not belong together."""
    try:
        if secrets.digest != _digest(head, secrets.secret, secrets.transport_secret):
            return None
        secret = parse_secret(secrets.secret, head.kind)
    except UsageError:
        return None
    if secret.public.text != head.public:
        return None
    return KeyFile(
        head.name, secret, head.transport_public, secrets.transport_secret, head.created,
        head.succession,
    )  # fmt: skip


def _encode(key: KeyFile, passphrase: str | None) -> bytes:
    for text in (key.transport_public, key.transport_secret):
        if not _Z85.fullmatch(text):
            raise UsageError("a transport key is a z85 text of 40 characters")
    head = Head(
        FORMAT, key.secret.kind, _check_name(key.name), key.public.text, key.transport_public,
        key.created, key.succession,
    )  # fmt: skip
    secret = key.secret.text
    secrets = _Secrets(secret, key.transport_secret, _digest(head, secret, key.transport_secret))
    file = _File(head, secrets, None)
    if passphrase is not None:
        file = _File(head, None, lock(canonical.encode(secrets), passphrase))
    return msgspec.json.format(canonical.encode(file)) + b"\n"


def _digest(head: Head, secret: str, transport_secret: str) -> str:
    whole = {
        "public": msgspec.to_builtins(head),
        "secret": secret,
        "transport_secret": transport_secret,
    }
    return hashlib.sha3_256(canonical.encode(whole)).hexdigest()


def _read_file(path: Path) -> _File:
    data = _read_private(path)
    if f'"{FORMAT}"'.encode() not in data:
        raise UsageError(
            f"{path} is no key file that this guactors knows: a {FORMAT} is needed, perhaps a "
            "newer version made it"
        )
    try:
        file = msgspec.json.decode(data, type=_File)
        named = _NAME.fullmatch(file.public.name)
        parse_public(file.public.public, file.public.kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, UsageError):
        # Not chained: the cause may quote what it read, and that may be a secret.
        raise _damaged(path) from None
    if not named or (file.secrets is None) == (file.locked is None):
        raise _damaged(path)
    return file


def _damaged(path: Path) -> UsageError:
    return UsageError(f"the key file {path} is damaged: restore it from a copy")


def _read_private(path: Path) -> bytes:
    """The content of a file that is no link, ours, and closed to others."""
    no_follow = getattr(os, "O_NOFOLLOW", 0)
    link = UsageError(f"{path} is a link: give the path of the key file itself")
    if not no_follow and path.is_symlink():
        raise link
    # Not blocking: opening a named pipe would wait for ever for somebody to write.
    flags = os.O_RDONLY | no_follow | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(path, flags)
        try:
            _check_access(path, os.fstat(fd))
            with open(fd, "rb", closefd=False) as file:
                data = file.read(_LIMIT + 1)
        finally:
            os.close(fd)
    except OSError as error:
        if no_follow and error.errno in {errno.ELOOP, errno.EMLINK}:
            raise link from None
        raise UsageError(f"the key file {path} cannot be read: {error.strerror}") from None
    if len(data) > _LIMIT:
        raise UsageError(f"{path} is no key file: it has more than {_LIMIT} bytes")
    return data


def _check_access(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is no key file, for it is no regular file")
    if sys.platform == "win32":
        return
    if found.st_uid != os.getuid():
        raise UsageError(f"the key file {path} belongs to another user: use a key of your own")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise UsageError(
            f"the key file {path} may be read by others (mode {mode:o}): whoever could has the "
            f"key; make a new one, or run chmod 600 {path} if nobody did"
        )


def _unlock(path: Path, locked: Lock, passphrase: str) -> _Secrets | None:
    """The secrets, None where they are damaged. Raises UsageError for a wrong passphrase."""
    opened = unlock(locked, passphrase)
    if opened is None:
        raise UsageError(f"the passphrase of {path} is wrong (or the file is damaged): try again")
    try:
        return msgspec.json.decode(opened, type=_Secrets)
    except (msgspec.MsgspecError, UnicodeError):
        return None


def _ask(path: Path, ask: Callable[[], str] | None) -> str:
    if ask is not None:
        return ask()
    passphrase = os.environ.get(PASSPHRASE_VARIABLE)
    if not passphrase:
        raise UsageError(
            f"the key file {path} is locked: set {PASSPHRASE_VARIABLE} to its passphrase, or run "
            "the command where it can ask for it"
        )
    return passphrase


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{canonical.shown(name)!r} is no name for a key: 1 to 64 letters, digits, dots, "
            "dashes or underscores do, the first a letter or digit"
        )
    return name
