"""What keys, grants and the audit log cost.

    python -m benchmarks.authority [--directory DIR] [--check]

Owns: the costs of one decision: verifying a grant, looking an app's rights up, writing down what
was decided and what must not be forgotten. Prints one line of JSON: microseconds, medians of ROUNDS
rounds. ``--directory``: on which disk; a temporary directory may be memory. ``--check``: exit
status 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from guactors.gatekeeper_state.grants import GrantBook
from guactors.gatekeeper_state.keys import KeyBook
from guactors.security import grants, keys, rights
from guactors.security.audit import Draft
from guactors.security.audit_file import AuditFile
from guactors.security.audit_reader import verify_log
from guactors.store.base import GrantRecord, KeyRecord, Op, PutGrant, PutKey, SetEpoch
from guactors.store.sqlite import SqliteStore

NOW = 1_800_000_000
APPS = 1_000
GRANTS_EACH = 10
ROUNDS = 7
TARGETS = {"verify_grant": 300.0, "lookup": 50.0}
"""Microseconds at most."""


def secret(kind: keys.Kind, number: int) -> keys.SecretKey:
    return keys.new_secret(kind, random.Random(f"{kind.value} {number}").randbytes(keys.KEY_BYTES))


OWNER = secret(keys.Kind.OWNER, 0)
HUB = secret(keys.Kind.HUB, 0).public


def signed(app: str, serial: int) -> bytes:
    """A grant as one in use is: a few entries in each list."""
    grant = grants.build_grant(
        hub=HUB.text,
        app=app,
        issuer=OWNER.public.text,
        serial=serial,
        now=NOW - 100,
        expires=NOW + 1_000_000,
        providers=[secret(keys.Kind.PROVIDER, number).public.text for number in range(3)],
        runtimes=["python", "docker"],
        image_hashes=[f"sha3-256:{number:064x}" for number in range(5)],
        image_signers=[secret(keys.Kind.SIGNER, number).public.text for number in range(2)],
        function_signers=["*"],
        max_priority=serial % 10,
        preemption=["suspend"],
        quotas={"cpu": 8_000, "memory": 2**34, "instances": 20},
        actions=["submit", "read_stats"],
    )
    return grants.sign_grant(grant, OWNER)


def measured(work: Callable[[], object], times: int) -> float:
    """Microseconds of one ``work``: the median of rounds of ``times`` each."""
    rounds = []
    work()
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(times):
            work()
        rounds.append((time.perf_counter() - begun) / times * 1e6)
    return statistics.median(rounds)


def deciding() -> dict[str, float]:
    data = signed(secret(keys.Kind.APP, 0).public.text, 1)
    owners = [OWNER.public]
    grant = grants.open_grant(data, owners, HUB)
    five = rights.Rights(grants=(grant,) * 5, principal=grant.app)
    site = rights.Site(grant.providers[0])
    work = rights.Work(cpu=1_000)
    assert five.judge_site(work, site, NOW).allowed
    return {
        "verify_grant": measured(lambda: grants.open_grant(data, owners, HUB), 200),
        "may": measured(lambda: five.may("submit", NOW), 20_000),
        "judge_site": measured(lambda: five.judge_site(work, site, NOW), 20_000),
    }


def records() -> tuple[list[KeyRecord], list[GrantRecord]]:
    """The keys and grants of all apps."""
    known, granted = [], []
    for number in range(APPS):
        app = secret(keys.Kind.APP, number).public.text
        known.append(KeyRecord(app, "app", f"app {number}", "approved", "z" * 40, 1.0))
        for serial in range(number * GRANTS_EACH + 1, (number + 1) * GRANTS_EACH + 1):
            envelope = signed(app, serial)
            granted.append(GrantRecord(app, OWNER.public.text, serial, envelope, "valid", 1.0))
    return known, granted


def looking_up(known: list[KeyRecord], granted: list[GrantRecord]) -> dict[str, float]:
    """The rights of one app among all; ``lookup_first`` verifies its grants, which the hub does
    once after its start."""
    book = GrantBook(HUB, KeyBook([OWNER.public], known), granted)
    apps = [record.key for record in known]
    random.Random(1).shuffle(apps)
    begun = time.perf_counter()
    assert all(len(book.rights(app, NOW).grants) == GRANTS_EACH for app in apps)
    first = (time.perf_counter() - begun) / APPS * 1e6
    turn = itertools.cycle(apps)
    return {"lookup": measured(lambda: book.rights(next(turn), NOW), 20_000), "lookup_first": first}


def keeping(
    directory: Path, known: list[KeyRecord], granted: list[GrantRecord]
) -> dict[str, float]:
    """The store of a hub that has all of these."""
    path = directory / "store" / "store.db"
    store = SqliteStore(path)
    store.apply([*map(PutKey, known), *map(PutGrant, granted)])
    epoch = 0

    def apply(count: int) -> None:
        nonlocal epoch
        ops: list[Op] = []
        for _ in range(count):
            epoch += 1
            ops.append(SetEpoch(epoch))
        store.apply(ops)

    found = {
        "store_apply_1": measured(lambda: apply(1), 50),
        "store_apply_32_per_op": measured(lambda: apply(32), 20) / 32,
        "store_load": measured(store.load, 1),
    }
    store.close()
    begun = time.perf_counter()
    SqliteStore(path).close()
    return {**found, "store_open": (time.perf_counter() - begun) * 1e6}


def writing_down(directory: Path) -> dict[str, float]:
    path = directory / "audit" / "audit.log"
    log = AuditFile(path)
    app, place = secret(keys.Kind.APP, 0).public.text, secret(keys.Kind.PROVIDER, 0).public.text
    draft = Draft(NOW, app, "submit", "allowed", "allowed", "sha3-256:" + "0" * 64, place, grant=1)
    found = {
        "audit_append_1": measured(lambda: log.append([draft]), 50),
        "audit_append_32_per_line": measured(lambda: log.append([draft] * 32), 20) / 32,
    }
    lines = log.head.number
    log.close()
    return {**found, "audit_verify_per_line": measured(lambda: verify_log(path), 1) / lines}


def main() -> int:
    parser = argparse.ArgumentParser(description="what keys, grants and the audit log cost")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        place, (known, granted) = Path(directory), records()
        found = deciding() | looking_up(known, granted)
        found |= keeping(place, known, granted) | writing_down(place)
    missed = [name for name, most in TARGETS.items() if found[name] > most]
    rounded = {name: round(value, 2) for name, value in found.items()}
    print(json.dumps({"microseconds": rounded, "targets": TARGETS, "missed": missed}))
    return 1 if asked.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
