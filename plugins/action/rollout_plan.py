# GNU General Public License v3.0+ (see LICENSE)
"""The rollouts that the inventory asks for, computed on the controller before anything is touched."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.back import rollbacks
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.fleet import Fleet
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.refresh import refreshes
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rollout import ledger_entries, rollouts
from ansible_collections.selfhost.fleet.plugins.plugin_utils.inventory import InventoryReader

ARGUMENTS = {
    "service": {"type": "str", "default": ""},
    "back": {"type": "bool", "default": False},
    "restore": {"type": "str", "default": ""},
    "no_way_back": {"type": "str", "default": ""},
    "refresh": {"type": "str", "choices": ["no", "due", "always"], "default": "no"},
}


class ActionModule(ActionBase):
    """As M(selfhost.fleet.plan), with the versions that hosts run."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        reader = InventoryReader(self._templar, task_vars or {})
        fleet = Fleet(reader.inventory(), reader.definitions(), reader.schema(), reader.undefined)
        only, serving = options["service"], reader.serving()
        if options["back"]:
            found = rollbacks(fleet, serving, only=only, restore=options["restore"], accepted=options["no_way_back"])
        elif options["refresh"] != "no":
            uptime, always = reader.database_uptime(), options["refresh"] == "always"
            found = refreshes(fleet, serving, database_uptime=uptime, only=only, always=always)
        else:
            found = rollouts(fleet, serving, only=only)
        if found.findings:
            return {**result, "failed": True, "msg": found.findings.text()}
        moment = datetime.now(tz=UTC)
        for rollout in found.items:
            rollout |= ledger_entries(rollout, serving, moment)
        return {**result, "changed": False, "ansible_facts": {"fleet_rollouts": found.items}}
