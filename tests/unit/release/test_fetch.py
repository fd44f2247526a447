from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.release import fetch
from ansible_collections.selfhost.fleet.plugins.module_utils.release.model import ReleaseError

from ..probe.servers import Handler, answer, certificate, says, server

BODY = bytes(range(256)) * 4096
CHECKSUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"

Download = Callable[[Handler], tuple[Path, list[float]]]


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Download]:
    tls, trusted = certificate(tmp_path, "localhost")
    monkeypatch.setenv("no_proxy", "*")
    slept: list[float] = []

    def run(handler: Handler) -> tuple[Path, list[float]]:
        target = tmp_path / "target"
        with server(handler, tls) as port:
            context = ssl.create_default_context(cafile=str(trusted))
            address = f"https://localhost:{port}/prog?token=word"
            fetch.download(address, target, CHECKSUM, context=context, sleep=slept.append)
        return target, slept

    yield run


def test_download(download: Download) -> None:
    target, slept = download(says(answer("200 OK", BODY)))
    assert (target.read_bytes(), slept) == (BODY, [])


def test_a_redirect_to_another_https_address_is_followed(download: Download) -> None:
    def handler(connection: socket.socket, head: bytes) -> None:
        host = head.decode().split("Host: ")[1].split("\r\n")[0]
        moved = answer("302 Found", b"", f"Location: https://{host}/elsewhere")
        connection.sendall(moved if b"/prog" in head.split(b"\r\n")[0] else answer("200 OK", BODY))

    assert download(handler)[0].read_bytes() == BODY


def test_a_redirect_to_http_is_not(download: Download) -> None:
    with pytest.raises(ReleaseError, match="an address without TLS"):
        download(says(answer("302 Found", b"", "Location: http://localhost/prog")))


def test_cut_off_once_is_tried_again(download: Download) -> None:
    whole = answer("200 OK", BODY)
    target, slept = download(says(whole[:1000], whole))
    assert (target.read_bytes(), slept) == (BODY, [2.0])


def test_cut_off_again_and_again(download: Download) -> None:
    with pytest.raises(ReleaseError, match=r"/prog was cut off after \d+ of 1048576 bytes") as caught:
        download(says(answer("200 OK", BODY)[:600000]))
    assert "word" not in str(caught.value), "a query may be a secret"


def test_another_file_is_not_asked_for_twice(download: Download) -> None:
    asked: list[bytes] = []

    def handler(connection: socket.socket, head: bytes) -> None:
        asked.append(head)
        connection.sendall(answer("200 OK", b"another"))

    with pytest.raises(ReleaseError, match=f"has the checksum sha256:[0-9a-f]{{64}}, and {CHECKSUM} was asked for"):
        download(handler)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [("404 Not Found", "status 404 .Not Found.. Is there such a version"), ("503 Away", "status 503")],
)
def test_refused(download: Download, status: str, words: str) -> None:
    with pytest.raises(ReleaseError, match=words):
        download(says(answer(status)))


def test_an_unknown_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, _trusted = certificate(tmp_path, "localhost")
    monkeypatch.setenv("no_proxy", "*")
    with (
        server(says(answer("200 OK", BODY)), tls) as port,
        pytest.raises(ReleaseError, match="cannot be trusted: self-signed"),
    ):
        fetch.download(f"https://localhost:{port}/prog", tmp_path / "target", CHECKSUM, sleep=lambda _: None)


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(ReleaseError, match="cannot be fetched by this host: Connection refused"):
        fetch.download("https://127.0.0.1:1/prog", tmp_path / "target", CHECKSUM, sleep=lambda _: None)


def test_a_full_disk_is_not_the_networks_fault(download: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetch, "_pour", full)
    with pytest.raises(OSError, match="No space left"):
        download(says(answer("200 OK", BODY)))
