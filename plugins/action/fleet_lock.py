# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of selfhost.fleet.fleet_lock: says whose run this is, and sees whether the holder's still lives."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.plugin_utils.controller import Controller, operator

MODULE = "selfhost.fleet.fleet_lock"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """A lock of a run that was killed on this controller needs nobody to take it over."""

    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        here = Controller.here()
        own = {"token": here.token, "operator": operator(), "controller": here.as_option()}
        arguments = {**own, **self._task.args}
        result = self._call(arguments, task_vars)
        holder = result.get("holder")
        if result.get("failed") and holder and here.knows_dead(holder["controller"], holder["since"]):
            # Only that run's lock: somebody else may have it by now.
            result = self._call({**arguments, "ended": holder["token"]}, task_vars)
        return result

    def _call(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        return result
