# GNU General Public License v3.0+ (see LICENSE)
"""Writes a first definition of a service beside the inventory, on the controller. See docs/adding-a-service.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.plan import scaffold
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.definitions import Definitions
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Findings
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.schema import schema_findings
from ansible_collections.selfhost.fleet.plugins.module_utils.release.fetch import sha256_of
from ansible_collections.selfhost.fleet.plugins.plugin_utils.inventory import InventoryReader, service_folders

PLAYBOOK = "ansible-playbook -i INVENTORY selfhost.fleet.new_service"


class ActionModule(ActionBase):
    """Reads the answers, and writes the file unless there is one."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(argument_spec={"answers": {"type": "dict", "required": True}})
        reader = InventoryReader(self._templar, task_vars or {})
        findings = Findings()
        folder = _folder(reader, findings)
        answers = _read(options["answers"], reader.definitions(), findings)
        if findings or folder is None:
            lines = [f"- {finding}" for finding in sorted(findings.items)]
            return result | {"failed": True, "msg": "\n".join(["No definition was written.", *lines])}
        path = folder / f"{answers.name}.yml"
        inventory = str(reader.sources()[0])
        text = scaffold.definition(answers, inventory)
        schema_findings(reader.definitions().schema, yaml.safe_load(text), path.name, findings)
        if findings:
            return result | {"failed": True, "msg": f"No definition was written. {findings.text()}"}
        if not self._task.check_mode:
            folder.mkdir(exist_ok=True)
            # Never over a file that came meanwhile.
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        steps = "\n".join(scaffold.next_steps(answers, inventory))
        return result | {
            "changed": True,
            "path": str(path),
            "inventory": {answers.name: yaml.safe_load(scaffold.inventory_entry(answers))[answers.name]},
            "msg": f"{'Would write' if self._task.check_mode else 'Wrote'} {path}. Look it through, then:\n\n{steps}",
            "diff": {"before": "", "after": text, "before_header": str(path), "after_header": str(path)},
        }


def _folder(reader: InventoryReader, findings: Findings) -> Path | None:
    """`services` beside the inventory."""
    for source in reader.sources():
        if source.exists():
            return service_folders(source)[-1]
    findings.add("--inventory", "names no file or folder, beside which the definition would lie", f"Run: {PLAYBOOK}")
    return None


def _read(given: dict[str, Any], definitions: Definitions, findings: Findings) -> scaffold.Answers:
    ports = [port for path in definitions.files.values() for port in _ports_of(path)]
    program = Path(str(given.get("program") or ""))
    if program.is_absolute():
        if program.is_file():
            given = {**given, "checksum": f"sha256:{sha256_of(program)}"}
        else:
            variable = f"{scaffold.PREFIX}program"
            findings.add(variable, f"{program} is no file on this machine", "Put it there first; its checksum is read")
    return scaffold.read(given, known=definitions.names(), ports=ports, findings=findings)


def _ports_of(path: Path) -> list[int]:
    """Those of another definition; what is wrong with that one is the plan's to say."""
    try:
        return list(_ports(yaml.safe_load(path.read_text())))
    except (yaml.YAMLError, OSError):
        return []


def _ports(node: object) -> Iterator[int]:
    """Every number below a key `ports`, in whichever contract."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "ports" and isinstance(value, dict):
                found = [port for slots in value.values() if isinstance(slots, dict) for port in slots.values()]
                yield from (port for port in found if isinstance(port, int))
            else:
                yield from _ports(value)
    elif isinstance(node, list):
        for value in node:
            yield from _ports(value)
