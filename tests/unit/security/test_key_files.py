"""Key files: made private, opened only when they are, and silent about what they hold."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guactors.errors import UsageError
from guactors.security import passphrases
from guactors.security.key_files import (
    KeyFile,
    load_key,
    new_key_file,
    read_head,
    rotate_transport,
    save_key,
    succeed,
)
from guactors.security.keys import Kind
from guactors.security.succession import follow
from tests.unit.security.key_file_samples import (
    KEY,
    NEW_KEYPAIR,
    PASSPHRASE,
    leaks,
    make,
    mode,
    never,
    posix,
    told,
)
from tests.unit.security.samples import public, secret, seed

pytestmark = pytest.mark.usefixtures("cheap_and_bare")


@pytest.mark.parametrize("kind", Kind)
def test_a_key_survives_its_file(path: Path, kind: Kind) -> None:
    key = make(kind)
    save_key(path, key)
    assert load_key(path, kind, never) == load_key(path) == key
    assert key.public == public(kind)


def test_new_keys_take_what_they_are_given() -> None:
    sizes: list[int] = []

    def random(size: int) -> bytes:
        sizes.append(size)
        return seed(Kind.HUB)

    key = new_key_file(Kind.HUB, "home", lambda: ("p" * 40, "s" * 40), random, 12)
    assert sizes == [32]
    assert key == KeyFile("home", secret(Kind.HUB), "p" * 40, "s" * 40, 12, [])


def test_real_transport_keys_fit(path: Path) -> None:
    from guactors.transport.zmq_link import derive_public, new_keypair

    for number in range(20):
        key = new_key_file(Kind.APP, f"app{number}", new_keypair, os.urandom, 1)
        save_key(path, key, replace=True)
        assert load_key(path) == key
        assert derive_public(key.transport_secret) == key.transport_public


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        tmp_path.chmod(0o755)
        save_key(tmp_path / "a.key", KEY)
        save_key(tmp_path / "deep" / "b.key", KEY, PASSPHRASE)
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.key") == 0o600
    assert mode(tmp_path) == 0o755, "a directory that is there is not ours to change"
    assert mode(tmp_path / "deep") == 0o700
    assert mode(tmp_path / "deep" / "b.key") == 0o600


@posix
def test_no_file_is_ever_open_to_others(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file in the directory, each time the file system is asked for something."""
    modes: list[int] = []

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            modes.extend(mode(found) for found in path.parent.iterdir() if found.is_file())
            return real(*args, **options)

        return call

    for name in ("open", "close", "replace", "fdopen"):
        monkeypatch.setattr(os, name, watched(name))
    before = os.umask(0)
    try:
        save_key(path, KEY)
        save_key(path, KEY, replace=True)
    finally:
        os.umask(before)
    assert modes
    assert set(modes) == {0o600}


@posix
@pytest.mark.parametrize("loose", [0o640, 0o604, 0o660, 0o620, 0o601, 0o777])
def test_files_open_to_others_are_refused(path: Path, loose: int) -> None:
    save_key(path, KEY)
    path.chmod(loose)
    with pytest.raises(UsageError, match=f"may be read by others .mode {loose:o}.*chmod 600"):
        load_key(path)
    path.chmod(0o600)
    assert load_key(path) == KEY


@posix
def test_a_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_key(path, KEY)
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(UsageError, match="belongs to another user"):
        load_key(path)


@posix
@pytest.mark.parametrize("no_follow", [True, False], ids=["O_NOFOLLOW", "without"])
def test_a_link_is_not_followed(
    path: Path, no_follow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_key(path, KEY)
    link = path.with_name("link.key")
    link.symlink_to(path)
    if no_follow:  # whoever looks first and opens then can be fooled in between
        monkeypatch.setattr(Path, "is_symlink", lambda _: False)
    else:
        monkeypatch.delattr(os, "O_NOFOLLOW")
    with pytest.raises(UsageError, match=r"link\.key is a link: give the path of the key file"):
        load_key(link)
    with pytest.raises(UsageError, match="is there already"):
        save_key(link, make(number=2))
    monkeypatch.undo()
    save_key(link, make(number=2), replace=True)
    assert load_key(path) == KEY, "the link is replaced, not what it leads to"
    assert not link.is_symlink()


@posix
def test_a_link_that_leads_nowhere_is_not_written_through(path: Path) -> None:
    link = path.with_name("link.key")
    link.symlink_to(path)
    with pytest.raises(UsageError, match="is there already"):
        save_key(link, KEY)
    assert not path.exists()


@posix
@pytest.mark.parametrize("make_it", [lambda at: at.mkdir(0o700), lambda at: os.mkfifo(at, 0o600)])
def test_what_is_no_file_is_refused_at_once(path: Path, make_it: Callable[[Path], None]) -> None:
    make_it(path)
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    with pytest.raises(UsageError, match="no regular file"):
        load_key(path)
    if before:
        assert set(os.listdir("/proc/self/fd")) == before


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(UsageError, match=r"alice\.key cannot be read: No such file"):
        load_key(path)


def test_a_key_is_not_overwritten_unasked(path: Path) -> None:
    save_key(path, KEY)
    with pytest.raises(UsageError, match="is there already: a key is not overwritten"):
        save_key(path, make(number=2))
    assert load_key(path) == KEY
    save_key(path, make(number=2), replace=True)
    assert load_key(path).public == public(Kind.APP, 2)
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_key(path, KEY)
    assert list(path.parent.iterdir()) == []
    monkeypatch.undo()
    save_key(path, KEY)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save_key(path, make(number=2), replace=True)
    assert load_key(path) == KEY
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_another_kind_is_told_by_name_before_a_passphrase_is_asked(path: Path) -> None:
    save_key(path, make(Kind.PROVIDER, "rack-1"), PASSPHRASE)
    with pytest.raises(
        UsageError, match="holds the provider key 'rack-1', but a key of kind app is needed"
    ):
        load_key(path, Kind.APP, never)


@pytest.mark.parametrize("passphrase", [PASSPHRASE, "p", "né\u0142\U0001f511", "x" * 5000, " "])
def test_a_passphrase_locks_and_opens(path: Path, passphrase: str) -> None:
    save_key(path, KEY, passphrase)
    assert load_key(path, Kind.APP, lambda: passphrase) == KEY
    assert not leaks(path.read_text())
    head = read_head(path)
    assert (head.public, head.transport_public) == (KEY.public.text, KEY.transport_public)
    for wrong in ("", passphrase + "x", passphrase.swapcase() + "?"):
        with pytest.raises(UsageError, match=r"the passphrase of .* is wrong"):
            load_key(path, ask=lambda wrong=wrong: wrong)  # type: ignore[misc]


def test_one_letter_typed_in_two_ways_is_one_letter(path: Path) -> None:
    save_key(path, KEY, "caf\u00e9")
    assert load_key(path, ask=lambda: "cafe\u0301") == KEY


def test_a_passphrase_of_no_encoding_still_works(path: Path) -> None:
    """As the environment hands over what is not UTF-8."""
    save_key(path, KEY, "caf\udce9")
    assert load_key(path, ask=lambda: "caf\udce9") == KEY


def test_an_empty_passphrase_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="an empty passphrase locks nothing"):
        save_key(path, KEY, "")
    assert not path.exists()


def test_two_locks_of_one_key_differ(tmp_path: Path) -> None:
    locks = []
    for name in ("a", "b"):
        save_key(tmp_path / name, KEY, PASSPHRASE)
        locks.append(json.loads((tmp_path / name).read_text())["locked"])
    for part in ("salt", "nonce", "box"):
        assert locks[0][part] != locks[1][part]


def test_the_environment_may_hold_the_passphrase(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_key(path, KEY, PASSPHRASE)
    with pytest.raises(UsageError, match="is locked: set GU_PASSPHRASE"):
        load_key(path)
    monkeypatch.setenv("GU_PASSPHRASE", PASSPHRASE)
    assert load_key(path) == KEY
    monkeypatch.setenv("GU_PASSPHRASE", "close sesame")
    with pytest.raises(UsageError, match="is wrong"):
        load_key(path)


def test_a_real_lock_costs_what_it_should(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nacl import bindings

    monkeypatch.undo()
    assert bindings.crypto_pwhash_argon2id_OPSLIMIT_MODERATE <= passphrases.OPERATIONS
    assert bindings.crypto_pwhash_argon2id_MEMLIMIT_MODERATE <= passphrases.MEMORY
    locked = passphrases.lock(b"data", PASSPHRASE)
    assert (locked.operations, locked.memory) == (passphrases.OPERATIONS, passphrases.MEMORY)
    assert passphrases.unlock(locked, PASSPHRASE) == b"data"


def test_too_little_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from nacl import bindings, exceptions

    def fail(*_: Any) -> bytes:
        raise exceptions.RuntimeError("Unexpected failure in key derivation")

    monkeypatch.setattr(bindings, "crypto_pwhash_alg", fail)
    monkeypatch.setattr(passphrases, "MEMORY", 64 * 2**20)
    with pytest.raises(UsageError, match="needs 64 MiB of memory") as caught:
        passphrases.lock(b"data", PASSPHRASE)
    assert not leaks(told(caught.value))


def test_a_key_does_not_show() -> None:
    shown = [repr(KEY), str(KEY), f"{KEY}", repr([KEY]), repr(KEY.__rich_repr__())]
    assert not [leaks(text) for text in shown if leaks(text)]
    assert "alice" in repr(KEY)
    assert KEY.public.text in repr(KEY)


def test_a_key_does_not_show_in_a_rich_listing() -> None:
    from rich.pretty import pretty_repr

    assert not leaks(pretty_repr(KEY))


def test_a_key_does_not_travel() -> None:
    with pytest.raises(TypeError, match="does not travel"):
        pickle.dumps(KEY)
    for encode in (msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins):
        with pytest.raises(TypeError):
            encode(KEY)


def test_faults_on_the_way_do_not_show_the_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    save_key(path, KEY, PASSPHRASE)
    faults: list[BaseException] = []
    calls: list[Callable[[], Any]] = [
        lambda: load_key(path, ask=lambda: PASSPHRASE + " "),
        lambda: save_key(path, KEY),
        lambda: save_key(path / "below", KEY, PASSPHRASE),
        lambda: save_key(path, msgspec.structs.replace(KEY, name="/")),
        lambda: save_key(path, msgspec.structs.replace(KEY, transport_secret=PASSPHRASE)),
        lambda: succeed(KEY, secret(Kind.APP), 1),
        lambda: succeed(KEY, secret(Kind.HUB), 1),
    ]
    for call in calls:
        with pytest.raises((UsageError, OSError)) as caught:
            call()
        faults.append(caught.value)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output") as caught_late:
        save_key(path, KEY, replace=True)
    faults.append(caught_late.value)
    assert not [found for fault in faults if (found := leaks(told(fault)))]


def test_the_transport_pair_rotates_and_the_principal_stays(path: Path) -> None:
    save_key(path, KEY, PASSPHRASE)
    rotated = rotate_transport(KEY, NEW_KEYPAIR)
    save_key(path, rotated, PASSPHRASE, replace=True)
    found = load_key(path, ask=lambda: PASSPHRASE)
    assert found == rotated
    assert found.public == KEY.public
    assert found.transport_public != KEY.transport_public
    assert found.transport_secret != KEY.transport_secret


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_key_is_succeeded_and_the_file_tells_the_way(path: Path, passphrase: str | None) -> None:
    key = KEY
    for number in (2, 3, 4):
        key = succeed(key, secret(Kind.APP, number), 1_800_000 + number)
    save_key(path, key, passphrase)
    found = load_key(path, ask=lambda: str(passphrase))
    assert found == key
    assert found.public == public(Kind.APP, 4)
    assert (found.name, found.transport_secret) == (KEY.name, KEY.transport_secret)
    assert found.created == 1_800_004
    for number in (1, 2, 3, 4):
        assert follow(found.succession, public(Kind.APP, number)) == found.public
    assert KEY.succession == []
