"""The options of ``--http``: what they refuse before anything is started, and what they hand on."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from guactors.cli.web import WebOptions, web_options
from guactors.errors import UsageError
from guactors.messages import Endpoint
from guactors.web.settings import WebConfig

HUB = Endpoint("ipc:///run/hub", "ipc:///run/hub.d", host="here")


def options(http: str | None, **fields: Any) -> WebOptions | None:
    given = {"names": None, "cert": None, "key": None, **fields}
    return web_options(http, given["names"], given["cert"], given["key"])


def test_without_http_there_is_none() -> None:
    assert options(None) is None


@pytest.mark.parametrize("field", ["names", "cert", "key"])
def test_the_rest_needs_http(field: str) -> None:
    with pytest.raises(UsageError, match="need --http"):
        options(None, **{field: ["x"] if field == "names" else "x"})


@pytest.mark.parametrize(
    ("http", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("tcp://127.0.0.1:0", "127.0.0.1", 0),
        ("localhost:0", "localhost", 0),
        ("127.0.0.1:*", "127.0.0.1", 0),
    ],
)
def test_an_address_of_this_machine_is_enough(http: str, host: str, port: int) -> None:
    found = options(http, names=["grid"])
    assert found is not None
    config = msgspec.msgpack.decode(found.settings([HUB]), type=WebConfig)
    assert config == WebConfig([HUB], host, port, ["grid"])


@pytest.mark.parametrize("http", ["", "61622", "host", "::1:80", "127.0.0.1:x", "127.0.0.1:99999"])
def test_what_is_no_address_is_named(http: str) -> None:
    with pytest.raises(UsageError, match=r"takes HOST:PORT"):
        options(http)


@pytest.mark.parametrize(
    "http", ["0.0.0.0:0", "*:0", "[::]:0", "192.0.2.7:0", "grid.example.org:0"]
)
def test_plain_http_is_for_this_machine(http: str) -> None:
    with pytest.raises(UsageError, match=r"plain HTTP only on this machine.*--http-cert"):
        options(http)


def test_a_certificate_opens_it_to_others(tmp_path: Path) -> None:
    pem = tmp_path / "cert.pem"
    pem.touch()
    found = options("0.0.0.0:0", cert=str(pem), key=str(pem))
    assert found is not None
    assert (found.cert, found.key) == (str(pem), str(pem))


def test_a_certificate_is_found_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may run in another directory than the command."""
    monkeypatch.chdir(tmp_path)
    Path("cert.pem").touch()
    found = options("127.0.0.1:0", cert="cert.pem")
    assert found is not None
    assert found.cert == str(tmp_path / "cert.pem")


def test_files_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        options("127.0.0.1:0", cert=str(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match="needs the certificate"):
        options("127.0.0.1:0", key=str(tmp_path / "none.pem"))


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"127.0.0.1:{port}.*--http"):
            options(f"127.0.0.1:{port}")


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'guactors\[web\]'"):
        options("127.0.0.1:0")
