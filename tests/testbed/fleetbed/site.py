"""A whole site on one host with the stand-in for Fluxbase: how it is made, how users reach it, what is seen on its host."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from pathlib import Path
from typing import Any

from .engine import Completed
from .host import Host
from .paths import REPOSITORY
from .runner import Ansible, Run, Running
from .service import DOMAIN, fluxbase

SITE = REPOSITORY / "playbooks" / "site.yml"
UNIT = "fluxbase-server@blue.service"
CA_ON_CLIENT = "/root/site-ca.pem"


@dataclasses.dataclass
class Site:
    """A host, the inventory's words about it, and how users reach it."""

    host: Host
    client: Host
    ansible: Ansible
    variables: dict[str, Any]
    secrets: dict[str, str]

    @classmethod
    def plan(cls, host: Host, client: Host, folder: Path) -> Site:
        """Words for an inventory; the host is not touched."""
        entry = fluxbase()
        variables = {"fleet_local_ca_dir": str(folder / "ca"), "fleet_services": {"fluxbase": entry}}
        return cls(host, client, Ansible(folder), variables, entry["secrets"])

    def converge(self, **options: Any) -> Run:
        """The first run; from then on the client trusts the fleet's authority."""
        run = self.run(**options)
        authority = Path(self.variables["fleet_local_ca_dir"]) / "ca.pem"
        self.client.put(CA_ON_CLIENT, authority.read_text())
        return run

    def run(self, **options: Any) -> Run:
        return self.ansible.playbook(*self._of_a_run(options), **options)

    def start(self, **options: Any) -> Running:
        """A run that goes on beside the test."""
        return self.ansible.start(*self._of_a_run(options), **options)

    def _of_a_run(self, options: dict[str, Any]) -> tuple[Path | list[dict[str, Any]], list[Host]]:
        options["variables"] = {**self.variables, **options.pop("changes", {})}
        options["groups"] = {name: [self.host] for name in ("edge", "postgres", "fluxbase")}
        return options.pop("playbook", SITE), [self.host]

    @staticmethod
    def only(*roles: str) -> list[dict[str, Any]]:
        """What site.yml does, with some of its roles."""
        fleet = "{{ ansible_facts['fleet_plan']['hosts'][inventory_hostname] }}"
        carry = [{"name": role, "ansible.builtin.include_role": {"name": f"selfhost.fleet.{role}"}} for role in roles]
        facts = {"name": "facts", "ansible.builtin.setup": {"gather_subset": ["!all", "!min", "hardware"]}}
        return [
            {
                "hosts": "all",
                "gather_facts": False,
                "tasks": [{"name": "plan", "selfhost.fleet.plan": {}, "run_once": True}],
            },
            {"hosts": "all", "gather_facts": False, "become": True, "vars": {"fleet": fleet}, "tasks": [facts, *carry]},
        ]

    def changed(self, **changes: Any) -> dict[str, Any]:
        """Variables of a run in which these keys of the service are others."""
        return {"fleet_services": {"fluxbase": {**self.variables["fleet_services"]["fluxbase"], **changes}}}

    def curl(
        self, path: str, *options: str, name: str = DOMAIN, scheme: str = "https", check: bool = True
    ) -> Completed:
        """A request from the client; the authority is the fleet's own and no other."""
        command = ["curl", "--silent", "--show-error", "--max-time", "10", "--cacert", CA_ON_CLIENT]
        for port in (80, 443):
            command += ["--resolve", f"{name}:{port}:{self.host.address}"]
        return self.client.root([*command, *options, f"{scheme}://{name}{path}"], check=check)

    def status(self, path: str, **options: Any) -> int:
        """The HTTP status that the client gets; 0 for no answer."""
        words = "--output", "/dev/null", "--write-out", "%{http_code}"
        return int(self.curl(path, *words, check=False, **options).stdout or 0)

    def answers_within(self, seconds: float) -> float:
        """Wait until the service is healthy from the client's side; the seconds that it took.

        And that it stays so: a database that has started has its services start again, which systemd has as a job until it is done.
        """
        started = time.monotonic()
        jobs = "while systemctl list-jobs --no-legend | grep -q .; do sleep 0.1; done"
        self.host.root(["timeout", str(seconds), "sh", "-c", jobs])
        while (status := self.status("/health")) != 200:
            assert time.monotonic() - started < seconds, f"status {status} after {seconds} s"
            time.sleep(0.2)
        return time.monotonic() - started

    def hashes(self) -> str:
        """Every file that the site keeps its configuration in."""
        folders = "/etc/nginx /etc/pgbouncer /etc/postgresql /etc/systemd/system /etc/fluxbase /etc/selfhost"
        return self.host.root(f"find {folders} -type f -exec sha256sum {{}} + | sort -k 2").stdout

    def add_item(self) -> str:
        """A row that users wrote; its text."""
        body = secrets.token_hex(8)
        content = json.dumps({"body": body})
        self.curl("/api/v1/items", "--fail", "--header", "Content-Type: application/json", "--data", content)
        return body


def main_pid(host: Host, unit: str) -> int:
    return int(host.root(["systemctl", "show", "--property=MainPID", "--value", unit]).stdout)


def psql(host: Host, query: str, database: str = "fluxbase") -> list[str]:
    return host.root(["runuser", "-u", "postgres", "--", "psql", "-AtXc", query, database]).stdout.split()
