"""WebSockets: who is connected, what they are told, and how they are dropped."""

from __future__ import annotations

import asyncio
import json

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Message, Ping
from wsproto.events import Request as UpgradeRequest
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from .http import READ_SIZE, Request

PING_INTERVAL = 15.0  # seconds
SLOW_CLIENT = 1024 * 1024  # bytes that wait for a client before it is dropped


class WebSocket:
    """One open WebSocket."""

    def __init__(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.path = request.path
        self.client = request.client
        self._reader, self._writer = reader, writer
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._protocol.initiate_upgrade_connection(request.raw_headers, request.target)

    def accept(self) -> None:
        """Complete the handshake.

        Raises:
            RemoteProtocolError: the client's handshake is none.
        """
        event = next(iter(self._protocol.events()), None)
        if not isinstance(event, UpgradeRequest):
            raise RemoteProtocolError("not a WebSocket handshake")
        self._writer.write(self._protocol.send(AcceptConnection()))

    def send(self, message: dict[str, object]) -> None:
        """Send one JSON message."""
        self._send(Message(data=json.dumps(message, default=str)))

    def ping(self) -> None:
        """Send a ping."""
        self._send(Ping())

    def drop(self) -> None:
        """End the connection without a close frame."""
        self._writer.transport.abort()

    async def listen(self) -> None:
        """Read until the client leaves; answer every message."""
        while True:
            data = await self._reader.read(READ_SIZE)
            self._protocol.receive_data(data or None)
            for event in self._protocol.events():
                if isinstance(event, CloseConnection):
                    if data:
                        self._writer.write(self._protocol.send(event.response()))
                    return
                if isinstance(event, Ping):
                    self._writer.write(self._protocol.send(event.response()))
                elif isinstance(event, Message) and event.message_finished:
                    self.send({"type": "ack", "echo": event.data})

    def _send(self, event: Message | Ping) -> None:
        if self._writer.transport.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > SLOW_CLIENT:
            self.drop()
            return
        try:
            self._writer.write(self._protocol.send(event))
        except LocalProtocolError:  # it is closing
            return


class Hub:
    """All open WebSockets."""

    def __init__(self, limit: int, limit_per_client: int) -> None:
        self.limit, self.limit_per_client = limit, limit_per_client
        self.open: set[WebSocket] = set()
        self.stopping = False

    def refusal(self, client: str) -> str | None:
        """Why this client gets no further WebSocket, if so. A limit of 0 is none."""
        if self.stopping:
            return "server is shutting down"
        if self.limit and len(self.open) >= self.limit:
            return "maximum connections reached"
        own = sum(1 for socket in self.open if socket.client == client)
        if self.limit_per_client and own >= self.limit_per_client:
            return "maximum connections per IP reached"
        return None

    def broadcast(self, message: dict[str, object]) -> None:
        """Tell everybody on /realtime."""
        for socket in list(self.open):
            if socket.path == "/realtime":
                socket.send(message)

    async def ping_for_ever(self) -> None:
        """Ping everybody, again and again."""
        while True:
            await asyncio.sleep(PING_INTERVAL)
            for socket in list(self.open):
                socket.ping()

    def drop_all(self) -> None:
        """Drop everybody, and take nobody any more."""
        self.stopping = True
        for socket in list(self.open):
            socket.drop()
