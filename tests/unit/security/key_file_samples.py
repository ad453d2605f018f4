"""Key files for tests: how they are made, what of them must show nowhere, and who sees it."""

from __future__ import annotations

import stat
import traceback
from pathlib import Path

import pytest

from guactors.security.key_files import KeyFile, new_key_file
from guactors.security.keys import Kind
from tests.unit.security.samples import keypairs, secret, seed

posix = pytest.mark.needs("posix")
NEW_KEYPAIR = keypairs()


def make(kind: Kind = Kind.APP, name: str = "alice", number: int = 1) -> KeyFile:
    return new_key_file(kind, name, NEW_KEYPAIR, lambda size: seed(kind, number)[:size], 1_700_000)


KEY = make()
PASSPHRASE = "open sesame"
HIDDEN = (
    "seed-app",
    seed(Kind.APP).hex(),
    secret(Kind.APP).text,
    secret(Kind.APP).text[14:],
    KEY.transport_secret,
    PASSPHRASE,
)
"""What must show nowhere."""


def leaks(shown: str) -> list[str]:
    return [hidden for hidden in HIDDEN if hidden in shown]


def told(error: BaseException) -> str:
    """All that a program or a person may come to see of an error."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def never() -> str:
    raise AssertionError("asked for a passphrase")
