"""The keys a hub starts with: its own, and its owner's, made at the first start.

Owns: their names in the directory of keys. Must never: open the owner's key, of which a hub needs
the public part only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from guactors.config import Identity, Seal
from guactors.home import home, private_directory
from guactors.security.key_files import load_key, new_key_file, read_head, save_key
from guactors.security.keys import Kind, parse_public
from guactors.transport.zmq_link import new_keypair

MAIN = "main"


class HubKeys(Struct, frozen=True):
    """``identity`` to listen with, ``seal`` of the hub, ``owners``: public keys as text, the first
    is named in the join address. ``made_owner``: the file of an owner key that was made just now,
    empty if there was one."""

    identity: Identity
    seal: Seal
    owners: list[str]
    made_owner: str = ""


def hub_keys(owners: Sequence[str] = (), data: Path | None = None) -> HubKeys:
    """Of the hub with this directory (default: GU_HOME); ``owners`` in place of the owner key that
    lies there. Raises UsageError for key files that will not do."""
    directory = private_directory((data or home()) / "keys")
    hub_path = directory / f"hub-{MAIN}.key"
    _make(hub_path, Kind.HUB)
    hub = load_key(hub_path, Kind.HUB)
    known = [parse_public(owner.strip(), Kind.OWNER).text for owner in owners]
    made = ""
    if not known:
        owner_path = directory / f"owner-{MAIN}.key"
        made = str(owner_path) if _make(owner_path, Kind.OWNER) else ""
        known = [read_head(owner_path).public]
    return HubKeys(
        Identity(server_public=hub.transport_public, server_secret=hub.transport_secret),
        Seal(hub.public.text, hub.secret.text),
        known,
        made,
    )


def _make(path: Path, kind: Kind) -> bool:
    if path.exists():
        return False
    save_key(path, new_key_file(kind, MAIN, new_keypair, os.urandom, int(time.time())))
    return True
