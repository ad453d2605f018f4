"""The record of the grid on this machine, and what an address stands for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from guactors.errors import HubUnreachable, UsageError
from guactors.grid_file import (
    GridFile,
    find_hub,
    grid_file_path,
    provider_address,
    read_grid_file,
    remove_grid_file,
    running_grid,
    write_grid_file,
)
from guactors.home import write_private
from guactors.join import JoinAddress, format_join
from guactors.messages import Endpoint
from guactors.security.key_files import key_path, list_keys, new_key_file, save_key
from guactors.security.keys import Kind, PublicKey
from guactors.transport.zmq_link import derive_public, new_keypair

HUB = PublicKey(Kind.HUB, bytes(range(32))).text
IPC = Endpoint("ipc:///run/hub", "ipc:///run/hub.d", host="here")


@pytest.fixture
def join() -> JoinAddress:
    owner = PublicKey(Kind.OWNER, bytes(32)).text
    return JoinAddress("127.0.0.1", 61621, new_keypair()[0], HUB, owner)


def test_nothing_is_recorded_at_first() -> None:
    assert read_grid_file() is None
    with pytest.raises(HubUnreachable, match="gu up"):
        find_hub("auto")


def test_the_record_is_private_and_comes_back(join: JoinAddress) -> None:
    written = write_grid_file(format_join(join), [IPC], os.getpid(), "", {"hub": 7})
    assert read_grid_file() == written
    assert written.process() is not None
    assert written.endpoints() == [IPC]
    if os.name == "posix":
        assert stat.S_IMODE(grid_file_path().stat().st_mode) == 0o600


def test_auto_is_the_recorded_grid(join: JoinAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    write_grid_file(format_join(join), [IPC], os.getpid(), "", {})
    for address in ("auto", None):
        found = find_hub(address)
        assert found.endpoints == [IPC]
        assert found.credentials.seal.key == ""
        assert found.credentials.hub_key == HUB
        assert derive_public(found.credentials.identity.client_secret)
    monkeypatch.setenv("GU_ADDRESS", format_join(join))
    assert find_hub().endpoints[0].control == "tcp://127.0.0.1:61621"


def test_auto_uses_the_owners_key_if_it_lies_here(join: JoinAddress) -> None:
    key = new_key_file(Kind.OWNER, "main", new_keypair, os.urandom, 1)
    save_key(key_path(Kind.OWNER, "main"), key)
    other = format_join(join)
    write_grid_file(other, [IPC], os.getpid(), "", {})
    assert find_hub().credentials.seal.key == ""
    mine = replace(join, owner=key.public.text)
    write_grid_file(format_join(mine), [IPC], os.getpid(), "", {})
    found = find_hub()
    assert found.credentials.seal.key == found.owner == key.public.text
    assert key.secret.text not in repr(found)


def test_an_address_elsewhere_takes_a_key_that_is_made_once(join: JoinAddress) -> None:
    text = format_join(replace(join, invitation="gu_invite_abc"))
    first, second = find_hub(text), find_hub(text)
    assert first.credentials.seal.key.startswith("gu_app_")
    assert first.credentials == second.credentials
    assert first.credentials.invitation == "gu_invite_abc"
    [listed] = list_keys()
    assert (listed.kind, listed.name) == (Kind.APP, "default")


def test_a_provider_has_its_own_key_and_needs_none_at_home(
    join: JoinAddress, tmp_path: Path
) -> None:
    found = provider_address(format_join(join), "box", tmp_path)
    assert found.credentials.seal.key.startswith("gu_provider_")
    assert provider_address(format_join(join), "box", tmp_path) == found
    assert provider_address(format_join(join), "other", tmp_path) != found
    write_grid_file(format_join(join), [IPC], os.getpid(), "", {})
    assert provider_address("auto", "box", tmp_path).credentials.seal.key == ""


def test_a_join_address_has_the_hubs_key_and_shows_no_secret(join: JoinAddress) -> None:
    found = find_hub(format_join(join))
    [endpoint] = found.endpoints
    assert endpoint.server_key == join.transport
    assert found.shown == "tcp://127.0.0.1:61621"
    assert found.credentials.seal.secret not in repr(found)
    assert found.credentials.identity.client_secret not in repr(found)


def test_a_process_with_the_same_number_is_not_the_grid(join: JoinAddress, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "hub").write_text("")
    grid = GridFile(format_join(join), [], pid=os.getpid(), created=1.0, run_dir=str(run_dir))
    assert grid.process() is None
    write_private(grid_file_path(), msgspec.json.encode(grid))
    with pytest.raises(HubUnreachable, match="has ended"):
        find_hub()
    assert running_grid() is None
    assert not run_dir.exists()
    assert read_grid_file() is None


def test_only_the_recorded_grid_is_forgotten(join: JoinAddress) -> None:
    write_grid_file(format_join(join), [IPC], os.getpid(), "", {})
    remove_grid_file(os.getpid() + 1)
    assert read_grid_file() is not None
    remove_grid_file(os.getpid())
    assert read_grid_file() is None
    remove_grid_file(os.getpid())


def test_a_damaged_record_names_the_file_and_quotes_nothing(gu_home: Path) -> None:
    write_private(grid_file_path(), b'{"address": "gu://secret')
    with pytest.raises(UsageError, match="damaged") as raised:
        read_grid_file()
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(UsageError, match="gu://"):
        find_hub("tcp://127.0.0.1:1")
