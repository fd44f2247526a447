"""Users with cookies, on a host of their own: which slot each of them has met, again and again, while something happened.

The file itself runs there, with python3 alone: each user keeps a connection and its cookies, and asks four times a second.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

INTERVAL = 0.25  # seconds


@dataclass
class Visits:
    """`met`: for each user the slots that it met, or the words of a failure; `cookies`: for each user the lines of Set-Cookie that it was sent."""

    met: list[list[str]] = field(default_factory=list)
    cookies: list[list[str]] = field(default_factory=list)

    def turns(self) -> list[list[str]]:
        """Each user's slots without repetition, in their order."""
        return [[slot for slot, _same in itertools.groupby(own)] for own in self.met]


@contextmanager
def visited(
    client: Any, address: str, authority: str, *, users: int = 20, domain: str = "fluxbase.test"
) -> Iterator[Visits]:
    """What they met is there afterwards."""
    visits = Visits()
    client.put("/root/visitors.py", Path(__file__).read_text())
    client.put("/root/visitors-ca.pem", authority)
    client.root("rm -f /root/visitors.stop /root/visitors.json")
    words = f"{address} {domain} /root/visitors-ca.pem /root/visitors.json /root/visitors.stop {users}"
    client.root(f"systemd-run --quiet --collect --unit=visitors python3 /root/visitors.py {words}")
    try:
        yield visits
    finally:
        client.root("touch /root/visitors.stop")
        client.root("while systemctl is-active --quiet visitors; do sleep 0.1; done", timeout=60)
    found = json.loads(client.read("/root/visitors.json"))
    visits.met += [user["met"] for user in found]
    visits.cookies += [user["cookies"] for user in found]


class User:
    """One of them."""

    def __init__(self, address: str, domain: str, trust: ssl.SSLContext) -> None:
        self.address, self.domain, self.trust = address, domain, trust
        self.jar: SimpleCookie = SimpleCookie()
        self.met: list[str] = []
        self.cookies: list[str] = []
        self.kept: http.client.HTTPSConnection | None = None

    def connected(self) -> http.client.HTTPSConnection:
        made = http.client.HTTPSConnection(self.domain, timeout=20, context=self.trust)
        plain = socket.create_connection((self.address, 443), timeout=20)
        made.sock = self.trust.wrap_socket(plain, server_hostname=self.domain)
        return made

    def ask(self, connection: http.client.HTTPSConnection) -> str:
        cookies = "; ".join(f"{name}={cookie.value}" for name, cookie in self.jar.items())
        # The page says who has made it, and asks nobody else.
        connection.request("GET", "/", headers={"Cookie": cookies} if cookies else {})
        answer = connection.getresponse()
        body = answer.read().decode()
        for line in answer.headers.get_all("Set-Cookie", []):
            self.cookies.append(line)
            self.jar.load(line)
        self.kept = None if answer.will_close else connection
        found = re.search(r'data-slot="(\w+)"', body)
        return found[1] if found and answer.status == 200 else f"status {answer.status}: {body[:100]}"

    def visit(self) -> str:
        try:
            try:
                return self.ask(self.kept or self.connected())
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                # A kept connection may be closed between two requests at any time: every client asks again over a new one.
                return self.ask(self.connected())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.kept = None
            return repr(error)

    def until(self, stop: Path) -> None:
        while not stop.exists():
            begun = time.monotonic()
            self.met.append(self.visit())
            time.sleep(max(0.0, INTERVAL - (time.monotonic() - begun)))


def main() -> None:
    address, domain, authority, report, stop, users = sys.argv[1:]
    trust = ssl.create_default_context(cafile=authority)
    all_of_them = [User(address, domain, trust) for _number in range(int(users))]
    threads = [threading.Thread(target=user.until, args=(Path(stop),)) for user in all_of_them]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    part = Path(f"{report}.part")
    part.write_text(json.dumps([{"met": user.met, "cookies": user.cookies} for user in all_of_them]))
    part.rename(report)


if __name__ == "__main__":
    main()
