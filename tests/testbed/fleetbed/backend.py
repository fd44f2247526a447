"""A service for tests of the edge: says what reached it, answers in parts, and talks over WebSockets. Runs on a host with python3 alone."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GO_ON = threading.Event()
ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/stream"):
            self.stream()
        elif self.path == "/live":
            self.live()
        else:
            if self.path == "/go-on":
                GO_ON.set()
            self.seen()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen()

    def seen(self) -> None:
        """The request as it came, and over which connection."""
        found = {
            "connection": self.client_address[1],
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self) -> None:
        """The second part comes when somebody has asked for /go-on, and not before."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"6\r\nfirst\n\r\n")
        GO_ON.wait(60)
        self.wfile.write(b"7\r\nsecond\n\r\n0\r\n\r\n")

    def live(self) -> None:
        """Each short message comes back as it was."""
        accept = base64.b64encode(hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + ACCEPT).digest())
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        self.wfile.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        self.close_connection = True
        while len(head := self.rfile.read(2)) == 2:
            mask, size = self.rfile.read(4), head[1] & 127
            text = bytes(byte ^ mask[index % 4] for index, byte in enumerate(self.rfile.read(size)))
            self.wfile.write(bytes((head[0], size)) + text)

    def log_message(self, *_words: object) -> None:
        """Nothing: nginx logs."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8900), Handler).serve_forever()
