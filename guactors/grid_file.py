"""The grid that runs on this machine for this user, and how any hub is found from an address.

Owns: ``grid.json`` in GU_HOME (mode 0600), what ``auto`` means, and which key goes with which
address. Must never: talk to a hub, start or end a process.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct
from msgspec.structs import replace

from guactors.config import Identity
from guactors.credentials import Credentials, from_key_file
from guactors.errors import HubUnreachable, UsageError
from guactors.home import home, private_directory, write_private
from guactors.join import endpoint_of, parse_join
from guactors.messages import Endpoint
from guactors.security.key_files import (
    KEY_VARIABLE,
    find_key,
    key_path,
    list_keys,
    new_key_file,
    save_key,
)
from guactors.security.keys import Kind
from guactors.transport.zmq_link import new_keypair

GRID_FILE = "grid.json"
AUTO = "auto"
DEFAULT_APP = "default"
_SAME_START = 0.5
"""Two readings of one process's start time differ by less than so many seconds."""


class Place(Struct, frozen=True):
    """An Endpoint with the names of its fields, for a file that people may read."""

    control: str
    data: str
    server_key: str = ""
    host: str = ""


class GridFile(Struct, frozen=True):
    """``address``: to join it from elsewhere, ``gu://...``. ``hub``: where it listens, nearest
    first. ``pid``, ``created``: the process whose end is the grid's, and its start (epoch seconds).
    ``pids``: of hub and providers by name, as of the start. ``run_dir``: where its sockets are."""

    address: str
    hub: list[Place]
    pid: int
    created: float
    run_dir: str
    pids: dict[str, int] = {}

    def process(self) -> psutil.Process | None:
        """The process, None when it has ended (its number may be somebody else's by now)."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < _SAME_START
            alive = same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None

    def endpoints(self) -> list[Endpoint]:
        """Where the hub listens, nearest first."""
        return [Endpoint(p.control, p.data, p.server_key, p.host) for p in self.hub]


class HubAddress(Struct, frozen=True):
    """What dialling a hub takes. ``shown`` is the address without a secret, ``owner`` the owner's
    public key as the join address names it."""

    endpoints: list[Endpoint]
    credentials: Credentials
    shown: str
    owner: str = ""


def grid_file_path() -> Path:
    """Where the file is, whether or not there is one."""
    return home() / GRID_FILE


def write_grid_file(
    address: str, endpoints: list[Endpoint], pid: int, run_dir: str, pids: dict[str, int]
) -> GridFile:
    """Record a running grid; ``endpoints`` nearest first."""
    grid = GridFile(
        address=address,
        hub=[Place(e.control, e.data, e.server_key, e.host) for e in endpoints],
        pid=pid,
        created=psutil.Process(pid).create_time(),
        run_dir=run_dir,
        pids=pids,
    )
    write_private(grid_file_path(), msgspec.json.format(msgspec.json.encode(grid)))
    return grid


def read_grid_file() -> GridFile | None:
    """The recorded grid, running or not; None when there is none. Raises UsageError for a file
    that is damaged or cannot be read."""
    path = grid_file_path()
    try:
        return msgspec.json.decode(path.read_bytes(), type=GridFile)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError:
        raise UsageError(f"{path} is damaged: remove it, and end the grid by hand") from None


def remove_grid_file(pid: int) -> None:
    """Forget the grid of process ``pid``; nothing when another is recorded, or none."""
    grid = read_grid_file()
    if grid is not None and grid.pid == pid:
        grid_file_path().unlink(missing_ok=True)


def running_grid() -> GridFile | None:
    """The recorded grid if it runs. Of one that was killed, what it left behind is removed."""
    grid = read_grid_file()
    if grid is None or grid.process() is not None:
        return grid
    shutil.rmtree(grid.run_dir, ignore_errors=True)
    remove_grid_file(grid.pid)
    return None


def find_hub(address: str | None = None, key: str | None = None) -> HubAddress:
    """What ``address`` stands for: ``gu://HOST:PORT?hub=...``, ``auto``, or None for GU_ADDRESS
    and, where that is unset, ``auto``. ``key``: a key file or the name of an app key, else GU_KEY.

    Elsewhere, without a key, an app key of the name ``default`` is used, and made at first. Here,
    without a key, it is the owner's, where this user has it and it asks for no passphrase, else
    that of a local process. Raises UsageError for an address or a key that is none,
    HubUnreachable when ``auto`` finds no grid."""
    given = address or os.environ.get("GU_ADDRESS") or AUTO
    if given == AUTO:
        return _running_here(key)
    join = parse_join(given)
    endpoint = endpoint_of(join)
    own = replace(_credentials(key) or _default_app(), hub_key=join.hub, invitation=join.invitation)
    return HubAddress([endpoint], own, endpoint.control, join.owner)


def provider_address(address: str, name: str, directory: Path) -> HubAddress:
    """As ``find_hub``, for a provider of that name whose key is kept in ``directory``, and made at
    its first start. One that joins the hub of its own user and machine needs none."""
    if address == AUTO:
        found = _running_here(None)
        return HubAddress(found.endpoints, Credentials(), found.shown, found.owner)
    join = parse_join(address)
    endpoint = endpoint_of(join)
    keys = private_directory(directory / "keys")
    path = keys / f"provider-{name}.key"
    if not path.exists():
        save_key(path, new_key_file(Kind.PROVIDER, name, new_keypair, os.urandom, int(time.time())))
    own = replace(from_key_file(path), hub_key=join.hub, invitation=join.invitation)
    return HubAddress([endpoint], own, endpoint.control, join.owner)


def _running_here(key: str | None) -> HubAddress:
    grid = read_grid_file()
    if grid is None:
        raise HubUnreachable(
            "no grid of this user runs here: start one with gu up, or give --address gu://... "
            "(GU_ADDRESS) of one elsewhere"
        )
    if grid.process() is None:
        raise HubUnreachable(
            f"the grid of this user (pid {grid.pid}) has ended: gu up starts a new one"
        )
    own = _credentials(key)
    join = parse_join(grid.address)
    if own is None:
        own = _owner_of(join.owner) or Credentials(Identity(*new_keypair()))
    own = replace(own, hub_key=join.hub)
    return HubAddress(grid.endpoints(), own, grid.hub[0].control, join.owner)


def _credentials(key: str | None) -> Credentials | None:
    """Of the key that was asked for, None if none was."""
    if key is None and not os.environ.get(KEY_VARIABLE):
        return None
    path = find_key(key, Kind.APP)
    return None if path is None else from_key_file(path)


def _owner_of(owner: str) -> Credentials | None:
    """Of the owner's key, if it lies here and can be used without asking."""
    for listed in list_keys():
        if listed.public == owner and not listed.encrypted:
            return from_key_file(listed.path)
    return None


def _default_app() -> Credentials:
    path = key_path(Kind.APP, DEFAULT_APP)
    if not path.exists():
        key = new_key_file(Kind.APP, DEFAULT_APP, new_keypair, os.urandom, int(time.time()))
        save_key(path, key)
    return from_key_file(path)
