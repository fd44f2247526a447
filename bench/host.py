"""What a run of the whole site costs on one host, beside a playbook of stock modules that makes the same: `make bench-host`.

Writes bench/results/host.json: medians in seconds. Every run opens a connection of its own, both contenders take turns, and
pipelining is on for both. The module calls are counted, and the way of the time measured, in runs of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "testbed"))

import end_state  # noqa: E402
from fleetbed.host import Host  # noqa: E402
from fleetbed.image import UNSAFE_IO  # noqa: E402
from machine import machine  # noqa: E402

BENCH = ROOT / "bench"
RESULTS = BENCH / "results" / "host.json"
DOMAIN = "bench.example.com"


@dataclass
class Contender:
    """A playbook against a host of its own."""

    name: str
    playbook: Path
    folder: Path
    made: Host | None = None
    bare: list[float] = field(default_factory=list)
    noop: list[float] = field(default_factory=list)

    @property
    def host(self) -> Host:
        if self.made is None:
            raise SystemExit(f"{self.name} has no host yet")
        return self.made

    def new_host(self) -> None:
        self.remove()
        self.made = Host.create(f"bench-{os.getpid()}-{self.name}")
        # A server's dpkg waits for its disk.
        self.made.root(f"rm {UNSAFE_IO}")
        # A server's package lists are as old as its image; the test host's have been made empty just now, and pass for new.
        self.made.root("touch --date='2 days ago' /var/lib/apt/lists")

    def remove(self) -> None:
        if self.made:
            self.made.remove()
            self.made = None

    def run(self, playbook: Path | None = None, **environment: str) -> tuple[float, str]:
        """Seconds of a run, and what it printed."""
        inventory = self.folder / f"{self.name}.json"
        groups = {name: {"hosts": {self.host.name: {}}} for name in ("edge", "postgres", "fluxbase")}
        variables = json.loads((self.folder / "variables.json").read_text())
        hosts = {self.host.name: {**self.host.variables(), **variables}}
        inventory.write_text(json.dumps({"all": {"hosts": hosts, "children": groups}}))
        with tempfile.TemporaryDirectory(prefix="bench-") as sockets:
            command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", str(inventory)]
            begin = time.monotonic()
            done = subprocess.run(
                [*command, str(playbook or self.playbook)],
                cwd=ROOT,
                env={
                    **os.environ,
                    "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                    "ANSIBLE_PIPELINING": "1",
                    "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
                    "ANSIBLE_NOCOLOR": "1",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            seconds = time.monotonic() - begin
        if done.returncode:
            raise SystemExit(f"{self.name}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
        return seconds, done.stdout

    def first(self) -> None:
        """From a bare host to a right answer through TLS."""
        seconds = self.run()[0]
        begin = time.monotonic()
        self.healthy()
        self.bare.append(seconds + time.monotonic() - begin)

    def healthy(self) -> None:
        url = f"https://{DOMAIN}/health"
        command = ["curl", "-fsSk", "--max-time", "10", "--resolve", f"{DOMAIN}:443:{self.host.address}", url]
        subprocess.run(command, check=True, capture_output=True)

    def again(self) -> None:
        """A run that changes nothing; anything else is not worth a number."""
        seconds, output = self.run()
        changed = [line for line in output.splitlines() if "changed=" in line and "changed=0 " not in line]
        if changed:
            raise SystemExit(f"{self.name}: this run was to change nothing\n{output}")
        self.noop.append(seconds)

    def calls(self, playbook: Path | None = None) -> tuple[float, list[float]]:
        """Seconds of a whole run, and of each call over SSH in it."""
        log = self.folder / f"{self.name}-ssh.log"
        log.unlink(missing_ok=True)
        seconds = self.run(playbook, ANSIBLE_SSH_EXECUTABLE=str(BENCH / "timed-ssh"), TIMED_SSH_LOG=str(log))[0]
        return seconds, [float(end) - float(begin) for begin, end in map(str.split, log.read_text().splitlines())]

    def profile(self) -> dict[str, Any]:
        """Where a no-op's time goes. A module that does nothing shows what every call costs before its work begins."""
        whole, modules = self.calls()
        pings = self.calls(BENCH / "ping.yml")[1]
        nothing = self.calls(BENCH / "nothing.yml")[1]
        ssh, start = statistics.median(nothing), statistics.median(pings)
        return {
            "whole": round(whole, 2),
            "controller": round(whole - sum(modules), 2),
            "ssh": round(len(modules) * ssh, 2),
            "module_start": round(len(modules) * max(start - ssh, 0.0), 2),
            "work": round(max(sum(modules) - len(modules) * start, 0.0), 2),
            "module_calls": len(modules),
        }


def variables(folder: Path) -> dict[str, Any]:
    """The same service, version and settings for both."""
    standin = ROOT / ".cache" / "standin" / "fluxbase-2026.3.6"
    checksum = subprocess.run(["sha256sum", standin], check=True, capture_output=True, text=True).stdout.split()[0]
    return {
        "bench_folder": str(folder),
        "fleet_local_ca_dir": str(folder / "ca"),
        "fleet_services": {
            "fluxbase": {
                "version": "2026.3.6",
                "domain": DOMAIN,
                "release": {"source": str(standin), "checksum": f"sha256:{checksum}"},
                "settings": {"FLUXBASE_JOBS_ENABLED": "false"},
                "secrets": {
                    # Of test hosts that live for minutes.
                    "FLUXBASE_AUTH_JWT_SECRET": "qL3vX8zN5tB1yH7mK2pR9wD4sF6gJ0cUeAiOxZbVnM",
                    "FLUXBASE_ENCRYPTION_KEY": "f3a9c1e7b5d2480696e1c3a7f5b9d204",
                    "FLUXBASE_DATABASE_PASSWORD": "b7f3e91c5a2d84f06e1b9c3d7a5f2e80",
                },
            }
        },
    }


def median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        common = variables(folder)
        (folder / "variables.json").write_text(json.dumps(common))
        ours = Contender("ours", ROOT / "playbooks" / "site.yml", folder)
        plain = Contender("plain", BENCH / "plain" / "site.yml", folder)
        about = machine()
        try:
            for _run in range(runs):
                ours.new_host()
                ours.first()
            # Of the last host: addresses are in what is compared.
            ours.run(BENCH / "state.yml")
            part = json.loads((folder / "slice.json").read_text())
            state = end_state.read(ours.host, part, folder)
            (folder / "variables.json").write_text(json.dumps({**common, "state": state}))
            plain.new_host()  # once: its first run is no claim of anybody's
            plain.first()
            for contender in (ours, plain):  # what only a second run can settle is settled here
                contender.run()
            different = end_state.differences(ours.host, plain.host)
            if different:
                raise SystemExit("The two hosts are not the same:\n" + "\n".join(different))
            for contender in (ours, plain) * runs:
                contender.again()
            profiles = {contender.name: contender.profile() for contender in (ours, plain)}
        finally:
            for contender in (ours, plain):
                contender.remove()
    result = {
        "noop_seconds": median(ours.noop),
        "plain_noop_seconds": median(plain.noop),
        "ratio": round(statistics.median(plain.noop) / statistics.median(ours.noop), 2),
        "bare_to_healthy_seconds": median(ours.bare),
        "plain_bare_to_healthy_seconds": median(plain.bare),
        "noop_module_calls": profiles["ours"]["module_calls"],
        "plain_noop_module_calls": profiles["plain"]["module_calls"],
        "profile": profiles,
        "runs": {"ours": _rounded(ours), "plain": _rounded(plain)},
        "machine": about,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def _rounded(contender: Contender) -> dict[str, list[float]]:
    return {
        "bare_to_healthy": [round(value, 2) for value in contender.bare],
        "noop": [round(value, 2) for value in contender.noop],
    }


if __name__ == "__main__":
    main()
