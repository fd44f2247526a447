# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of a WebSocket client (RFC 6455) as a probe needs: open, send one message, read one, close."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Iterable, Mapping
from typing import Protocol

# RFC 6455, section 1.3.
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
LIMIT = 1 << 20  # bytes of a message: a probe's answer is small, a stream of data is not an answer
MAX_FRAMES = 1000


class Stream(Protocol):
    def sendall(self, data: bytes, /) -> None: ...

    def recv(self, size: int, /) -> bytes: ...


class WebSocketError(Exception):
    """Not a WebSocket, or one that broke the protocol."""


def new_key() -> str:
    return base64.b64encode(os.urandom(16)).decode()


def accept_for(key: str) -> str:
    # SHA-1 is what the protocol prescribes; it proves that a WebSocket server answered, nothing more.
    return base64.b64encode(hashlib.sha1((key + GUID).encode(), usedforsecurity=False).digest()).decode()


def request(*, target: str, host: str, key: str, headers: Mapping[str, str]) -> bytes:
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def check_upgrade(headers: Iterable[tuple[str, str]], key: str) -> None:
    found = {name.lower(): value.strip() for name, value in headers}
    if found.get("upgrade", "").lower() != "websocket":
        raise WebSocketError("status 101 without 'Upgrade: websocket'")
    if "upgrade" not in [item.strip().lower() for item in found.get("connection", "").split(",")]:
        raise WebSocketError("status 101 without 'Connection: Upgrade'")
    accept = found.get("sec-websocket-accept")
    if accept != accept_for(key):
        raise WebSocketError(
            "status 101 without Sec-WebSocket-Accept"
            if accept is None
            else "status 101 with a wrong Sec-WebSocket-Accept: an answer to somebody else's request (a cache?)"
        )


def frame(opcode: int, payload: bytes) -> bytes:
    """One whole masked frame, as a client must send it."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x80 | opcode, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, size)
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


class Connection:
    """A connection after its handshake. `rest` is what came behind the handshake's last header."""

    def __init__(self, stream: Stream, rest: bytes = b"") -> None:
        self._stream = stream
        self._buffer = rest

    def send_text(self, text: str) -> None:
        self._stream.sendall(frame(TEXT, text.encode()))

    def close(self) -> None:
        self._stream.sendall(frame(CLOSE, struct.pack("!H", 1000)))

    def receive(self) -> bytes:
        """The next whole message; pings are answered meanwhile."""
        message = b""
        started = False
        for _frame in range(MAX_FRAMES):
            final, opcode, payload = self._frame()
            if opcode == PING:
                self._stream.sendall(frame(PONG, payload))
            elif opcode == CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
                reason = payload[2:].decode("utf-8", "replace")
                raise WebSocketError(f"the server closed with code {code}" + (f", {reason!r}" if reason else ""))
            elif opcode in (TEXT, BINARY, CONTINUATION):
                if started != (opcode == CONTINUATION):
                    raise WebSocketError("a message's frames came out of order")
                started = True
                message += payload
                if len(message) > LIMIT:
                    raise WebSocketError(f"the first message is larger than {LIMIT} bytes")
                if final:
                    return message
            elif opcode != PONG:
                raise WebSocketError(f"unknown frame type {opcode}")
        raise WebSocketError(f"no whole message in {MAX_FRAMES} frames")

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._take(2)
        final, opcode, size = bool(first & 0x80), first & 0x0F, second & 0x7F
        if first & 0x70:
            raise WebSocketError("the server uses an extension that was not agreed on")
        if second & 0x80:
            raise WebSocketError("the server masks its frames")
        if opcode >= CLOSE and (size > 125 or not final):
            raise WebSocketError("a control frame is too long or in pieces")
        if size == 126:
            size = struct.unpack("!H", self._take(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self._take(8))[0]
        if size > LIMIT:
            raise WebSocketError(f"the first message is larger than {LIMIT} bytes")
        return final, opcode, self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = self._stream.recv(65536)
            if not chunk:
                raise WebSocketError("the server ended the connection without a closing frame")
            self._buffer += chunk
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken
