"""The directory of keys: names, lists, and what somebody means by a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from guactors.errors import UsageError
from guactors.security import key_files
from guactors.security.key_files import (
    Listed,
    find_key,
    key_path,
    keys_directory,
    list_keys,
    read_head,
    save_key,
)
from guactors.security.keys import Kind
from tests.unit.security.key_file_samples import (
    KEY,
    PASSPHRASE,
    make,
    mode,
    posix,
)
from tests.unit.security.samples import public

pytestmark = pytest.mark.usefixtures("cheap_and_bare")


@posix
def test_the_directory_of_keys_is_private() -> None:
    assert mode(keys_directory()) == 0o700
    assert keys_directory().parent == key_files.home()
    keys_directory().chmod(0o755)
    assert mode(keys_directory()) == 0o700


@pytest.mark.parametrize("name", ["a", "A1", "rack-1.lan", "x" * 64, "2_b"])
def test_names_of_keys(name: str) -> None:
    assert key_path(Kind.HUB, name) == keys_directory() / f"hub-{name}.key"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-a", ".a", "a/b", "a\\b", "a b", "a\n", "é", "x" * 65, "a\x00", "a:b"]
)
def test_names_that_no_key_has(name: str) -> None:
    with pytest.raises(UsageError, match="is no name for a key") as caught:
        key_path(Kind.HUB, name)
    assert str(caught.value).isprintable()
    with pytest.raises(UsageError, match="is no name for a key"):
        make(name=name)


def test_keys_are_listed_without_a_passphrase() -> None:
    assert list_keys() == []
    kept = [make(Kind.APP, "bob", 2), make(Kind.APP, "alice"), make(Kind.OWNER, "me-and-you")]
    for key, passphrase in zip(kept, (None, PASSPHRASE, None), strict=True):
        save_key(key_path(key.public.kind, key.name), key, passphrase)
    (keys_directory() / "notes.txt").write_text("")
    (keys_directory() / "king-arthur.key").write_text("")
    directory = keys_directory()
    assert list_keys() == [
        Listed(directory / "app-alice.key", Kind.APP, "alice", public(Kind.APP).text, True),
        Listed(directory / "app-bob.key", Kind.APP, "bob", public(Kind.APP, 2).text, False),
        Listed(
            directory / "owner-me-and-you.key",
            Kind.OWNER,
            "me-and-you",
            public(Kind.OWNER).text,
            False,
        ),
    ]


def test_a_damaged_key_is_listed_without_its_public_key() -> None:
    save_key(key_path(Kind.APP, "alice"), KEY)
    path = key_path(Kind.APP, "bob")
    path.write_text("{}")
    path.chmod(0o600)
    assert [(entry.name, entry.public) for entry in list_keys()] == [
        ("alice", KEY.public.text),
        ("bob", ""),
    ]
    with pytest.raises(UsageError, match="no key file"):
        read_head(path)


def test_a_key_is_found_by_name_of_its_kind_or_by_path(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (Kind.APP, Kind.HUB):
        save_key(key_path(kind, "alice"), make(kind))
    save_key(path, KEY)
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    assert find_key("alice", Kind.APP) == key_path(Kind.APP, "alice")
    assert find_key("alice", Kind.HUB) == key_path(Kind.HUB, "alice")
    assert find_key(str(path), Kind.HUB) == path
    assert find_key("alice.key", Kind.HUB) == Path("alice.key")
    assert find_key("./alice.key", Kind.HUB) == Path("alice.key")
    assert find_key("~/alice.key", Kind.HUB) == path
    path.rename(path.with_name("bob"))
    assert find_key("bob", Kind.HUB) == Path("bob")
    save_key(key_path(Kind.HUB, "bob"), make(Kind.HUB, "bob"))
    assert find_key("bob", Kind.HUB) == key_path(Kind.HUB, "bob"), "a name comes first"


@pytest.mark.parametrize("kind", Kind)
def test_nothing_given_finds_nothing(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    save_key(key_path(Kind.APP, "alice"), KEY)
    assert find_key(None, kind) is None
    assert find_key("", kind) is None
    monkeypatch.setenv("GU_KEY", "alice")
    assert find_key(None, kind) == (key_path(Kind.APP, "alice") if kind is Kind.APP else None)
    assert find_key("", kind) is None, "an empty one says: none"


def test_what_is_given_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alice", "bob"):
        save_key(key_path(Kind.APP, name), make(name=name))
    monkeypatch.setenv("GU_KEY", "alice")
    assert find_key("bob", Kind.APP) == key_path(Kind.APP, "bob")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("carol", "no app key is named 'carol' in .*keys: there are alice, bob; a path"),
        ("ca rol", "no app key is named 'ca rol'"),
        ("ca\x1brol", r"no app key is named 'ca\\\\x1brol'"),
        ("carol.key", r"there is no key file carol\.key$"),
        ("./carol", "there is no key file carol$"),
        ("../app-alice.key", "there is no key file"),
        ("~nobody-of-that-name/x", "there is no key file ~nobody"),
    ],
)
def test_what_is_not_there_is_told(
    given: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("alice", "bob"):
        save_key(key_path(Kind.APP, name), make(name=name))
    save_key(key_path(Kind.HUB, "home"), make(Kind.HUB, "home"))
    with pytest.raises(UsageError, match=fault):
        find_key(given, Kind.APP)


@pytest.mark.parametrize("given", ["carol", "./carol"])
def test_the_environment_is_named_where_it_is_to_blame(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GU_KEY", given)
    with pytest.raises(UsageError, match="from GU_KEY"):
        find_key(None, Kind.APP)
    with pytest.raises(UsageError) as caught:
        find_key(given, Kind.APP)
    assert "GU_KEY" not in str(caught.value)
