# GNU General Public License v3.0+ (see LICENSE)
"""The plan, computed on the controller before any host is touched. See docs/plan.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.compute import compute
from ansible_collections.selfhost.fleet.plugins.plugin_utils.inventory import InventoryReader

ROTATE = "ansible-playbook selfhost.fleet.rotate"
ARGUMENTS = {"rotate": {"type": "str", "no_log": False}, "again": {"type": "bool", "default": False}}


class ActionModule(ActionBase):
    """Turns Ansible's view of the inventory into plain data, and the plan into a fact."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        variables = task_vars or {}
        reader = InventoryReader(self._templar, variables)
        if options["again"] and _holds(variables["ansible_facts"].get("fleet_plan"), reader.live()):
            return {**result, "changed": False}
        inventory = reader.inventory()
        plan = compute(inventory, reader.definitions(), reader.schema(), reader.undefined, rotate=options["rotate"])
        if plan.findings:
            return {**result, "failed": True, "msg": plan.findings.text()}
        plan.notes += [
            f"{name} has a new value that is not in use. Finish its rotation: {ROTATE} -e secret={name}"
            for name in reader.unfinished()
            if name != options["rotate"]
        ]
        if plan.notes:
            # Whoever runs site.yml does not read the plan's table.
            result["warnings"] = plan.notes
        result["ansible_facts"] = {"fleet_plan": plan.as_fact()}
        result["changed"] = False
        return result


def _holds(plan: Any, live: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether every host serves from the slot that the plan has for it."""
    return bool(plan) and all(
        live.get(entry["service"], {}).get(host, entry["slot"]) == entry["slot"]
        for host, own in plan["hosts"].items()
        for entry in own["components"]
    )
