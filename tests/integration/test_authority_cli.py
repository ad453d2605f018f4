"""The commands about keys, grants, sessions and the audit log against a hub of its own process,
which guests reach over TCP with keys of their own."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command import first_line, gu, refused, running

SECRET = re.compile(r"gu_[a-z]+_secret_")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory, run_root: Path) -> Iterator[dict[str, str]]:
    """The environment of the hub's owner, and the hub."""
    env = {"GU_HOME": str(tmp_path_factory.mktemp("owner"))}
    with running("hub", "--listen", "tcp://127.0.0.1:0", **env) as hub:
        env["ADDRESS"] = first_line(hub)
        yield env


@pytest.fixture
def guest(owner: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of somebody with a home of its own, who knows the join address."""
    return {"GU_HOME": str(tmp_path / "guest"), "GU_ADDRESS": owner["ADDRESS"]}


def rows(owner: dict[str, str]) -> dict[str, dict[str, str]]:
    """The keys that the hub knows, by text."""
    found = json.loads(gu("key", "list", "--hub", "--json", **owner).stdout)
    return {row["key"]: row for row in found}


def facts(env: dict[str, str], name: str = "default", kind: str = "app") -> dict[str, str]:
    """What ``gu key show`` says of a key of this home."""
    found: dict[str, str] = json.loads(
        gu("key", "show", name, "--kind", kind, "--json", **env).stdout
    )
    return found


def key_of(env: dict[str, str], name: str = "default", kind: str = "app") -> str:
    """The text of a key of this home."""
    return facts(env, name, kind)["key"]


def test_a_stranger_is_approved_granted_and_revoked(
    owner: dict[str, str], guest: dict[str, str]
) -> None:
    said = refused("grant", "list", **guest)
    key = key_of(guest)
    assert "gu key approve" in said
    assert rows(owner)[key]["state"] == "pending"
    approved = gu("key", "approve", facts(guest)["short"], "--name", "lab", **owner)
    assert approved.stdout.strip() == key
    assert (rows(owner)[key]["state"], rows(owner)[key]["name"]) == ("approved", "lab")
    assert json.loads(gu("grant", "list", "--json", **guest).stdout) == []
    assert "no_grant" in refused("key", "list", "--hub", **guest)

    wanted = ("--action", "submit", "--action", "admin", "--provider", "*", "--runtime", "python")
    more = ("--function-signer", "*", "--cpu", "2", "--instances", "2", "--expires", "1h")
    serial = gu("grant", "create", "--app", "lab", *wanted, *more, **owner).stdout.strip()
    [own] = json.loads(gu("grant", "list", "--json", **guest).stdout)
    assert (str(own["serial"]), own["state"], own["app"]) == (serial, "valid", key)
    assert own["grant"]["actions"] == ["submit", "admin"]
    assert key in rows(guest), "an administrator may read the keys"

    gu("grant", "revoke", serial, "--reason", "enough", **owner)
    assert "no_grant" in refused("key", "list", "--hub", **guest)
    gu("key", "revoke", "lab", "--reason", "and out", **owner)
    assert "revoked" in refused("grant", "list", **guest)
    assert "never come back" in refused("key", "approve", key, **owner)


def test_an_invitation_lets_one_in_once(
    owner: dict[str, str], guest: dict[str, str], tmp_path: Path
) -> None:
    done = gu("key", "invite", "app", "--name", "invited", "--for", "5m", **owner)
    invited = done.stdout.strip()
    assert invited.startswith(owner["ADDRESS"] + "&invite=")
    assert invited.partition("&invite=")[2] not in done.stderr
    gu("grant", "list", "--address", invited, **guest)
    gu("grant", "list", **guest)
    assert rows(owner)[key_of(guest)]["name"] == "invited"
    late = guest | {"GU_HOME": str(tmp_path / "late")}
    assert "used already" in refused("grant", "list", "--address", invited, **late)


def test_a_new_identity_keeps_what_the_old_one_had(
    owner: dict[str, str], guest: dict[str, str]
) -> None:
    gu("key", "new", "app", "--name", "default", **guest)
    before = key_of(guest)
    gu("key", "approve", before, "--name", "moved", **owner)
    gu("grant", "create", "--app", before, "--action", "admin", **owner)
    after = gu("key", "rotate", "default", "--identity", **guest).stdout.strip()
    assert after == key_of(guest) != before
    found = rows(guest)
    assert (found[before]["state"], found[after]["state"]) == ("revoked", "approved")
    assert found[after]["name"] == "moved"
    gu("key", "rotate", "default", **guest)
    assert after in rows(guest), "other transport keys, the same principal"
    assert stat.S_IMODE(Path(guest["GU_HOME"], "keys/app-default.key.old").stat().st_mode) == 0o600


def test_the_log_has_it_all_and_is_whole(owner: dict[str, str], guest: dict[str, str]) -> None:
    refused("grant", "list", **guest)
    key = key_of(guest)
    entries = json.loads(gu("audit", "--who", key, "--json", **owner).stdout)
    assert entries[-1]["decision"] == "refused"
    assert entries[-1]["reason"] == "pending"
    assert "pending" in gu("audit", "--decision", "refused", "--since", "1h", **owner).stdout
    number, _, _ = gu("audit", "verify", **owner).stdout.partition(":")
    assert int(number) >= entries[-1]["number"]
    assert "approve" in refused("audit", **guest)


def test_sessions_are_listed(owner: dict[str, str]) -> None:
    assert json.loads(gu("session", "list", "--json", **owner).stdout) == []
    assert "no session" in refused("session", "delete", "s-1", **owner)


def test_no_secret_is_ever_shown(owner: dict[str, str], guest: dict[str, str]) -> None:
    done = [gu("key", "new", kind, **guest) for kind in ("owner", "signer", "provider")]
    done += [gu("key", "list", **guest), gu("key", "list", "--hub", **owner)]
    done += [gu("key", "show", "main", "--kind", "signer", **guest), gu("grant", "list", **owner)]
    for one in done:
        assert not SECRET.search(one.stdout + one.stderr)


@pytest.mark.needs("posix")
def test_an_owner_that_changed_its_key_goes_on_after_a_restart(tmp_path: Path) -> None:
    env = {"GU_HOME": str(tmp_path / "home")}
    with running("hub", "--listen", "tcp://127.0.0.1:0", **env) as hub:
        address = first_line(hub)
        app = gu("key", "new", "app", "--name", "lab", **env).stdout.strip()
        gu("key", "approve", app, **env)
        gu("grant", "create", "--app", app, "--action", "admin", **env)
        before = key_of(env, "main", "owner")
        after = gu("key", "rotate", "main", "--kind", "owner", "--identity", **env).stdout.strip()
        assert after != before
        by_address = gu("key", "list", "--hub", "--json", "--address", address, **env).stdout
        states = {row["key"]: row["state"] for row in json.loads(by_address)}
        assert (states[before], states[after]) == ("revoked", "approved")
    with running("hub", "--listen", "tcp://127.0.0.1:0", **env) as hub:
        first_line(hub)
        found = rows(env)
        assert (found[before]["state"], found[after]["state"]) == ("revoked", "approved")
        [grant] = json.loads(gu("grant", "list", "--json", **env).stdout)
        assert (grant["issuer"], grant["state"]) == (before, "valid")
        assert gu("grant", "create", "--app", app, "--action", "submit", **env).stdout == "1\n"
    path = Path(env["GU_HOME"], "hub", "audit.log")
    gu("audit", "verify", **env)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    assert "line 4 of audit.log is broken" in refused("audit", "verify", **env)
