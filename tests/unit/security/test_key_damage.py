"""Key files that are not as they were written: every change is noticed, none shows a secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guactors.errors import UsageError
from guactors.security import key_files, passphrases
from guactors.security.key_files import (
    load_key,
    read_head,
    save_key,
)
from guactors.security.keys import Kind
from tests.unit.security.key_file_samples import (
    KEY,
    PASSPHRASE,
    leaks,
    never,
    told,
)
from tests.unit.security.samples import public, secret

pytestmark = pytest.mark.usefixtures("cheap_and_bare")


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def put(part: str, name: str, value: Any) -> Callable[[Any], None]:
    return lambda content: content[part].update({name: value})


DAMAGES: dict[str, Callable[[Any], None]] = {
    "kind": put("public", "kind", "hub"),
    "no kind": put("public", "kind", "king"),
    "name": put("public", "name", "bob"),
    "bad name": put("public", "name", "../bob"),
    "public key": put("public", "public", public(Kind.APP, 2).text),
    "cut public key": put("public", "public", KEY.public.text[:-1]),
    "secret as public key": put("public", "public", secret(Kind.APP).text),
    "transport public key": put("public", "transport_public", "0" * 40),
    "created": put("public", "created", 1),
    "created long ago": put("public", "created", 10**40),
    "no number": put("public", "created", "1"),
    "succession": put("public", "succession", [{}]),
    "unknown field": put("public", "color", "blue"),
    "missing field": lambda content: content["public"].pop("created"),
    "missing part": lambda content: content.pop("locked"),
    "unknown part": lambda content: content.update(color={}),
    "no secrets": lambda content: content.update(secrets=None, locked=None),
}
OPEN_DAMAGES: dict[str, Callable[[Any], None]] = {
    "secret key": put("secrets", "secret", secret(Kind.APP, 2).text),
    "cut secret key": put("secrets", "secret", secret(Kind.APP).text[:-1]),
    "secret of another kind": put("secrets", "secret", secret(Kind.HUB).text),
    "transport secret": put("secrets", "transport_secret", "0" * 40),
    "digest": put("secrets", "digest", "0" * 64),
    "digest of letters": put("secrets", "digest", "é" * 64),
    "secret is a number": put("secrets", "secret", 1),
    "unknown secret": put("secrets", "color", "blue"),
    "both parts": lambda content: content.update(
        locked=msgspec.to_builtins(passphrases.Lock("argon2id", 1, 8192, "", "", ""))
    ),
}
LOCK_DAMAGES: dict[str, Callable[[Any], None]] = {
    "box": put("locked", "box", "AAAA"),
    "empty box": put("locked", "box", ""),
    "no base64": put("locked", "box", "é!"),
    "salt": put("locked", "salt", "AAAAAAAAAAAAAAAAAAAAAA=="),
    "short salt": put("locked", "salt", "AAAA"),
    "nonce": put("locked", "nonce", "A" * 32),
    "short nonce": put("locked", "nonce", "AAAA"),
    "other cost": put("locked", "operations", 2),
    "absurd memory": put("locked", "memory", 2**40),
    "absurd time": put("locked", "operations", 2**31),
    "no cost": put("locked", "operations", 0),
    "other kdf": put("locked", "kdf", "md5"),
}


@pytest.mark.parametrize("change", (DAMAGES | OPEN_DAMAGES).values(), ids=DAMAGES | OPEN_DAMAGES)
def test_damage_is_noticed(path: Path, change: Callable[[Any], None]) -> None:
    save_key(path, KEY)
    edit(path, change)
    with pytest.raises(UsageError, match=r"alice\.key is damaged: restore it") as caught:
        load_key(path, ask=never)
    assert not leaks(told(caught.value))


@pytest.mark.parametrize("change", (DAMAGES | LOCK_DAMAGES).values(), ids=DAMAGES | LOCK_DAMAGES)
def test_damage_of_a_locked_file_is_noticed(path: Path, change: Callable[[Any], None]) -> None:
    save_key(path, KEY, PASSPHRASE)
    edit(path, change)
    with pytest.raises(UsageError, match="damaged") as caught:
        load_key(path, ask=lambda: PASSPHRASE)
    assert not leaks(told(caught.value))


def test_a_public_key_that_is_not_the_secret_keys_is_damage(path: Path) -> None:
    """Though the digest fits: the public key is what lists show and people grant rights to."""
    save_key(path, KEY)
    theirs = msgspec.structs.replace(read_head(path), public=public(Kind.APP, 2).text)
    digest = key_files._digest(theirs, KEY.secret.text, KEY.transport_secret)
    edit(path, put("public", "public", theirs.public))
    edit(path, put("secrets", "digest", digest))
    with pytest.raises(UsageError, match="damaged"):
        load_key(path)


@pytest.mark.parametrize(
    "inside", [b"", b"{}", b"\xff", json.dumps({"secret": PASSPHRASE}).encode()]
)
def test_a_lock_around_something_else_is_damage(path: Path, inside: bytes) -> None:
    save_key(path, KEY, PASSPHRASE)
    locked = msgspec.to_builtins(passphrases.lock(inside, PASSPHRASE))
    edit(path, lambda content: content.update(locked=locked))
    with pytest.raises(UsageError, match="damaged") as caught:
        load_key(path, ask=lambda: PASSPHRASE)
    assert not leaks(told(caught.value))


def test_every_cut_of_a_file_is_noticed_without_showing_it(path: Path) -> None:
    save_key(path, KEY)
    data = path.read_bytes().rstrip()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(UsageError, match=r"damaged|no key file") as caught:
            load_key(path)
        assert not leaks(told(caught.value))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "is no key file that this guactors knows"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----", "is no key file that this guactors knows"),
        (b'{"public":{"format":"guactors.key/2"}}', "perhaps a newer version made it"),
        (b'"guactors.key/1"', "is damaged"),
        (b'"guactors.key/1" \xff', "is damaged"),
        (b"[" * 100_000 + b'"guactors.key/1"', "is damaged"),
        (b"x" * 300_000, "more than 262144 bytes"),
    ],
)
def test_what_is_no_key_file_is_refused(path: Path, data: bytes, fault: str) -> None:
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(UsageError, match=fault):
        load_key(path)
