"""The README's first command, as somebody types it who has just cloned the project; with a host of its own beside a demo that may be there."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from http.client import HTTPSConnection

import pytest
from fleetbed.host import hosts
from fleetbed.paths import REPOSITORY

NAME = f"test-{os.getpid()}-demo"
DOMAIN = "fluxbase.localhost"


def make(target: str, port: int) -> str:
    # What an outer make, or the shell that started the tests, has set is not what a new user has.
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "FLUXBASE"))
    }
    command = ["make", target, f"DEMO_HOST={NAME}", f"DEMO_PORT={port}"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answer(port: int, path: str) -> str:
    """Through the port that is open on this machine, by the authority that the demo names. Browsers look below localhost by themselves."""
    trust = ssl.create_default_context(cafile=str(REPOSITORY / ".cache" / "local-ca" / "ca.pem"))
    connection = HTTPSConnection(DOMAIN, port, context=trust)
    connection.sock = trust.wrap_socket(
        socket.create_connection(("127.0.0.1", port), timeout=20), server_hostname=DOMAIN
    )
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 200
    return response.read().decode()


@pytest.fixture(scope="module")
def demo() -> Iterator[tuple[int, str]]:
    """The port, and what the command printed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        yield port, make("demo", port)
    finally:
        make("demo-down", port)
        assert NAME not in {host.name for host in hosts()}


def test_it_ends_with_an_address_that_answers(demo: tuple[int, str]) -> None:
    port, printed = demo
    assert f"https://{DOMAIN}:{port}/" in printed
    assert "failed=0" in printed and "healthy" in printed
    assert json.loads(answer(port, "/health"))["status"] == "ok"
    assert "<title>Fluxbase" in answer(port, "/")


def test_once_more_it_changes_nothing(demo: tuple[int, str]) -> None:
    port, _printed = demo
    assert "changed=0" in make("demo", port)
