"""What users notice of rollouts: `make bench-upgrade`. Upgrades, each with its rehearsal, and rollbacks take turns under a constant load from another host.

Writes bench/results/upgrade.json. Seconds are medians; those of a rollout and of a rollback are of the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "testbed"))

from fleetbed.host import Host, hosts  # noqa: E402
from fleetbed.network import ensure_network, pick_addresses  # noqa: E402
from fleetbed.site import DOMAIN, Site  # noqa: E402
from fleetbed.upgrade import NEW, ROLLBACK, UPGRADE, VARIANTS, upgradable, wants  # noqa: E402
from machine import machine  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "upgrade.json"
CA = "/root/load-ca.pem"
SOURCES = 8  # addresses that the load comes from
PORTS = {"blue": 8081, "green": 8082}
REHEARSED = {"soak": 2, "drain": 15, "interval": 1, "rehearsal": "auto"}
CANARY = {**REHEARSED, "rehearsal": "off", "strategy": "canary", "shares": [20], "observe": 30}


def log(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {words}", flush=True)


def sources(client: Host) -> list[str]:
    """Further addresses of the client: an edge has limits for each."""
    subnet, subnet_v6 = ensure_network()
    found = [client.address]
    taken = {host.address for host in hosts()}
    while len(found) < SOURCES:
        address, _v6 = pick_addresses(subnet, subnet_v6, taken)
        client.root(f"ip address add {address}/{subnet.partition('/')[2]} dev eth0")
        taken.add(address)
        found.append(address)
    return found


@contextmanager
def load(site: Site, rate: float, sockets: int) -> Iterator[dict[str, Any]]:
    """What users have seen is there afterwards, as `requests` and `sockets`."""
    client, found = site.client, dict[str, Any]()
    client.put("/root/load.py", (ROOT / "bench" / "load.py").read_text())
    client.put(CA, (Path(site.variables["fleet_local_ca_dir"]) / "ca.pem").read_text())
    client.root("rm -f /root/load.stop /root/load-*.json")
    given = ",".join(sources(client))
    for what, amount in (("requests", rate), ("sockets", sockets)):
        words = f"{what} {site.host.address} {DOMAIN} {CA} /root/load-{what}.json /root/load.stop {given} {amount}"
        client.root(
            f"systemd-run --quiet --collect --property=LimitNOFILE=4096 --unit=load-{what} python3 /root/load.py {words}"
        )
    try:
        time.sleep(10)
        yield found
        time.sleep(10)
    finally:
        client.root("touch /root/load.stop")
        client.root("while systemctl is-active --quiet load-requests load-sockets; do sleep 0.2; done", timeout=90)
    for what in ("requests", "sockets"):
        found[what] = json.loads(client.read(f"/root/load-{what}.json"))


def timed(site: Site, playbook: Path, changes: dict[str, Any], **options: Any) -> float:
    begin = time.monotonic()
    site.run(playbook=playbook, changes=changes, **options)
    return time.monotonic() - begin


def steps(site: Site, phase: str) -> list[float]:
    """Seconds of a step in every rollout that the host remembers."""
    paths = site.host.root("ls /var/lib/selfhost/rollouts/fluxbase/*.json").stdout.split()
    records = [json.loads(site.host.read(path)) for path in paths]
    return [step["seconds"] for record in records for step in record["steps"] if step["name"].startswith(f"{phase} ")]


def last_sent(site: Site, port: int) -> float:
    """When the edge sent its last request to a slot, so far; its log knows whole seconds, so at most. Uploads and WebSockets have their own time."""
    read = f'grep -F \':{port}"\' /var/log/nginx/access.log | grep -vE \'"status":101|"seconds":[1-9]\' | tail -n 1'
    return datetime.fromisoformat(json.loads(site.host.root(read).stdout)["time"]).timestamp() + 1


def port_that_serves(site: Site) -> int:
    slot = json.loads(site.host.read("/etc/selfhost/services/fluxbase-server.json"))["slot"]
    return PORTS[slot]


def gate_to_safe(site: Site) -> float:
    """Seconds from the moment when a canary's gate failed until the edge sent the last request to the new slot."""
    changes = wants(site, VARIANTS["bad-answers"], "bad-answers", rollout=CANARY)
    (port,) = set(PORTS.values()) - {port_that_serves(site)}
    running = site.start(playbook=UPGRADE, changes=changes)
    while not any(each.status == "failed" and each.task.startswith("See by the log") for each in running.outcomes):
        if running.process.poll() is not None:
            raise SystemExit("the canary came to its end without a failed gate")
        time.sleep(0.02)
    failed = time.time()
    running.end(timeout=300)
    return max(0.0, last_sent(site, port) - failed)


def rollback(site: Site) -> tuple[float, float]:
    """Seconds of the whole command, and until nobody was sent to the release any more that is left."""
    port, begin = port_that_serves(site), time.time()
    whole = timed(site, ROLLBACK, site.changed(rollout=REHEARSED), options=["-e", "service=fluxbase"])
    return whole, max(0.0, last_sent(site, port) - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="upgrades and rollbacks together")
    parser.add_argument("--rate", type=float, default=300, help="requests a second")
    parser.add_argument("--sockets", type=int, default=200)
    given = parser.parse_args()
    about = machine()
    upgrades: list[float] = []
    rollbacks: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:

        def new_host(purpose: str, **options: Any) -> Host:
            made = Host.create(f"bench-{os.getpid()}-{purpose}", **options)
            stack.callback(made.remove)
            return made

        client = new_host("client")
        client.root(
            "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; apt-get install -qy --no-install-recommends curl python3-websockets",
            timeout=300,
        )
        site = upgradable(new_host, client, Path(name), "site")
        log("the site serves")
        with load(site, given.rate, given.sockets) as seen:
            for number in range(given.runs):
                if number % 2 == 0:
                    upgrades.append(timed(site, UPGRADE, wants(site, NEW, rollout=REHEARSED)))
                    log(f"{number + 1} of {given.runs}, upgrade: {upgrades[-1]:.1f} s")
                else:
                    rollbacks.append(rollback(site))
                    whole, safe = rollbacks[-1]
                    log(
                        f"{number + 1} of {given.runs}, rollback: {whole:.1f} s; after {safe:.1f} s all users were back"
                    )
        rehearsals = steps(site, "rehearse")
        nothing = timed(site, UPGRADE, {"fleet_services": {"fluxbase": site.variables["fleet_services"]["fluxbase"]}})
        log("a canary that fails")
        with load(site, given.rate, 1) as _canary:
            safe = gate_to_safe(site)
    write(
        about,
        given,
        seen,
        {"upgrades": upgrades, "rollbacks": rollbacks, "rehearsals": rehearsals, "nothing": nothing, "safe": safe},
    )


def write(about: dict[str, Any], given: argparse.Namespace, seen: dict[str, Any], took: dict[str, Any]) -> None:
    kinds = [seen["requests"][kind] for kind in ("read", "write", "upload")]
    result = {
        "rollouts": given.runs,
        "requests": sum(kind["requests"] for kind in kinds),
        "requests_per_second": seen["requests"]["rate"],
        "requests_per_second_wanted": given.rate,
        "failed_requests": sum(kind["failed_requests"] for kind in kinds),
        "failed_requests_no_retry": sum(kind["failed_requests_no_retry"] for kind in kinds),
        "websockets": given.sockets,
        "websocket_reconnects": seen["sockets"]["reconnects"],
        "websocket_reconnect_p99_seconds": seen["sockets"]["reconnect_p99_seconds"],
        "messages_expected": seen["sockets"]["messages_expected"],
        "messages_lost_after_reconnect": seen["sockets"]["messages_lost_after_reconnect"],
        "gate_to_safe_seconds": round(took["safe"], 2),
        "rollback_seconds": _median([whole for whole, _safe in took["rollbacks"]]),
        "rollback_traffic_seconds": _median([safe for _whole, safe in took["rollbacks"]]),
        "rehearsal_seconds": _median(took["rehearsals"]),
        "rollout_seconds": _median(took["upgrades"]),
        "nothing_to_do_seconds": round(took["nothing"], 2),
        "load": seen,
        "machine": about,
    }
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "load"}, indent=2))


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2) if values else 0.0


if __name__ == "__main__":
    main()
