"""What goes wrong beside a site: programs that hold what it needs, and disks without room."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .host import Host

ANSWERS = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}')

HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
# Says that a megabyte is coming, and ends in the middle of it.
CUTS_OFF = """
import socket, ssl, sys

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
with socket.create_server(("0.0.0.0", int(sys.argv[3]))) as listener:
    while True:
        connection, _ = listener.accept()
        try:
            with context.wrap_socket(connection, server_side=True) as stream:
                stream.recv(65536)
                stream.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 1048576\\r\\n\\r\\n" + bytes(1000))
                stream.unwrap()
        except OSError as error:
            print(error, flush=True)
"""
HOLDS_LOCK = "import fcntl, sys, time; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); time.sleep(900)"
# Every connection that there is, those reserved for superusers too.
TAKES_CONNECTIONS = """
import psycopg, time

held = []
while True:
    try:
        held.append(psycopg.connect("host=/run/postgresql user=postgres dbname=postgres"))
    except psycopg.OperationalError:
        if not held:
            raise
        print("full", len(held), flush=True)
        time.sleep(900)
"""


@contextmanager
def unit(host: Host, name: str, *command: str, user: str = "root") -> Iterator[None]:
    """A program beside the site, which goes with the test."""
    host.root(["systemd-run", "--quiet", f"--unit={name}", f"--uid={user}", "--service-type=exec", *command])
    try:
        yield
    finally:
        host.root(["systemctl", "stop", f"{name}.service"])
        host.root(["systemctl", "reset-failed", f"{name}.service"], check=False)  # only where it had failed


@contextmanager
def small(host: Host, folder: str, room: str) -> Iterator[None]:
    """A small disk in the place of a folder, with what was in it and room for little more; what is written there stays."""
    host.root(
        f"size=$(du --summarize --block-size=4096 {folder} | cut -f1); mkdir /run/small; "
        f"mount -t tmpfs -o size=$(( (size + {room}) * 4096 )) tmpfs /run/small; cp --archive {folder}/. /run/small; "
        f"chmod --reference {folder} /run/small; chown --reference {folder} /run/small; mount --move /run/small {folder}"
    )
    try:
        yield
    finally:
        host.root(
            f"cp --archive {folder}/. /run/small; umount --lazy {folder}; find {folder} -mindepth 1 -delete; "
            f"cp --archive /run/small/. {folder}; rm -r /run/small"
        )


def fill(host: Host, folder: str) -> str:
    """Not a byte is left, for root neither; the file that took them."""
    host.root(f"cat /dev/zero > {folder}/filler", check=False)  # fails when the disk is full, which the next line asks
    assert int(host.root(f"stat --file-system --format %a {folder}").stdout) == 0
    return f"{folder}/filler"
