"""HTTP/1.1 over asyncio streams: enough of it for a proxy in front, with upgrades, streams and bodies of any size."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

KEPT_BODY = 1024 * 1024  # bytes; of a longer body only the size is known
READ_SIZE = 64 * 1024
IDLE_TIMEOUT = 120.0  # seconds


@dataclass
class Request:
    """One request. Its client is the TCP peer: the program reads no proxy headers."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    client: str
    raw_headers: list[tuple[bytes, bytes]]
    target: bytes
    body: bytes = b""
    body_size: int = 0

    def json(self) -> dict[str, Any]:
        """Read the body as a JSON object; anything else is an empty one."""
        try:
            content = json.loads(self.body or b"{}")
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def wants_websocket(self) -> bool:
        """Whether the client asks for a WebSocket."""
        return self.headers.get("upgrade", "").lower() == "websocket"


@dataclass
class Response:
    """One answer: a body, or a stream of pieces."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: list[tuple[str, str]] = field(default_factory=list)
    stream: AsyncIterator[bytes] | None = None


def answer(status: int, content: object) -> Response:
    """Answer with JSON."""
    return Response(status, json.dumps(content, default=str).encode())


Handler = Callable[[Request], Awaitable[Response]]
Upgrader = Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Response | None]]


class HttpConnection:
    """One client's connection, from its first request to its last."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler, upgrader: Upgrader | None
    ) -> None:
        self.reader, self.writer = reader, writer
        self.handler, self.upgrader = handler, upgrader
        self.protocol = h11.Connection(h11.SERVER)
        peer = writer.get_extra_info("peername")
        self.client = str(peer[0]) if peer else ""

    async def serve(self) -> None:
        """Answer requests until one side has had enough."""
        try:
            while await self._exchange():
                self.protocol.start_next_cycle()
        except (ConnectionError, TimeoutError, h11.RemoteProtocolError, h11.LocalProtocolError):
            pass  # a client that went away or talks nonsense is its own affair
        finally:
            self.writer.close()

    async def _exchange(self) -> bool:
        request = await self._read_request()
        if request is None:
            return False
        if request.wants_websocket and self.upgrader:
            response = await self.upgrader(request, self.reader, self.writer)
            if response is None:
                return False
        else:
            response = await self.handler(request)
        await self._send(request, response)
        return self.protocol.our_state is h11.DONE and self.protocol.their_state is h11.DONE

    async def _next_event(self) -> Any:
        while True:
            event = self.protocol.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self.protocol.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            async with asyncio.timeout(IDLE_TIMEOUT):
                data = await self.reader.read(READ_SIZE)
            self.protocol.receive_data(data)

    async def _read_request(self) -> Request | None:
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return None
        parts = urlsplit(event.target.decode("latin-1"))
        request = Request(
            method=event.method.decode(),
            path=unquote(parts.path),
            query=dict(parse_qsl(parts.query)),
            headers={name.decode(): value.decode("latin-1") for name, value in event.headers},
            client=self.client,
            raw_headers=list(event.headers),
            target=event.target,
        )
        if request.wants_websocket and self.upgrader:
            return request
        while isinstance(event := await self._next_event(), h11.Data):
            request.body_size += len(event.data)
            if request.body_size <= KEPT_BODY:
                request.body += event.data
        return request if isinstance(event, h11.EndOfMessage) else None

    async def _send(self, request: Request, response: Response) -> None:
        headers = [("Content-Type", response.content_type), ("Cache-Control", "no-store"), *response.headers]
        if response.stream is None:
            headers.append(("Content-Length", str(len(response.body))))
        await self._write(
            h11.Response(status_code=response.status, headers=headers, reason=HTTPStatus(response.status).phrase)
        )
        if request.method != "HEAD":
            if response.stream is not None:
                async for piece in response.stream:
                    await self._write(h11.Data(data=piece))
            elif response.body:
                await self._write(h11.Data(data=response.body))
        await self._write(h11.EndOfMessage())

    async def _write(self, event: Any) -> None:
        self.writer.write(self.protocol.send(event) or b"")
        await self.writer.drain()
