"""Clients that never pause, on a host of their own: what their users would have seen while something happened.

The file itself runs there, with python3 alone: ten times a second a row is written over a new connection, and all are read over one that is kept.
And one upload comes slowly, after the other.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def asked_constantly(client: Any, address: str, authority: str, domain: str = "fluxbase.test") -> Iterator[list[Any]]:
    """Answers as (seconds since the epoch, HTTP status or the words of a failure) are in the list afterwards."""
    answers: list[Any] = []
    client.put("/root/constant.py", Path(__file__).read_text())
    client.put("/root/constant-ca.pem", authority)
    client.root("rm -f /root/constant.stop /root/constant.json")
    words = f"{address} {domain} /root/constant-ca.pem /root/constant.json /root/constant.stop"
    client.root(f"systemd-run --quiet --collect --unit=constant python3 /root/constant.py {words}")
    try:
        yield answers
    finally:
        client.root("touch /root/constant.stop")
        client.root("while systemctl is-active --quiet constant; do sleep 0.1; done", timeout=60)
    answers += map(tuple, json.loads(client.read("/root/constant.json")))


class Clients:
    """All of them."""

    def __init__(self, address: str, domain: str, authority: str, stop: Path) -> None:
        self.address, self.domain, self.stop = address, domain, stop
        self.trust = ssl.create_default_context(cafile=authority)
        self.kept: dict[int, http.client.HTTPSConnection] = {}
        self.answers: list[tuple[float, int | str]] = []

    def connected(self) -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection(self.domain, timeout=20, context=self.trust)
        plain = socket.create_connection((self.address, 443), timeout=20)
        made.sock = self.trust.wrap_socket(plain, server_hostname=self.domain)
        return made

    @staticmethod
    def ask(connection: http.client.HTTPSConnection, method: str, body: str | None = None) -> tuple[int, bool]:
        headers = {"Content-Type": "application/json"} if body else {}
        connection.request(method, "/api/v1/items", body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, bool(answer.will_close)

    def write(self) -> int:
        connection = self.connected()
        status, _closes = self.ask(connection, "POST", json.dumps({"body": "constant"}))
        connection.close()
        return status

    def upload(self) -> int:
        """A row that takes four seconds to come; nginx has it as a whole before it asks the service."""
        body = json.dumps({"body": "uploaded"}).encode()
        connection = self.connected()
        connection.putrequest("POST", "/api/v1/items")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(4 * 1024 + len(body)))
        connection.endheaders()
        for _part in range(4):
            connection.send(b" " * 1024)
            time.sleep(1)
        connection.send(body)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def read(self) -> int:
        own = threading.get_ident()
        try:
            connection = self.kept.get(own) or self.connected()
            status, closes = self.ask(connection, "GET")
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # A kept connection may be closed between two requests at any time: every client asks again over a new one.
            connection = self.connected()
            status, closes = self.ask(connection, "GET")
        self.kept[own] = connection
        if closes:
            self.kept.pop(own).close()
        return status

    def constantly(self, what: Callable[[], int]) -> None:
        while not self.stop.exists():
            begun = time.time()
            found: int | str
            try:
                found = what()
            except (OSError, http.client.HTTPException) as error:
                found = repr(error)
            self.answers.append((begun, found))
            time.sleep(max(0.0, 0.1 - (time.time() - begun)))


def main() -> None:
    address, domain, authority, report, stop = sys.argv[1:]
    clients = Clients(address, domain, authority, Path(stop))
    threads = [
        threading.Thread(target=clients.constantly, args=(what,))
        for what in (clients.write, clients.write, clients.read, clients.read, clients.upload)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    part = Path(f"{report}.part")
    part.write_text(json.dumps(clients.answers))
    part.rename(report)


if __name__ == "__main__":
    main()
