"""The grid that runs on this machine for this user, and how any hub is found from an address.

Owns: ``grid.json`` in GU_HOME (mode 0600: it holds the join address, which is a secret), and what
``auto`` means. Must never: talk to a hub, start or end a process.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from guactors.config import Identity
from guactors.errors import HubUnreachable, UsageError
from guactors.home import home, write_private
from guactors.join import endpoint_of, identity_from_join, parse_join
from guactors.messages import Endpoint
from guactors.transport.zmq_link import derive_public

GRID_FILE = "grid.json"
AUTO = "auto"
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
    """What dialling a hub takes. ``shown`` is the address without the secret."""

    endpoints: list[Endpoint]
    identity: Identity
    shown: str


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
        # Not chained: the decoder's words may quote the secret.
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


def find_hub(address: str | None = None) -> HubAddress:
    """What ``address`` stands for: ``gu://HOST:PORT?key=...``, ``auto``, or None for GU_ADDRESS
    and, where that is unset, ``auto``.

    Raises UsageError for an address that is none, HubUnreachable when ``auto`` finds no grid."""
    given = address or os.environ.get("GU_ADDRESS") or AUTO
    if given == AUTO:
        return _running_here()
    join = parse_join(given)
    endpoint = endpoint_of(join)
    return HubAddress([endpoint], identity_from_join(join, derive_public), endpoint.control)


def _running_here() -> HubAddress:
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
    identity = identity_from_join(parse_join(grid.address), derive_public)
    return HubAddress(grid.endpoints(), identity, grid.hub[0].control)
