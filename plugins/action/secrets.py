# GNU General Public License v3.0+ (see LICENSE)
"""Makes the secrets that the fleet lacks, on the controller. See docs/secrets.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Findings
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Data, Service
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.schema import accepted
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.secrets import missing, rules_of
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.services import resolve
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.unread import unread
from ansible_collections.selfhost.fleet.plugins.plugin_utils.inventory import InventoryReader
from ansible_collections.selfhost.fleet.plugins.plugin_utils.secret_store import (
    CURRENT,
    SecretError,
    SecretStore,
    default_path,
)


class ActionModule(ActionBase):
    """Finds out what is missing as the plan does, and adds it to the encrypted file."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec={"path": {"type": "str"}})
        try:
            return result | self._make(options["path"], task_vars or {})
        except SecretError as error:
            return result | {"failed": True, "msg": str(error)}

    def _make(self, path: str | None, variables: dict[str, Any]) -> dict[str, Any]:
        reader = InventoryReader(self._templar, variables)
        findings = Findings()
        if passed_over := unread(reader.sources()):
            raise SecretError(" ".join(map(str, passed_over)))
        whole = reader.inventory()
        services = resolve(accepted(reader.schema(), whole, findings), reader.definitions(), findings)
        named = whole.variables.get("fleet_services") or {}
        unclear = sorted(set(named) - {service.name for service in services}) if isinstance(named, dict) else [""]
        if unclear:
            mine = [str(each) for each in findings.items if each.variable.startswith(_variables(unclear))]
            raise SecretError("It is not clear which secrets these services have. " + " ".join(mine))
        lacking = {service.name: {name: rules_of(service)[name] for name in missing(service)} for service in services}
        given = [
            f"{service}.{name}" for service, rules in lacking.items() for name in rules if rules[name].get("given")
        ]
        wanted = {
            service: {name: rule for name, rule in rules.items() if not rule.get("given")}
            for service, rules in lacking.items()
        }
        written = variables.get("fleet_services") or {}
        elsewhere = [line for service in services for line in _elsewhere(service, wanted[service.name], written)]
        if elsewhere:
            raise SecretError(" ".join(elsewhere))
        others = f" Others give you: {', '.join(given)}. Put them in: ansible-vault edit" if given else ""
        if not any(wanted.values()):
            return {"changed": False, "made": [], "msg": f"No secret has to be made.{others}"}
        store = SecretStore(Path(path) if path else default_path(reader.sources()), self._loader._vault.secrets or [])
        made = store.make(wanted, dry_run=self._task.check_mode)
        result: dict[str, Any] = {
            "changed": bool(made),
            "made": made,
            "path": str(store.path),
            "msg": f"{'Would make' if self._task.check_mode else 'Made'} in {store.path}: {', '.join(made)}.{others}",
        }
        unused = [service for service in services if wanted[service.name] and not _text(service, written)]
        if unused:
            result["warnings"] = [
                f'{service.variable} does not use them yet. Write there: secrets: "{{{{ {CURRENT}.{service.name} }}}}"'
                for service in unused
            ]
        return result


def _variables(services: list[str]) -> tuple[str, ...]:
    return tuple(
        f"{kind}{name}{end}".rstrip(".")
        for name in services
        for kind, end in (("fleet_services.", ""), ("services/", ".yml"))
    )


def _text(service: Service, written: Any) -> Any:
    """`secrets` as the inventory has it, with its templates unfilled."""
    entry = written.get(service.name) if isinstance(written, dict) else None
    return (entry or {}).get("secrets") if isinstance(entry, dict) else None


def _elsewhere(service: Service, rules: dict[str, Data], written: Any) -> list[str]:
    """Names that the inventory fills in from another variable, which is not there: a value in our file would not reach it."""
    text = _text(service, written)
    named = {name: text.get(name) for name in rules} if isinstance(text, dict) else dict.fromkeys(rules, text)
    return [
        f"{service.variable}.secrets.{name} is filled in from elsewhere than {CURRENT}, and that is not there: "
        f'define it, or write "{{{{ {CURRENT}.{service.name}.{name} }}}}".'
        for name, value in named.items()
        if value is not None and CURRENT not in str(value)
    ]
