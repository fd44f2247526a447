from __future__ import annotations

import socket
import ssl
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.probe import ProbeResult, ProbeSpec, probe
from ansible_collections.selfhost.fleet.plugins.module_utils.probe.websocket import accept_for, frame, new_key

from .servers import answer, certificate, says, server


def ask(kind: str, url: str, **options: Any) -> ProbeResult:
    return probe(ProbeSpec.from_mapping({"kind": kind, "url": url, "deadline": 0, **options}))


# HTTP


@pytest.mark.parametrize(
    ("reply", "options", "ok", "words"),
    [
        (answer("200 OK", b"fine"), {}, True, "status 200, body: fine"),
        (answer("204 No Content"), {}, False, "status 204, empty body; wanted 200"),
        (answer("204 No Content"), {"status": [200, 204]}, True, "status 204"),
        (answer("503 Away", b"degraded"), {}, False, "status 503, body: degraded; wanted 200"),
        (answer("302 Found", b"", "Location: /login"), {}, False, "status 302 to /login (redirects are not followed)"),
        (answer("302 Found", b"", "Location: /login"), {"status": [302]}, True, "status 302"),
        (answer("200 OK", b'{"status": "ok"}'), {"body_pattern": r'"status":\s*"ok"'}, True, "status 200"),
        (answer("200 OK", b"bad"), {"body_pattern": "^ok$"}, False, "the body does not match '^ok$'"),
        (answer("500 X", b"x" * 300), {}, False, "x" * 200 + "..."),
        (answer("500 X", b"a\x1b[2Jb\nc"), {}, False, "body: a [2Jb c"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour", {}, False, "broke off after 4 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nfour", {}, False, "broke off"),
        (b"", {}, False, "closed without an answer"),
        (b"220 mail ready\r\n", {}, False, "not an HTTP answer: 220 mail ready"),
    ],
)
def test_http(reply: bytes, options: dict[str, Any], ok: bool, words: str) -> None:
    with server(says(reply)) as port:
        result = ask("http", f"http://127.0.0.1:{port}/health?full=1", **options)
    assert result.ok is ok, result.message
    assert words in result.last
    assert result.tries == 1


def test_what_is_sent() -> None:
    heads: list[str] = []

    def handler(connection: socket.socket, head: bytes) -> None:
        heads.append(head.decode())
        connection.sendall(answer("200 OK"))

    with server(handler) as port:
        ask(
            "http",
            f"http://api.example.com:{port}/a?b=1",
            connect_to="127.0.0.1",
            headers={"X-A": "1", "Accept": "a/b"},
        )
        ask("http", f"http://127.0.0.1:{port}", host="api.example.com")
        ask("http", "http://api.example.com/", connect_to=f"127.0.0.1:{port}")
    first, second, third = heads
    assert first.startswith("GET /a?b=1 HTTP/1.1\r\n")
    assert f"Host: api.example.com:{port}\r\n" in first
    assert "X-A: 1\r\n" in first
    assert first.count("Accept: ") == 1
    assert second.startswith("GET / ") and "Host: api.example.com\r\n" in second
    assert "Host: api.example.com\r\n" in third


def test_an_answer_that_drips_is_cut_off_as_a_whole() -> None:
    def handler(connection: socket.socket, _head: bytes) -> None:
        for _turn in range(100):
            connection.sendall(b"H")
            time.sleep(0.05)

    begin = time.monotonic()
    with server(handler) as port:
        result = ask("http", f"http://127.0.0.1:{port}/", timeout=0.3)
        assert time.monotonic() - begin < 1.5
    assert "no whole answer within 0.3 s" in result.last


def test_tls(tmp_path: Path) -> None:
    context, trusted = certificate(tmp_path, "api.example.com")
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    with server(says(answer("200 OK")), context) as port:
        detour = {"connect_to": f"127.0.0.1:{port}", "ca_file": str(trusted)}
        assert ask("http", "https://api.example.com/", **detour).ok
        assert ask("http", f"https://127.0.0.1:{port}/", host="api.example.com", ca_file=str(trusted)).ok
        other = ask("http", "https://www.example.com/", **detour)
        assert "the certificate is not valid: Hostname mismatch" in other.last
        unknown = ask("http", "https://api.example.com/", connect_to=f"127.0.0.1:{port}")
        assert "the certificate is not valid: self-signed certificate" in unknown.last
        assert ask("http", f"https://127.0.0.1:{port}/", verify=False).ok
    assert names[:3] == ["api.example.com", "api.example.com", "www.example.com"]


def test_tls_where_there_is_none() -> None:
    with server(says(b"HTTP/1.1 400 Bad\r\n\r\n")) as port:
        assert "TLS failed" in ask("http", f"https://127.0.0.1:{port}/", timeout=1).last


def test_a_ca_file_that_is_not_there_ends_it_before_any_try() -> None:
    result = ask("http", "https://127.0.0.1:1/", ca_file="/absent.pem", deadline=60)
    assert (result.tries, result.message) == (0, "probe.ca_file /absent.pem cannot be read: no such file or directory.")


# TCP


def test_tcp() -> None:
    with server(says(b"")) as port:
        assert ask("tcp", f"tcp://127.0.0.1:{port}").ok
        free = socket.create_server(("127.0.0.1", 0))
        closed = free.getsockname()[1]
        free.close()
    result = ask("tcp", f"tcp://127.0.0.1:{closed}")
    assert result.message == (
        f"connect to tcp://127.0.0.1:{closed} failed: 1 try over 0.0 s. Last answer: connection refused."
    )


def test_a_name_that_is_not_known() -> None:
    assert "the name was not found" in ask("tcp", "tcp://absent.invalid:1").last


# WebSocket


def upgrade(head: bytes, *, accept: str | None = None, connection: str = "Upgrade") -> bytes:
    sent = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if ": " in line)
    assert sent["Sec-WebSocket-Version"] == "13"
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: WebSocket",
        f"Connection: {connection}",
        f"Sec-WebSocket-Accept: {accept or accept_for(sent['Sec-WebSocket-Key'])}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def from_server(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    size = len(payload)
    head = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        return head + bytes([size]) + payload
    if size < 1 << 16:
        return head + b"\x7e" + struct.pack("!H", size) + payload
    return head + b"\x7f" + struct.pack("!Q", size) + payload


def talk(*frames: bytes, received: list[bytes] | None = None, apart: bool = False, **handshake: Any) -> Any:
    def handler(connection: socket.socket, head: bytes) -> None:
        connection.sendall(upgrade(head, **handshake) + (b"" if apart else b"".join(frames)))
        if apart:
            for byte in b"".join(frames):
                connection.sendall(bytes([byte]))
        while chunk := connection.recv(4096):
            if received is not None:
                received.append(chunk)

    return handler


def unmask(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        size, mask, payload = data[1] & 0x7F, data[2:6], data[6:]
        assert data[1] & 0x80, "a client masks"
        found.append((data[0] & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload[:size]))))
        data = payload[size:]
    return found


def test_accept_is_that_of_the_rfc() -> None:
    assert accept_for("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert len(new_key()) == 24


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_frames_of_every_length(size: int) -> None:
    sent = frame(0x1, bytes(size))
    assert len(sent) == size + 4 + {True: 2, False: 4 if size < 65536 else 10}[size < 126]


@pytest.mark.parametrize(
    ("frames", "options", "ok", "words"),
    [
        ([], {}, True, "status 101"),
        ([from_server(1, b"hello")], {"message_pattern": "^hel"}, True, "first message: hello"),
        ([from_server(2, b"hello")], {"message_pattern": "^hel"}, True, "first message: hello"),
        ([from_server(1, b"no")], {"message_pattern": "^hel"}, False, "first message: no; it does not match '^hel'"),
        (
            [from_server(1, b"he", final=False), from_server(9, b"p"), from_server(0, b"llo")],
            {"message_pattern": "hello"},
            True,
            "",
        ),
        ([from_server(1, b"x" * 300)], {"message_pattern": "x{300}"}, True, ""),
        ([from_server(1, b"x" * 70000)], {"message_pattern": "x{70000}"}, True, ""),
        (
            [from_server(1, b"x" * 70000)[:10].replace(b"\0\0\0\0\0\1", b"\1\0\0\0\0\1")],
            {"message_pattern": "x"},
            False,
            "larger than",
        ),
        (
            [from_server(8, struct.pack("!H", 1008) + b"not you")],
            {"message_pattern": "x"},
            False,
            "closed with code 1008, 'not you'",
        ),
        ([from_server(8, b"")], {"message_pattern": "x"}, False, "closed with code 1005"),
        ([from_server(0, b"x")], {"message_pattern": "x"}, False, "out of order"),
        ([b"\xc1\x01x"], {"message_pattern": "x"}, False, "an extension that was not agreed on"),
        ([b"\x81\x81aaaax"], {"message_pattern": "x"}, False, "masks its frames"),
        ([b"\x83\x01x"], {"message_pattern": "x"}, False, "unknown frame type 3"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_websocket(frames: list[bytes], options: dict[str, Any], ok: bool, words: str, apart: bool) -> None:
    apart = apart and sum(map(len, frames)) < 1000
    with server(talk(*frames, apart=apart)) as port:
        result = ask("websocket", f"ws://127.0.0.1:{port}/realtime", timeout=3, **options)
    assert result.ok is ok, result.message
    assert words in result.last


def test_websocket_sends_its_message_answers_a_ping_and_says_good_bye() -> None:
    received: list[bytes] = []
    frames = (from_server(9, b"are you there"), from_server(1, b"pong"))
    with server(talk(*frames, received=received)) as port:
        assert ask("websocket", f"ws://127.0.0.1:{port}/", send='{"type": "ping"}', message_pattern="pong").ok
    assert unmask(b"".join(received)) == [(1, b'{"type": "ping"}'), (10, b"are you there"), (8, b"\x03\xe8")]


@pytest.mark.parametrize(
    ("handshake", "words"),
    [({"accept": "wrong"}, "a wrong Sec-WebSocket-Accept"), ({"connection": "close"}, "without 'Connection: Upgrade'")],
)
def test_a_handshake_that_is_none(handshake: dict[str, Any], words: str) -> None:
    with server(talk(**handshake)) as port:
        assert words in ask("websocket", f"ws://127.0.0.1:{port}/").last


def test_a_server_without_websockets() -> None:
    with server(says(answer("404 Not Found", b"no such page"))) as port:
        result = ask("websocket", f"ws://127.0.0.1:{port}/realtime")
    assert (result.status, result.last) == (404, "status 404, body: no such page; wanted 101 Switching Protocols")


def test_silence_after_the_handshake() -> None:
    with server(talk()) as port:
        result = ask("websocket", f"ws://127.0.0.1:{port}/", message_pattern="x", timeout=0.3)
    assert "within 0.3 s" in result.last


def test_websocket_over_tls(tmp_path: Path) -> None:
    context, trusted = certificate(tmp_path, "api.example.com")
    assert isinstance(context, ssl.SSLContext)
    with server(talk(from_server(1, b"hello")), context) as port:
        url = f"wss://api.example.com:{port}/realtime"
        assert ask("websocket", url, connect_to="127.0.0.1", ca_file=str(trusted), message_pattern="hello").ok
