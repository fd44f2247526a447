"""nginx between users and a service: limits per client, sizes, streams, WebSockets over a reload, kept connections, the log."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fleetbed import backend
from fleetbed.host import Host
from fleetbed.runner import Ansible

DOMAIN = "notes.test"
TLS = f"/etc/selfhost/tls/{DOMAIN}"
LOG = "/var/log/nginx/access.log"
ROLE = [
    {"hosts": "all", "gather_facts": False, "tasks": [{"include_role": {"name": "selfhost.fleet.edge"}}]},
]
CONNECTIONS = 5  # that one client may have
# Says each answer at once; ends when the connection does.
TALK = """
import asyncio, ssl, sys
from websockets.asyncio.client import connect

async def main():
    trust = ssl.create_default_context(cafile="/root/edge.pem")
    async with connect(f"wss://{sys.argv[2]}/live", host=sys.argv[1], port=443, ssl=trust, server_hostname=sys.argv[2], ping_interval=None) as made:
        number = 0
        async def ask():
            nonlocal number
            while True:
                number += 1
                await made.send(str(number))
                await asyncio.sleep(0.2)
        asking = asyncio.create_task(ask())
        async for text in made:
            print(text, flush=True)
        asking.cancel()

asyncio.run(main())
"""


def slice_of(host: Host) -> dict[str, Any]:
    route = {"match": "prefix", "kind": "http", "upstream": "notes", "timeout": 60, "limit": None, "body_limit": None}
    route |= {"login": None}
    site = {
        "name": "notes",
        "domains": [DOMAIN],
        "certificate": TLS,
        "upstreams": [{"name": "notes", "keepalive": 4, "servers": [{"address": "127.0.0.1", "port": 8900}]}],
        "body_limit": "8k",
        "connections_per_client": CONNECTIONS,
        "limits": [{"name": "notes_few", "rate": "1r/m"}],
        "routes": [
            {**route, "path": "/few", "limit": {"name": "notes_few", "burst": 2}},
            {**route, "path": "/small", "body_limit": "1k"},
            {**route, "path": "/stream", "kind": "streaming", "timeout": 3600},
            {**route, "path": "/live", "kind": "websocket", "timeout": 3600},
            {**route, "path": "/"},
        ],
    }
    return {"fleet": {"os": host.os, "edge": {"sites": [site]}, "certificates": []}}


@pytest.fixture(scope="module", params=["debian-13", "debian-12"])
def edge(request: pytest.FixtureRequest, new_host: Any, client: Host, tmp_path_factory: Any) -> Iterator[Host]:
    made: Host = new_host("edge", os=request.param)
    install = "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; apt-get install -qy --no-install-recommends"
    made.root(f"{install} nginx openssl", timeout=300)
    made.root(
        f"mkdir -p {TLS} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 "
        f"-subj /CN={DOMAIN} -addext subjectAltName=DNS:{DOMAIN} -keyout {TLS}/privkey.pem -out {TLS}/fullchain.pem"
    )
    made.put("/root/backend.py", Path(backend.__file__).read_text())
    made.root("systemd-run --quiet --unit=notes python3 /root/backend.py")
    Ansible(tmp_path_factory.mktemp("edge")).playbook(ROLE, [made], variables=slice_of(made))
    client.put("/root/edge.pem", made.read(f"{TLS}/fullchain.pem"))
    yield made


def curl(client: Host, edge: Host, *paths: str, address: str = "", options: tuple[str, ...] = ()) -> list[str]:
    """Bodies, or what `options` has written, of requests over one connection."""
    to = address or edge.address
    command = ["curl", "--silent", "--max-time", "20", "--cacert", "/root/edge.pem"]
    command += ["--resolve", f"{DOMAIN}:443:{to if ':' not in to else f'[{to}]'}", *options]
    return client.root([*command, *(f"https://{DOMAIN}{path}" for path in paths)]).stdout.splitlines()


def statuses(client: Host, edge: Host, path: str, count: int, address: str = "") -> Counter[str]:
    written = ("--output", "/dev/null", "--write-out", "%{http_code}\n")
    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(lambda _: curl(client, edge, path, address=address, options=written)[0], range(count)))


def logged(edge: Host) -> list[dict[str, Any]]:
    return [json.loads(line) for line in edge.read(LOG).splitlines()]


def test_a_limit_is_each_client_s_own(edge: Host, client: Host, new_host: Any) -> None:
    assert statuses(client, edge, "/few", 6) == {"200": 3, "429": 3}
    headers = curl(client, edge, "/few", options=("--output", "/dev/null", "--dump-header", "-"))
    assert "retry-after: 1" in [line.lower().strip() for line in headers]
    # The same client by its other address is another one: nobody can tell. A client that has asked for nothing has its whole share.
    assert statuses(client, edge, "/few", 4, address=edge.address_v6) == {"200": 3, "429": 1}
    ask = (
        "import ssl, sys, http.client, socket\n"
        "trust = ssl.create_default_context(cafile=sys.argv[1])\n"
        "made = http.client.HTTPSConnection(sys.argv[2], context=trust)\n"
        "made.sock = trust.wrap_socket(socket.create_connection(('127.0.0.1', 443)), server_hostname=sys.argv[2])\n"
        "made.request('GET', '/few'); print(made.getresponse().status)"
    )
    assert edge.root(["python3", "-c", ask, f"{TLS}/fullchain.pem", DOMAIN]).stdout == "200\n"


def test_a_client_has_so_many_connections_and_no_more(edge: Host, client: Host) -> None:
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(statuses, client, edge, "/stream", CONNECTIONS + 3)
        wait(lambda: [entry["path"] for entry in logged(edge) if entry["status"] == 429].count("/stream") == 3, "429")
        go_on(edge)
        assert held.result() == {"200": CONNECTIONS, "429": 3}


def go_on(edge: Host) -> None:
    """By the service's own port: a client that has all its connections gets no other."""
    edge.root(["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8900/go-on').read()"])


def test_bodies_have_their_route_s_size(edge: Host, client: Host) -> None:
    def sent(path: str, size: int) -> list[str]:
        data = ("--data", "x" * size, "--output", "/dev/null", "--write-out", "%{http_code}\n")
        return curl(client, edge, path, options=data)

    assert [sent("/small", 1000), sent("/small", 1100), sent("/any", 8000), sent("/any", 9000)] == [
        ["200"],
        ["413"],
        ["200"],
        ["413"],
    ]


def test_a_stream_comes_as_it_is_written(edge: Host, client: Host) -> None:
    edge.root("systemctl stop notes; systemd-run --quiet --unit=notes python3 /root/backend.py")
    edge.root("timeout 30 sh -c 'until ss -Hltn sport = :8900 | grep -q .; do sleep 0.1; done'")
    client.root("rm -f /root/came")
    with ThreadPoolExecutor(1) as pool:
        came = pool.submit(curl, client, edge, "/stream", options=("--no-buffer", "--output", "/root/came"))
        client.root("timeout 15 sh -c 'until grep -qs first /root/came; do sleep 0.1; done'")
        assert "second" not in client.read("/root/came")
        go_on(edge)
        came.result()
    assert client.read("/root/came") == "first\nsecond\n"


def test_connections_to_the_service_are_kept(edge: Host, client: Host) -> None:
    # One worker's: each has its own. Requests of one connection are one worker's.
    seen = [json.loads(line) for line in curl(client, edge, *["/seen"] * 3, options=("--write-out", "\n"))]
    assert len({entry["connection"] for entry in seen}) == 1
    assert "connection" not in seen[0]["headers"]


def test_a_request_has_one_number_everywhere(edge: Host, client: Host) -> None:
    (line,) = curl(
        client, edge, "/numbered", options=("--write-out", "\n", "--header", "X-Request-Id: the-client-s-own")
    )
    number = json.loads(line)["headers"]["x-request-id"]
    (entry,) = [each for each in logged(edge) if each["path"] == "/numbered"]
    assert entry["request_id"] == number and len(number) == 32
    assert (entry["client"], entry["status"], entry["upstream"]) == (client.address, 200, "127.0.0.1:8900")


@contextmanager
def talking(client: Host, edge: Host) -> Iterator[None]:
    client.put("/root/talk.py", TALK)
    words = f"python3 /root/talk.py {edge.address} {DOMAIN}"
    client.root(f"systemd-run --quiet --collect --unit=talk --property=StandardOutput=file:/root/talk {words}")
    try:
        yield
    finally:
        client.root("rm -f /root/talk; systemctl stop talk", check=False)  # it may have ended by itself


def heard(client: Host) -> int:
    lines = client.root("cat /root/talk", check=False).stdout.split()  # not there before its first word
    return int(lines[-1]) if lines else 0


def test_a_websocket_outlives_a_reload_and_ends_in_time(
    edge: Host, client: Host, ansible: Ansible, tmp_path: Path
) -> None:
    with talking(client, edge):
        wait(lambda: heard(client) > 0, "the first answer")
        old = edge.root(["pgrep", "--full", "nginx: worker process$"]).stdout.split()
        edge.root(["systemctl", "reload", "nginx"])
        wait(lambda: leaving(edge) != [], "an old worker")
        before = heard(client)
        wait(lambda: heard(client) > before + 3, "answers over the former connection")
    wait(lambda: not set(edge.root("pgrep nginx").stdout.split()) & set(old), "the end of the old workers")
    # As long as the role says and no longer, however long the client stays.
    shorter = {**slice_of(edge), "edge_worker_shutdown_timeout": 3}
    assert ansible.playbook(ROLE, [edge], variables=shorter).changed
    with talking(client, edge):
        wait(lambda: heard(client) > 0, "the first answer")
        edge.root(["systemctl", "reload", "nginx"])
        wait(lambda: client.root("systemctl is-active talk", check=False).stdout.strip() != "active", "the end")
    wait(lambda: leaving(edge) == [], "the end of its worker")


def leaving(edge: Host) -> list[str]:
    """Workers of a former configuration. Not by a shell, which would find itself."""
    return edge.root(["pgrep", "--full", "worker process is shutting down"], check=False).stdout.split()


def wait(holds: Any, what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, f"not within a minute: {what}"
        time.sleep(0.2)
