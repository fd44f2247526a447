# GNU General Public License v3.0+ (see LICENSE)
"""The plan, computed on the controller before any host is touched. See docs/plan.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleUndefinedVariable
from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.compute import compute
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.definitions import Definitions
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Finding
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Host, Inventory

SERVICES = Path(__file__).resolve().parents[2] / "services"
UNDEFINED = object()
IMPLICIT = {"localhost", "127.0.0.1", "::1"}
# Variables of single hosts and of roles; every other variable called fleet_* is the fleet's, and must be known.
NOT_FLEET_WIDE = {"fleet_address", "fleet_os", "fleet_architecture", "fleet_plan", "fleet_local_ca_dir"}


class ActionModule(ActionBase):
    """Turns Ansible's view of the inventory into plain data, and the plan into a fact."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        self.validate_argument_spec(argument_spec={})
        folders = [SERVICES, *self._own_definitions(variables)]
        schema = json.loads((SERVICES / "schema" / "inventory.schema.json").read_text())
        definitions = Definitions(folders, SERVICES / "schema" / "definition.schema.json")
        self._undefined: list[Finding] = []
        inventory = self._inventory(variables)
        try:
            plan = compute(inventory, definitions, schema, self._undefined)
        except ModuleNotFoundError as error:
            remedy = f"{sys.executable} -m pip install {error.name}"
            raise AnsibleActionFail(f"the controller's Python lacks {error.name}. Install it: {remedy}") from error
        if plan.findings:
            return {**result, "failed": True, "msg": plan.findings.text()}
        if plan.notes:
            # Whoever runs site.yml does not read the plan's table.
            result["warnings"] = plan.notes
        result["ansible_facts"] = {"fleet_plan": plan.as_fact()}
        result["changed"] = False
        return result

    @staticmethod
    def _own_definitions(variables: dict[str, Any]) -> list[Path]:
        """The folders `services` beside the inventory's sources."""
        sources = [Path(str(source)) for source in variables.get("ansible_inventory_sources") or []]
        return [(source.parent if source.is_file() else source) / "services" for source in sources]

    def _inventory(self, variables: dict[str, Any]) -> Inventory:
        groups = {name: [host for host in hosts if host not in IMPLICIT] for name, hosts in variables["groups"].items()}
        hosts = {name: self._host(name, variables["hostvars"][name]) for name in groups["all"]}
        wanted = {
            name: self._resolve(name, value)
            for name, value in variables.items()
            if name.startswith("fleet_") and name not in NOT_FLEET_WIDE
        }
        return Inventory(hosts=hosts, groups=groups, variables=wanted)

    def _resolve(self, path: str, value: Any) -> Any:
        """A variable with its templates filled in, as plain data; leaf by leaf, so that every undefined one is reported and not only the first."""
        if isinstance(value, dict):
            found = {str(key): self._resolve(f"{path}.{key}", item) for key, item in value.items()}
            return {key: item for key, item in found.items() if item is not UNDEFINED}
        if isinstance(value, (list, tuple)):
            return [
                item
                for item in (self._resolve(f"{path}.{number}", item) for number, item in enumerate(value))
                if item is not UNDEFINED
            ]
        try:
            filled = self._templar.template(value)
        except AnsibleUndefinedVariable as error:
            self._undefined.append(
                Finding(path, f"cannot be filled in: {error.message}", "Define that variable, or take this line out")
            )
            return UNDEFINED
        return self._resolve(path, filled) if isinstance(filled, (dict, list, tuple)) else _plain(filled)

    @staticmethod
    def _host(name: str, variables: Any) -> Host:
        return Host(
            name=name,
            address=str(variables.get("fleet_address") or variables.get("ansible_host") or name),
            os=str(variables.get("fleet_os", "debian-13")),
            architecture=str(variables.get("fleet_architecture", "amd64")),
            ssh_port=int(variables.get("ansible_port") or 22),
        )


def _plain(value: Any) -> Any:
    """A single value without Ansible's tags."""
    if isinstance(value, bool) or value is None:
        return value
    return next((kind(value) for kind in (int, float, str) if isinstance(value, kind)), str(value))
