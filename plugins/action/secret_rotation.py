# GNU General Public License v3.0+ (see LICENSE)
"""The controller's part of a rotation: the new value is written down before it is used, and takes the old one's place after."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.detour import NEXT
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Findings
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Data
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.schema import accepted
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.secrets import rules_of
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.services import resolve
from ansible_collections.selfhost.fleet.plugins.plugin_utils.inventory import InventoryReader
from ansible_collections.selfhost.fleet.plugins.plugin_utils.secret_store import (
    SecretError,
    SecretStore,
    default_path,
)

ARGUMENTS = {
    "secret": {"type": "str", "required": True, "no_log": False},  # a name
    "state": {"type": "str", "choices": ["begun", "finished"], "required": True},
    "path": {"type": "str"},
}


class ActionModule(ActionBase):
    """Gives the inventory's services as they are during a rotation and after it."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        if self._task.check_mode:
            return result | {
                "failed": True,
                "msg": "A rotation has no check mode: what it does depends on what it did before.",
            }
        reader = InventoryReader(self._templar, task_vars or {})
        name, _dot, secret = options["secret"].partition(".")
        try:
            store = SecretStore(
                Path(options["path"]) if options["path"] else default_path(reader.sources()),
                self._loader._vault.secrets or [],
            )
            if options["state"] == "finished":
                return result | {"changed": store.finish(name, secret)}
            return result | self._begin(store, reader, name, secret)
        except SecretError as error:
            return result | {"failed": True, "msg": str(error)}

    def _begin(self, store: SecretStore, reader: InventoryReader, name: str, secret: str) -> dict[str, Any]:
        inventory = accepted(reader.schema(), reader.inventory(), Findings())
        services = {each.name: each for each in resolve(inventory, reader.definitions(), Findings())}
        service = services.get(name)
        if service is None or secret not in rules_of(service):
            raise SecretError(f"{name}.{secret} is no secret of this fleet. Write it as service.NAME")
        value = store.begin(service, secret)
        return {
            "changed": True,
            "during": _with(inventory.services, name, {secret + NEXT: value}),
            "after": _with(inventory.services, name, {secret: value, secret + NEXT: value}),
            # For registers of the run alone: as a result of a task it is never shown.
            "_ansible_no_log": True,
        }


def _with(services: Data, name: str, values: dict[str, str]) -> Data:
    changed = copy.deepcopy(services)
    changed[name].setdefault("secrets", {}).update(values)
    return changed
