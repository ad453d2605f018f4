"""What a grant says, between the command line, a JSON file and the document that is signed.

Owns: the reading of options and files into a grant, the names in it, and how a grant is shown. Must
never: add a right that was not written out, or sign.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from guactors.cli.authority import date, pick_key
from guactors.cli.console import size
from guactors.cli.options import parse_size
from guactors.errors import UsageError
from guactors.messages import GrantRow, KeyRow
from guactors.security.canonical import LIMIT, shown
from guactors.security.grants import (
    ANY,
    LABEL,
    Grant,
    Refusal,
    list_entries,
    read_grant,
    short_name,
)
from guactors.security.keys import Kind, parse_public

Document = dict[str, Any]

TEMPLATE: Final[Document] = {
    "app": "",
    "providers": [],
    "runtimes": [],
    "image_hashes": [],
    "image_signers": [],
    "image_mode": "any",
    "function_signers": [],
    "max_priority": 0,
    "preemption": [],
    "quotas": {"cpu": 0, "memory": 0, "gpu": 0, "storage": 0, "instances": 0},
    "network": {"overlay": [], "egress": []},
    "actions": [],
    "expires": None,
}
"""What a person fills in; all else of a grant is known when it is signed."""

_NUMBER: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?", re.ASCII)
_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


# --- reading -------------------------------------------------------------------------------------


def read_document(path: Path | None) -> Document:
    """The fields of a file as ``gu grant template`` prints it; none without one. Raises UsageError
    for what is no JSON object, and for repeated fields, of which a reader would see only one."""
    if path is None:
        return {}
    data = path.read_bytes()
    if len(data) > LIMIT:
        raise UsageError(f"{path} is no grant: it has more than {LIMIT} bytes")
    try:
        found = json.loads(data, object_pairs_hook=_unrepeated)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {shown(str(error))}") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} is no grant: gu grant template shows the form of one")
    return found


def with_options(document: Document, fields: Document, quotas: Document, net: Document) -> Document:
    """``document`` with what the command line gives put over it; None is not given."""
    merged = document | _given(fields)
    for name, part in (("quotas", _given(quotas)), ("network", _given(net))):
        below = merged.get(name, {})
        if part and isinstance(below, dict):
            merged[name] = below | part
    return merged


def with_keys(document: Document, rows: Sequence[KeyRow]) -> Document:
    """``document`` with keys where it has their names. ``rows``: those that names may mean."""
    merged = dict(document)
    if isinstance(given := merged.get("app"), str) and given:
        merged["app"] = pick_key(given, rows, Kind.APP).text
    for field, kind in (
        ("providers", Kind.PROVIDER),
        ("image_signers", Kind.SIGNER),
        ("function_signers", Kind.SIGNER),
    ):
        if isinstance(entries := merged.get(field), list):
            merged[field] = [_with_key(entry, rows, kind) for entry in entries]
    return merged


def devices(text: str | None, option: str) -> int | str | None:
    """A number of processors or the like in thousandths. Raises typer.BadParameter."""
    if text is None or text == ANY:
        return text
    if not _NUMBER.fullmatch(text):
        raise typer.BadParameter(f"{option} {text!r} is no number and not '*'")
    return round(float(text) * 1000)


def count(text: str | None, option: str) -> int | str | None:
    """A whole number. Raises typer.BadParameter."""
    if text is None or text == ANY:
        return text
    if not _WHOLE_NUMBER.fullmatch(text):
        raise typer.BadParameter(f"{option} {text!r} is no whole number and not '*'")
    return int(text)


def amount(text: str | None) -> int | str | None:
    """A size in bytes. Raises typer.BadParameter."""
    return text if text is None or text == ANY else parse_size(text)


def _given(fields: Document) -> Document:
    return {name: value for name, value in fields.items() if value is not None}


def _with_key(entry: object, rows: Iterable[KeyRow], kind: Kind) -> object:
    if not isinstance(entry, str) or entry == ANY or entry.startswith(LABEL):
        return entry
    return pick_key(entry, rows, kind).text


def _unrepeated(pairs: list[tuple[str, Any]]) -> Document:
    found: Document = {}
    for name, value in pairs:
        if name in found:
            raise UsageError(f"the field {shown(name)!r} is there twice")
        found[name] = value
    return found


# --- showing -------------------------------------------------------------------------------------


def opened(row: GrantRow) -> Grant | Refusal:
    """The grant of a row, if its issuer signed it."""
    return read_grant(row.envelope, [parse_public(row.issuer, Kind.OWNER)], None)


def plain_row(row: GrantRow) -> Document:
    """A row for ``--json``; in place of the envelope what it says."""
    found = opened(row)
    said = {"fault": found.detail} if isinstance(found, Refusal) else {"grant": found}
    fields = ("app", "issuer", "serial", "state", "since")
    return {name: getattr(row, name) for name in fields} | said


def brief(row: GrantRow) -> tuple[object, ...]:
    """A row of ``gu grant list``."""
    found = opened(row)
    start = (row.serial, short_name(row.app), short_name(row.issuer), row.state)
    if isinstance(found, Refusal):
        return (*start, found.detail, "-", "-", "-")
    return (
        *start,
        ", ".join(found.actions) or "nothing",
        list_entries(found.runtimes, "any"),
        list_entries(found.providers, "any"),
        _ends(found),
    )


def facts(grant: Grant) -> list[tuple[str, str]]:
    """All that a grant says, as fields for people."""
    quotas = grant.quotas
    return [
        ("serial", str(grant.serial)),
        ("app", grant.app),
        ("issuer", grant.issuer),
        ("hub", grant.hub),
        ("from", date(grant.not_before)),
        ("expires", _ends(grant)),
        ("actions", _joined(grant.actions)),
        ("providers", _joined(grant.providers)),
        ("runtimes", _joined(grant.runtimes)),
        ("images", _joined(grant.image_hashes)),
        ("image signers", _joined(grant.image_signers)),
        ("image mode", "hash or signer" if grant.image_mode == "any" else "hash and signer"),
        ("function signers", _joined(grant.function_signers)),
        ("priority", f"{grant.max_priority} at most"),
        ("preemption", _joined(grant.preemption)),
        ("cpu", _most(quotas.cpu, lambda x: f"{x / 1000:g}")),
        ("memory", _most(quotas.memory, size)),
        ("gpu", _most(quotas.gpu, lambda x: f"{x / 1000:g}")),
        ("storage", _most(quotas.storage, size)),
        ("instances", _most(quotas.instances, str)),
        ("overlay", _joined(grant.network.overlay)),
        ("egress", _joined(grant.network.egress)),
    ]


def lacks(grant: Grant) -> list[str]:
    """The options without which a grant lets nothing run, though it may be meant to."""
    if not grant.actions:
        return ["--action"]
    if "submit" not in grant.actions:
        return []
    needed = {
        "--provider": grant.providers,
        "--runtime": grant.runtimes,
        "--instances": grant.quotas.instances,
    }
    if grant.runtimes == ["python"]:
        needed["--function-signer"] = grant.function_signers
    elif grant.runtimes and not {"python", ANY} & set(grant.runtimes):
        needed["--image or --signer"] = grant.image_hashes or grant.image_signers
    return [option for option, given in needed.items() if not given]


def _ends(grant: Grant) -> str:
    return "never" if grant.expires is None else date(grant.expires)


def _joined(entries: list[str]) -> str:
    return ", ".join(map(shown, entries)) or "none"


def _most(value: int | str, shown_as: Callable[[int], str]) -> str:
    return ANY if isinstance(value, str) else shown_as(value)
