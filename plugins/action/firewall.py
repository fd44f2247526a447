# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The controller's half of selfhost.fleet.firewall: proves over a fresh connection that it can still reach the host."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.plugin_utils.fresh_connection import fresh_connection

MODULE = "selfhost.fleet.firewall"


class ActionModule(ActionBase):
    """Load, connect anew, confirm."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        result.update(self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars))
        if result.get("failed") or not result.get("pending"):
            return result
        arguments |= {"state": "confirmed", "change": result["change"]}
        loaded, limit = time.monotonic(), int(arguments.get("rollback_after", 30))
        try:
            with fresh_connection(self._connection):
                confirmed = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            # The host must be reachable again when this task has ended, or its rescue could not run.
            time.sleep(max(0.0, loaded + limit - time.monotonic()) + 1)
            reason = f"the new ruleset cuts the controller off ({error}); the former one is in force again"
            return {**result, "failed": True, "changed": False, "pending": False, "msg": reason}
        if confirmed.get("failed"):
            said = confirmed.get("msg", "not confirmed")
            took = f"{said} (its confirmation took {time.monotonic() - loaded:.0f} s, rollback_after is {limit} s)"
            return {**result, "failed": True, "pending": False, "msg": took}
        return {**result, "pending": False, "change": ""}
