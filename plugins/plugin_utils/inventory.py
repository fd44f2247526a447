# GNU General Public License v3.0+ (see LICENSE)
"""Ansible's view of the inventory as the plain data that the plan is computed from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.definitions import Definitions
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Finding
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.hosts import read_host
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Inventory
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.secrets import PLAYBOOK
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.unread import unread
from ansible_collections.selfhost.fleet.plugins.module_utils.serving import DATABASE_FACT, SERVING_FACT

SERVICES = Path(__file__).resolve().parents[2] / "services"
UNDEFINED = object()
IMPLICIT = {"localhost", "127.0.0.1", "::1"}
# Variables of single hosts and of roles, and the secrets themselves, which `fleet_services` refers to; every other
# variable called fleet_* is the fleet's, and must be known.
NOT_FLEET_WIDE = {
    "fleet_address",
    "fleet_os",
    "fleet_architecture",
    "fleet_ssh_port",
    "fleet_hardening",
    "fleet_database",
    "fleet_plan",
    "fleet_pools",
    "fleet_removal",
    "fleet_rollouts",
    "fleet_serving",
    "fleet_settled",
    "fleet_local_ca_dir",
    "fleet_secrets",
    "fleet_secrets_next",
}


class InventoryReader:
    """Reads the variables of a task; `undefined` is what could not be filled in or read, and so is missing from the inventory."""

    def __init__(self, templar: Any, variables: dict[str, Any]) -> None:
        self._templar = templar
        self._variables = variables
        self.undefined: list[Finding] = []

    def sources(self) -> list[Path]:
        return [Path(str(source)) for source in self._variables.get("ansible_inventory_sources") or []]

    def definitions(self) -> Definitions:
        """The collection's, and those of the inventory's own folders `services`."""
        own = [folder for source in self.sources() for folder in service_folders(source)]
        return Definitions([SERVICES, *own], SERVICES / "schema" / "definition.schema.json")

    @staticmethod
    def schema() -> dict[str, Any]:
        return dict(json.loads((SERVICES / "schema" / "inventory.schema.json").read_text()))

    def inventory(self) -> Inventory:
        variables = self._variables
        self.undefined += unread(self.sources())
        groups = {name: [host for host in hosts if host not in IMPLICIT] for name, hosts in variables["groups"].items()}
        hosts = {name: read_host(name, variables["hostvars"][name], self.undefined) for name in groups["all"]}
        wanted = {
            name: found
            for name, value in variables.items()
            if name.startswith("fleet_") and name not in NOT_FLEET_WIDE
            if (found := self.resolve(name, value)) is not UNDEFINED
        }
        return Inventory(hosts=hosts, groups=groups, variables=wanted, live=self.live())

    def serving(self) -> dict[str, dict[str, Any]]:
        """What serves, by host and service; nothing of hosts that have not been asked (selfhost.fleet.serving_facts)."""
        hostvars = self._variables["hostvars"]
        return {
            host: dict((hostvars[host].get("ansible_facts") or {}).get(SERVING_FACT) or {})
            for host in self._variables["groups"]["all"]
        }

    def database_uptime(self) -> float | None:
        """Seconds since PostgreSQL started, on the host of the fleet where it did last; None where none runs, or nobody was asked."""
        hostvars = self._variables["hostvars"]
        asked = [
            ((hostvars[host].get("ansible_facts") or {}).get(DATABASE_FACT) or {}).get("uptime")
            for host in self._variables["groups"]["all"]
        ]
        return min((float(each) for each in asked if each is not None), default=None)

    def live(self) -> dict[str, dict[str, str]]:
        """The slots of it, by service and host."""
        found: dict[str, dict[str, str]] = {}
        for host, services in self.serving().items():
            for service, serving in services.items():
                found.setdefault(str(service), {})[host] = str(serving["slot"])
        return found

    def unfinished(self) -> list[str]:
        """Rotations that were begun, as `service.NAME`; their values are not looked at."""
        upcoming = self._variables.get("fleet_secrets_next")
        services = upcoming.items() if isinstance(upcoming, dict) else ()
        return [f"{service}.{name}" for service, names in services if isinstance(names, dict) for name in names]

    def resolve(self, path: str, value: Any) -> Any:
        """A variable with its templates filled in, as plain data; leaf by leaf, so that every undefined one is reported and not only the first."""
        if isinstance(value, dict):
            found = {str(key): self.resolve(f"{path}.{key}", item) for key, item in value.items()}
            return {key: item for key, item in found.items() if item is not UNDEFINED}
        if isinstance(value, (list, tuple)):
            return [
                item
                for item in (self.resolve(f"{path}.{number}", item) for number, item in enumerate(value))
                if item is not UNDEFINED
            ]
        try:
            filled = self._templar.template(value)
        except AnsibleUndefinedVariable as error:
            remedy = "Define that variable, or take this line out"
            if ".secrets" in path:
                remedy += f". A secret of fleet_secrets is made with: {PLAYBOOK}"
            return self._not_filled(path, error, remedy)
        except AnsibleError as error:
            return self._not_filled(path, error, "Mend what it looks up, or take this line out")
        return self.resolve(path, filled) if isinstance(filled, (dict, list, tuple)) else _plain(filled)

    def _not_filled(self, path: str, error: AnsibleError, remedy: str) -> object:
        words = " ".join(str(error.message).split()).rstrip(".")
        self.undefined.append(Finding(path, f"cannot be filled in: {words}", remedy))
        return UNDEFINED


def service_folders(source: Path) -> list[Path]:
    """Where an inventory may have its definitions, the best place last: beside a folder that Ansible reads, as within it would take them for inventories."""
    folder = source.parent if source.is_file() else source
    places = [folder / "services", folder.absolute().parent / "services"]
    return places[::-1] if source.is_file() else places


def _plain(value: Any) -> Any:
    """A single value without Ansible's tags."""
    if isinstance(value, bool) or value is None:
        return value
    return next((kind(value) for kind in (int, float, str) if isinstance(value, kind)), str(value))
