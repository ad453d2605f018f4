"""What the command line reads and writes: sizes, pairs, durations, addresses."""

from __future__ import annotations

import json

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from guactors.cli import console, network, options
from guactors.cli.show import peers
from guactors.errors import GuactorsError
from guactors.hub_keys import hub_keys
from guactors.join import parse_join
from guactors.messages import Endpoint, PeerInfo
from guactors.transport.zmq_link import new_keypair


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("123", 123),
        ("1k", 1000),
        ("1KiB", 1024),
        ("1.5 GB", 1_500_000_000),
        ("4gib", 4 * 2**30),
        ("512MiB", 512 * 2**20),
        ("2T", 2 * 10**12),
    ],
)
def test_sizes_are_read(text: str, count: int) -> None:
    assert options.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "GB", "1XB", "-1", "1 2", "1e3", "0x10", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no size"):
        options.parse_size(text)


@given(st.integers(0, 2**50))
def test_a_size_shown_has_at_most_four_digits(count: int) -> None:
    number, unit = console.size(count).split()
    assert unit in {"B", "KiB", "MiB", "GiB", "TiB"}
    assert 1 <= float(number) <= 1024 or count == 0


def test_pairs() -> None:
    assert options.parse_pairs(["a=1", "b=x=y", "c="], "--label") == {
        "a": "1",
        "b": "x=y",
        "c": "",
    }
    for wrong in ("a", "=1", ""):
        with pytest.raises(typer.BadParameter, match="--label"):
            options.parse_pairs([wrong], "--label")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (59.9, "59.9 s"),
        (60, "1 min 0 s"),
        (7530, "2 h 5 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert console.span(seconds) == shown


def test_json_names_the_fields_of_nested_structs(capsys: pytest.CaptureFixture[str]) -> None:
    row = PeerInfo("p-1", "provider", "left", "up", "", 7, 1.0, 0.5, total={"CPU": 2.0})
    console.print_json([row])
    [shown] = json.loads(capsys.readouterr().out)
    assert shown["name"] == "left"
    assert shown["total"] == {"CPU": 2.0}
    assert set(shown) == set(PeerInfo.__struct_fields__)


def test_fail_says_one_line_and_ends_with_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        console.fail("the hub\tdid not\nanswer", 1)
    assert ended.value.code == 1
    captured = capsys.readouterr()
    assert captured.err == "gu: the hub did not\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    "text", ["localhost:1", "http://x:1", "tcp://x", "tcp://x:y", "tcp://x:70000"]
)
def test_a_wrong_listen_address_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="tcp://HOST:PORT"):
        network.check_tcp(text)


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("example.org", False),
    ],
)
def test_loopback(host: str, alone: bool) -> None:
    assert network.is_loopback(host) is alone


def test_the_join_address_names_a_host_that_others_can_dial() -> None:
    public, _ = new_keypair()
    keys = hub_keys()
    endpoints = [
        Endpoint("ipc:///run/hub", "ipc:///run/hub.d"),
        Endpoint("tcp://0.0.0.0:61621", "tcp://0.0.0.0:61621", server_key=public),
    ]
    joined = parse_join(network.join_address(endpoints, keys))
    assert joined.host not in {"0.0.0.0", ""}
    assert (joined.port, joined.transport) == (61621, public)
    assert (joined.hub, joined.owner) == (keys.seal.key, keys.owners[0])


def test_a_hub_without_tcp_has_no_join_address() -> None:
    with pytest.raises(typer.BadParameter, match="TCP"):
        network.join_address([Endpoint("ipc:///run/hub", "ipc:///run/hub")], hub_keys())


def test_no_grid_is_one_error_that_says_what_to_do() -> None:
    with pytest.raises(GuactorsError, match="gu up"):
        peers()
