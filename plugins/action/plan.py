# GNU General Public License v3.0+ (see LICENSE)
"""The plan, computed on the controller before any host is touched. See docs/plan.md."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.compute import compute
from ansible_collections.selfhost.fleet.plugins.plugin_utils.inventory import InventoryReader

ROTATE = "ansible-playbook selfhost.fleet.rotate"


class ActionModule(ActionBase):
    """Turns Ansible's view of the inventory into plain data, and the plan into a fact."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec={"rotate": {"type": "str", "no_log": False}})
        reader = InventoryReader(self._templar, task_vars or {})
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
