# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One try: ask once, and put the answer into words."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from . import websocket
from .spec import ProbeSpec, ProbeSpecError

BODY_LIMIT = 1 << 20  # bytes that are read to look for body_pattern
EXCERPT = 200  # characters of an answer that are shown


@dataclass(frozen=True, kw_only=True)
class Answer:
    ok: bool
    words: str
    status: int | None = None


def tls_context(spec: ProbeSpec) -> ssl.SSLContext | None:
    if not spec.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=spec.ca_file)
    except OSError as error:
        raise ProbeSpecError(
            f"probe.ca_file {spec.ca_file} cannot be read: {in_words(error, spec.timeout)}."
        ) from error
    if not spec.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def attempt(spec: ProbeSpec, context: ssl.SSLContext | None) -> Answer:
    cut_off = threading.Event()
    try:
        with _connected(spec, context, cut_off) as stream:
            if spec.kind == "tcp":
                return Answer(ok=True, words="connected")
            return _http(spec, stream) if spec.kind == "http" else _websocket(spec, stream)
    except (OSError, http.client.HTTPException, websocket.WebSocketError) as error:
        if cut_off.is_set():
            return Answer(ok=False, words=f"connected, but no whole answer within {spec.timeout:g} s")
        return Answer(ok=False, words=in_words(error, spec.timeout))


@contextlib.contextmanager
def _connected(spec: ProbeSpec, context: ssl.SSLContext | None, cut_off: threading.Event) -> Iterator[socket.socket]:
    stream = socket.create_connection(spec.address(), timeout=spec.timeout)
    # A socket's time-out begins anew with every byte: a server that drips bytes would hold the try for ever.
    raw = socket.socket(fileno=os.dup(stream.fileno()))

    def end() -> None:
        cut_off.set()
        with contextlib.suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(spec.timeout, end)
    timer.daemon = True
    timer.start()
    try:
        if context is not None:
            stream = context.wrap_socket(stream, server_hostname=spec.server_name)
        yield stream
    finally:
        timer.cancel()
        stream.close()
        raw.close()


def _http(spec: ProbeSpec, stream: socket.socket) -> Answer:
    connection = http.client.HTTPConnection(spec.parts.hostname or "", timeout=spec.timeout)
    connection.sock = stream
    headers = {"Host": spec.host_header, "User-Agent": "selfhost.fleet probe", "Accept": "*/*", "Connection": "close"}
    names = {name.lower() for name in spec.headers}
    headers = {name: value for name, value in headers.items() if name.lower() not in names}
    connection.request("GET", spec.target, headers={**headers, **spec.headers})
    response = connection.getresponse()
    broken: int | None = None
    try:
        body = response.read(BODY_LIMIT)
        # Reading up to a limit does not notice an end that comes before Content-Length.
        if response.length and len(body) < BODY_LIMIT:
            broken = len(body)
    except http.client.IncompleteRead as error:
        broken = len(error.partial)
    if broken is not None:
        words = f"status {response.status}, but the body broke off after {broken} bytes"
        return Answer(ok=False, words=words, status=response.status)
    text = body.decode("utf-8", "replace")
    words = f"status {response.status}" + _excerpt(text)
    if response.status not in spec.status:
        target = response.getheader("Location")
        if target and 300 <= response.status < 400:
            words = f"status {response.status} to {target[:EXCERPT]} (redirects are not followed)"
        return Answer(ok=False, words=f"{words}; wanted {_statuses(spec)}", status=response.status)
    if spec.body_pattern is not None and not re.search(spec.body_pattern, text):
        return Answer(ok=False, words=f"{words}; the body does not match {spec.body_pattern!r}", status=response.status)
    return Answer(ok=True, words=words, status=response.status)


def _websocket(spec: ProbeSpec, stream: socket.socket) -> Answer:
    key = websocket.new_key()
    stream.sendall(websocket.request(target=spec.target, host=spec.host_header, key=key, headers=spec.headers))
    head, rest = _head(stream)
    status_line, *lines = head.decode("iso-8859-1").split("\r\n")
    found = re.match(r"HTTP/1\.[01] (\d{3})(?: |$)", status_line)
    if not found:
        return Answer(ok=False, words=f"not an HTTP answer: {status_line[:EXCERPT]!r}")
    status = int(found[1])
    if status != 101:
        words = f"status {status}{_excerpt(rest.decode('utf-8', 'replace'))}; wanted 101 Switching Protocols"
        return Answer(ok=False, words=words, status=status)
    websocket.check_upgrade(((name, value) for name, _colon, value in (line.partition(":") for line in lines)), key)
    connection = websocket.Connection(stream, rest)
    if spec.send is not None:
        connection.send_text(spec.send)
    words, ok = "status 101", True
    if spec.message_pattern is not None:
        text = connection.receive().decode("utf-8", "replace")
        words += ", first message: " + _clean(text)
        if not re.search(spec.message_pattern, text):
            words, ok = f"{words}; it does not match {spec.message_pattern!r}", False
    with contextlib.suppress(OSError):
        connection.close()
    return Answer(ok=ok, words=words, status=status)


def _head(stream: socket.socket) -> tuple[bytes, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = stream.recv(4096)
        if not chunk:
            raise websocket.WebSocketError(
                "the connection was closed without an answer"
                if not received
                else f"not a whole HTTP answer: {_clean(received.decode('utf-8', 'replace'))}"
            )
        received += chunk
        if len(received) > 65536:
            raise websocket.WebSocketError("the answer's headers are larger than 65536 bytes")
    head, _blank, rest = received.partition(b"\r\n\r\n")
    return head, rest


def in_words(error: Exception, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"the name was not found: {error.strerror}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, http.client.BadStatusLine):
        return f"not an HTTP answer: {_clean(str(error))}"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _statuses(spec: ProbeSpec) -> str:
    return " or ".join(str(status) for status in spec.status)


def _excerpt(text: str) -> str:
    return f", body: {_clean(text)}" if text.strip() else ", empty body"


def _clean(text: str) -> str:
    """One line without control characters, so that an answer cannot rewrite the operator's terminal."""
    line = "".join(char if char.isprintable() else " " for char in text[: EXCERPT * 4])
    line = " ".join(line.split())
    return line if len(line) <= EXCERPT else line[:EXCERPT] + "..."
