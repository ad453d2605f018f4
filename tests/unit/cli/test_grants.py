"""``gu grant``: what is signed is what was written out, and the hub keeps it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from guactors import messages as m
from guactors.grid_file import grid_file_path
from guactors.security.grants import Grant, build_grant, open_grant, sign_grant
from guactors.security.key_files import key_path, save_key
from guactors.security.keys import Kind, SecretKey
from tests.unit.cli.stand_in_hub import StandIn, gu, make_key, refused
from tests.unit.hub.gatekeeper_bench import HUB
from tests.unit.security.samples import secret

APP, OTHER_APP = secret(Kind.APP), secret(Kind.APP, 2)
PROVIDER, SIGNER = secret(Kind.PROVIDER), secret(Kind.SIGNER)
HASH = "sha3-256:" + "a" * 64

USUAL = (
    *("--action", "submit", "--provider", "*", "--runtime", "python", "--function-signer", "*"),
    *("--cpu", "4", "--memory", "4GiB", "--instances", "8"),
)


def kept(hub: StandIn, serial: int) -> Grant:
    """The grant of that serial, as the hub keeps and a provider verifies it."""
    [row] = [row for row in hub.grants() if row.serial == serial]
    return open_grant(row.envelope, [hub.owner.public], HUB.public)


def created(hub: StandIn, *args: str) -> Grant:
    return kept(hub, int(gu("grant", "create", *args).line))


# --- create --------------------------------------------------------------------------------------


def test_every_option_is_in_the_grant(hub: StandIn) -> None:
    grant = created(
        hub,
        *("--app", APP.public.text, "--provider", PROVIDER.public.text),
        *("--provider", "label:site=berlin", "--runtime", "python", "--runtime", "docker"),
        *("--image", HASH, "--signer", SIGNER.public.text, "--mode", "all"),
        *("--function-signer", SIGNER.public.text, "--max-priority", "-3"),
        *("--preempt", "suspend", "--preempt", "requeue"),
        *("--cpu", "1.5", "--memory", "4GiB", "--gpu", "*", "--storage", "1GB"),
        *("--instances", "7", "--action", "submit", "--action", "read_logs"),
        *("--egress", "example.org:443", "--overlay", "lab"),
        *("--expires", "30d", "--not-before", "2h"),
    )
    now = time.time()
    assert (grant.app, grant.issuer, grant.hub) == (
        APP.public.text, hub.owner.public.text, HUB.public.text,
    )  # fmt: skip
    assert grant.providers == [PROVIDER.public.text, "label:site=berlin"]
    assert grant.runtimes == ["python", "docker"]
    assert (grant.image_hashes, grant.image_mode) == ([HASH], "all")
    assert grant.image_signers == grant.function_signers == [SIGNER.public.text]
    assert (grant.max_priority, grant.preemption) == (-3, ["suspend", "requeue"])
    quotas = grant.quotas
    assert (quotas.cpu, quotas.memory, quotas.gpu) == (1500, 4 * 2**30, "*")
    assert (quotas.storage, quotas.instances) == (10**9, 7)
    assert grant.actions == ["submit", "read_logs"]
    assert (grant.network.egress, grant.network.overlay) == (["example.org:443"], ["lab"])
    assert grant.expires is not None
    assert abs(grant.expires - now - 30 * 86400) < 60
    assert abs(grant.not_before - now - 7200) < 60


def test_what_is_not_written_out_is_not_allowed(hub: StandIn) -> None:
    done = gu("grant", "create", "--app", APP.public.text)
    grant = kept(hub, int(done.line))
    empty = build_grant(
        hub=grant.hub, app=grant.app, issuer=grant.issuer, serial=grant.serial, now=grant.not_before
    )
    assert grant == empty
    assert grant.expires is None
    assert "lets nothing run" in done.err


@pytest.mark.parametrize(
    "missing", ["--provider", "--runtime", "--instances", "--function-signer", "--action"]
)
def test_a_grant_that_lets_nothing_run_is_remarked(hub: StandIn, missing: str) -> None:
    at = USUAL.index(missing)
    most = USUAL[:at] + USUAL[at + 2 :]
    assert missing in gu("grant", "create", "--app", APP.public.text, *most).err
    assert "lacks" not in gu("grant", "create", "--app", APP.public.text, *USUAL).err


@pytest.mark.parametrize(
    ("options", "remarked"),
    [((), True), (("--image", HASH), False), (("--signer", SIGNER.public.text), False)],
)
def test_programs_without_an_image_to_run_are_remarked(
    hub: StandIn, options: tuple[str, ...], remarked: bool
) -> None:
    native = ("--action", "submit", "--provider", "*", "--runtime", "native", "--instances", "1")
    done = gu("grant", "create", "--app", APP.public.text, *native, *options)
    assert ("--image or --signer" in done.err) == remarked


def test_an_approved_app_may_do_what_was_granted(hub: StandIn) -> None:
    hub.approve(APP, "lab")
    gu("grant", "create", "--app", "lab", *USUAL)
    assert hub.bench.may(APP, "submit")
    assert not hub.bench.may(APP, "admin")


def test_serials_go_up(hub: StandIn) -> None:
    serials = [int(gu("grant", "create", "--app", APP.public.text).line) for _ in range(3)]
    assert serials == [1, 2, 3]
    gu("grant", "revoke", "3")
    assert gu("grant", "create", "--app", APP.public.text).line == "4"


def test_names_are_those_of_approved_keys_and_of_files_here(hub: StandIn) -> None:
    hub.approve(APP, "lab")
    hub.approve(PROVIDER, "box")
    mine = make_key(Kind.SIGNER, "me")
    hub.knock(OTHER_APP, "guest")
    grant = created(
        hub, "--app", "lab", "--provider", "box", "--signer", "me", "--function-signer", "me"
    )
    assert (grant.app, grant.providers) == (APP.public.text, [PROVIDER.public.text])
    assert grant.image_signers == grant.function_signers == [mine.public.text]
    assert "no app key is known as 'guest'" in refused("grant", "create", "--app", "guest")
    said = refused("grant", "create", "--app", "lab", "--provider", "lab")
    assert "no provider key is known as 'lab'" in said
    assert len(hub.grants()) == 1


def test_a_name_with_two_meanings_is_refused(hub: StandIn) -> None:
    hub.approve(APP, "lab")
    here = make_key(Kind.APP, "lab")
    said = refused("grant", "create", "--app", "lab")
    assert APP.public.text in said
    assert here.public.text in said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--app", PROVIDER.public.text], "an app key is needed"),
        (["--app", APP.text], "SECRET"),
        (["--provider", APP.public.text], "a provider key is needed"),
        (["--signer", APP.public.text], "a signer key is needed"),
        (["--provider", "label:x"], "label:NAME=VALUE"),
        (["--runtime", "java"], "none of python"),
        (["--action", "*"], "none of submit"),
        (["--preempt", "kill"], "none of suspend"),
        (["--image", "latest"], "no image hash"),
        (["--egress", "a b"], "without spaces"),
        (["--expires", "2001-01-01"], "expires"),
        (["--max-priority", "99999999999"], "max_priority"),
        (["--runtime", "python", "--runtime", "python"], "twice"),
    ],
)
def test_what_cannot_be_meant_is_not_signed(hub: StandIn, wrong: list[str], said: str) -> None:
    usual = [] if "--app" in wrong else ["--app", APP.public.text]
    line = refused("grant", "create", *usual, *wrong)
    assert said in line
    assert APP.text not in line
    assert hub.grants() == []


@pytest.mark.parametrize(
    "wrong",
    [
        ["--cpu", "-1"], ["--cpu", "nan"], ["--cpu", "1e3"], ["--gpu", "all"], ["--cpu", ""],
        ["--memory", "4 apples"], ["--instances", "1.5"], ["--instances", "-1"],
        ["--expires", "soon"], ["--expires", "30"], ["--mode", "some"], ["--max-priority", "high"],
    ],
)  # fmt: skip
def test_wrong_values_are_wrong_usage(hub: StandIn, wrong: list[str]) -> None:
    refused("grant", "create", "--app", APP.public.text, *wrong, status=2)
    assert hub.grants() == []


def test_without_an_app_there_is_no_grant(hub: StandIn) -> None:
    assert "--app" in refused("grant", "create", *USUAL)


def test_the_hub_must_be_known(hub: StandIn) -> None:
    grid_file_path().unlink()
    assert "--address" in refused("grant", "create", "--app", APP.public.text)
    assert gu("grant", "create", "--app", APP.public.text, "--address", hub.address).line == "1"


def test_an_owner_that_the_hub_does_not_know_is_refused(hub: StandIn) -> None:
    make_key(Kind.OWNER, "other")
    said = refused("grant", "create", "--app", APP.public.text, "--owner", "other")
    assert "owner" in said
    assert hub.grants() == []
    assert "2 keys" in refused("grant", "create", "--app", APP.public.text)
    assert gu("grant", "create", "--app", APP.public.text, "--owner", "main").line == "1"


def test_a_key_that_is_no_owner_signs_nothing(hub: StandIn) -> None:
    make_key(Kind.APP, "lab")
    said = refused("grant", "create", "--app", APP.public.text, "--owner", "lab")
    assert "no owner key here is named 'lab'" in said
    path = str(key_path(Kind.APP, "lab"))
    assert "of kind app" in refused("grant", "create", "--app", APP.public.text, "--owner", path)


def test_a_locked_owner_key_is_unlocked_once(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_path(Kind.OWNER, "main")
    path.unlink()
    save_key(path, hub.owner, "words")
    asked: list[str] = []

    def prompt(text: str, **_: object) -> str:
        asked.append(text)
        return "words"

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(typer, "prompt", prompt)
    done = gu("grant", "create", "--app", APP.public.text)
    assert done.line == "1"
    assert len(asked) == 1
    assert "words" not in done.out + done.err
    assert hub.principals == [hub.owner.public.text]
    assert "GU_PASSPHRASE" not in os.environ


# --- files ---------------------------------------------------------------------------------------


def test_the_template_is_a_grant_that_allows_nothing(hub: StandIn, tmp_path: Path) -> None:
    template = json.loads(gu("grant", "template").out)
    unsaid = {"format", "hub", "issuer", "serial", "not_before"}
    assert template.keys() | unsaid == set(Grant.__struct_fields__)
    file = tmp_path / "grant.json"
    file.write_text(json.dumps(template))
    assert "--app" in refused("grant", "create", "--from", str(file))
    grant = created(hub, "--from", str(file), "--app", APP.public.text)
    assert grant == created_empty(grant)


def created_empty(grant: Grant) -> Grant:
    return build_grant(
        hub=grant.hub, app=grant.app, issuer=grant.issuer, serial=grant.serial, now=grant.not_before
    )


def test_options_go_before_the_file(hub: StandIn, tmp_path: Path) -> None:
    hub.approve(PROVIDER, "box")
    said = {
        "app": APP.public.text,
        "providers": ["box"],
        "runtimes": ["docker"],
        "quotas": {"cpu": 1000, "memory": 5},
        "actions": ["submit"],
        "expires": 4_000_000_000,
    }
    file = tmp_path / "grant.json"
    file.write_text(json.dumps(said))
    grant = created(hub, "--from", str(file), "--runtime", "python", "--cpu", "*")
    assert grant.providers == [PROVIDER.public.text]
    assert (grant.runtimes, grant.actions) == (["python"], ["submit"])
    assert (grant.quotas.cpu, grant.quotas.memory) == ("*", 5)
    assert grant.expires == 4_000_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON"),
        ("[]", "no grant"),
        ('{"app": 1, "app": 2}', "twice"),
        ('{"quotas": {"cpu": 1, "cpu": 2}}', "twice"),
        ('{"provider": []}', "no field 'provider'"),
        ('{"now": 1}', "no field 'now'"),
        ('{"quotas": {"cores": 1}}', "cores"),
        ('{"quotas": []}', "quotas"),
        ('{"max_priority": "high"}', "max_priority"),
        ('{"max_priority": 1.5}', "max_priority"),
        ('{"runtimes": "python"}', "runtimes"),
        ('{"serial": 0}', "serial"),
        ('{"hub": 7}', "hub"),
        ('{"format": "guactors.grant/2"}', "format"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_wrong_file_is_not_signed(hub: StandIn, tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "grant.json"
    file.write_text(text)
    assert said in refused("grant", "create", "--from", str(file), "--app", APP.public.text)
    assert hub.grants() == []


def test_a_missing_file_is_named(hub: StandIn, tmp_path: Path) -> None:
    file = str(tmp_path / "none.json")
    assert file in refused("grant", "create", "--from", file)
    assert file in refused("grant", "check", file)
    assert file in refused("grant", "put", file)


def test_a_grant_signed_offline_is_put_later(hub: StandIn, tmp_path: Path) -> None:
    make_key(Kind.APP, "lab")
    file = tmp_path / "grant.gu"
    done = gu("grant", "create", "--app", "lab", *USUAL, "--out", str(file))
    assert abs(int(done.line) / 1000 - time.time()) < 60
    assert hub.asked == []
    assert gu("grant", "put", str(file)).line == done.line
    assert kept(hub, int(done.line)).actions == ["submit"]
    assert "replay" in refused("grant", "put", str(file))


def test_a_file_is_not_overwritten(hub: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "grant.gu"
    file.write_text("mine")
    refused("grant", "create", "--app", APP.public.text, "--out", str(file))
    assert file.read_text() == "mine"


# --- check ---------------------------------------------------------------------------------------


def envelope(owner: SecretKey, **fields: Any) -> bytes:
    given = {"hub": HUB.public.text, "now": time.time() - 10, "serial": 5} | fields
    grant = build_grant(app=APP.public.text, issuer=owner.public.text, **given)
    return sign_grant(grant, owner)


def test_check_needs_no_hub(hub: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "grant.gu"
    file.write_bytes(envelope(hub.owner.secret, actions=["submit"]))
    shown = json.loads(gu("grant", "check", str(file), "--json").out)
    assert (shown["serial"], shown["actions"]) == (5, ["submit"])
    text = gu("grant", "check", str(file)).out
    assert APP.public.text in text
    assert hub.asked == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-20], "damaged"),
        (lambda data: data.replace(b'"sig":"', b'"sig":"A'), "signature"),
        (lambda data: b"{}", "grant"),
        (lambda data: data + b" ", "canonical"),
    ],
)
def test_check_refuses_what_was_changed(
    hub: StandIn, tmp_path: Path, change: Any, said: str
) -> None:
    file = tmp_path / "grant.gu"
    file.write_bytes(change(envelope(hub.owner.secret)))
    assert said in refused("grant", "check", str(file))
    refused("grant", "put", str(file))
    assert hub.asked == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hub": secret(Kind.HUB, 2).public.text}, "for the hub"),
        ({"now": 1000, "expires": 2000}, "expired"),
        ({"now": 4e9}, "not valid yet"),
    ],
)
def test_check_refuses_what_does_not_count(
    hub: StandIn, tmp_path: Path, fields: Any, said: str
) -> None:
    file = tmp_path / "grant.gu"
    file.write_bytes(envelope(hub.owner.secret, **fields))
    assert said in refused("grant", "check", str(file))


def test_check_knows_owners_by_word(gu_home: Path, tmp_path: Path) -> None:
    owner = secret(Kind.OWNER)
    file = tmp_path / "grant.gu"
    file.write_bytes(envelope(owner))
    assert "--owner" in refused("grant", "check", str(file))
    gu("grant", "check", str(file), "--owner", owner.public.text)
    other = secret(Kind.OWNER, 2).public.text
    assert "nobody trusted" in refused("grant", "check", str(file), "--owner", other)


# --- looking and revoking ------------------------------------------------------------------------


def test_list(hub: StandIn) -> None:
    gu("grant", "create", "--app", APP.public.text, *USUAL)
    gu("grant", "create", "--app", OTHER_APP.public.text, "--expires", "30d")
    gu("grant", "revoke", "2")
    rows = {row["serial"]: row for row in json.loads(gu("grant", "list", "--json").out)}
    assert (rows[1]["state"], rows[2]["state"]) == ("valid", "revoked")
    assert rows[1]["grant"]["actions"] == ["submit"]
    header, *lines = gu("grant", "list").out.strip().splitlines()
    assert header.split()[:4] == ["SERIAL", "APP", "ISSUER", "STATE"]
    assert len(lines) == 2
    of_app = json.loads(gu("grant", "list", "--app", APP.public.text, "--json").out)
    assert [row["serial"] for row in of_app] == [1]


def test_show(hub: StandIn) -> None:
    gu("grant", "create", "--app", APP.public.text, *USUAL)
    shown = json.loads(gu("grant", "show", "1", "--json").out)
    assert shown["grant"]["quotas"]["memory"] == 4 * 2**30
    text = gu("grant", "show", "1").out
    for fact in (APP.public.text, "4 GiB", "valid", "submit", "never"):
        assert fact in text
    assert "no grant 9" in refused("grant", "show", "9")
    refused("grant", "show", "0", status=2)


def test_a_serial_of_two_issuers(hub: StandIn) -> None:
    other = secret(Kind.OWNER, 2)
    hub.bench.owners.append(other.public)
    hub.bench.start()
    hub.bench.ask(m.PutGrant(1, envelope(other, serial=1)))
    gu("grant", "create", "--app", APP.public.text)
    said = refused("grant", "revoke", "1")
    assert other.public.text in said
    assert hub.owner.public.text in said
    gu("grant", "revoke", "1", "--issuer", other.public.short)
    states = {row.issuer: row.state for row in hub.grants()}
    assert states == {other.public.text: "revoked", hub.owner.public.text: "valid"}


def test_revoke(hub: StandIn) -> None:
    hub.approve(APP)
    gu("grant", "create", "--app", APP.public.text, *USUAL)
    gu("grant", "revoke", "1", "--running", "finish", "--reason", "the project is over")
    question = hub.asked[-1]
    assert isinstance(question, m.RevokeGrant)
    assert (question.running, question.reason) == ("finish", "the project is over")
    assert not hub.bench.may(APP, "submit")
    assert "already" in gu("grant", "revoke", "1").err
    assert "no grant 7" in refused("grant", "revoke", "7")


def test_an_app_sees_its_own_grants_alone(hub: StandIn) -> None:
    mine = make_key(Kind.APP, "lab")
    hub.approve(mine.secret, "lab")
    gu("grant", "create", "--app", "lab", *USUAL)
    gu("grant", "create", "--app", OTHER_APP.public.text, *USUAL)
    rows = json.loads(gu("grant", "list", "--key", "lab", "--json").out)
    assert [row["app"] for row in rows] == [mine.public.text]
    assert "action" in refused("grant", "revoke", "1", "--key", "lab")
