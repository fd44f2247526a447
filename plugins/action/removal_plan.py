# GNU General Public License v3.0+ (see LICENSE)
"""The plan of the fleet without a service, computed on the controller before any host is touched."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.removal import removal
from ansible_collections.selfhost.fleet.plugins.plugin_utils.inventory import InventoryReader

ARGUMENTS = {"service": {"type": "str", "required": True}, "delete_data": {"type": "str", "default": ""}}


class ActionModule(ActionBase):
    """As M(selfhost.fleet.plan), and what the service may have left."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        reader = InventoryReader(self._templar, task_vars or {})
        inventory = reader.inventory()
        found = removal(
            inventory,
            reader.definitions(),
            reader.schema(),
            reader.undefined,
            service=options["service"],
            delete_data=options["delete_data"],
        )
        if found.plan.findings:
            return {**result, "failed": True, "msg": found.plan.findings.text()}
        facts = {"fleet_plan": found.plan.as_fact(), "fleet_removal": found.footprint}
        return {**result, "changed": False, "ansible_facts": facts}
