#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""What runs on a host, as the host itself says it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: status
short_description: Read the state of the components on a host, and of what they stand on
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Reads the notes that the role P(selfhost.fleet.service#role) left on the host, asks systemd for each unit, and asks each component's probe once.
  - Of nginx, PgBouncer and PostgreSQL it says what systemd says.
options:
  notes:
    description: Folder of the notes.
    type: path
    default: /etc/selfhost/services
  timeout:
    description: Seconds that a probe may take.
    type: float
    default: 3.0
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Read the state of components
  selfhost.fleet.status:
  register: status
"""

RETURN = r"""
components:
  description: One entry per component of the host.
  returned: always
  type: list
  elements: dict
  sample:
    - {service: fluxbase, component: server, unit: fluxbase-server@blue.service, version: 2026.3.6, slot: blue, health: healthy, restarts: 0,
       since: "Sat 2026-11-21 14:50:00 UTC"}
foundation:
  description: One entry per unit of nginx, PgBouncer and PostgreSQL on the host.
  returned: always
  type: list
  elements: dict
  sample:
    - {unit: nginx.service, health: active, restarts: 0, since: "Sat 2026-11-21 14:50:00 UTC"}
"""

from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.probe import ProbeSpec, probe  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.status import (  # noqa: E402
    FOUNDATION,
    PROPERTIES,
    foundation,
    notes,
    state,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "notes": {"type": "path", "default": "/etc/selfhost/services"},
            "timeout": {"type": "float", "default": 3.0},
        },
        supports_check_mode=True,
    )

    def show(unit: str) -> str:
        return str(
            module.run_command(["systemctl", "show", "--property", ",".join(PROPERTIES), unit], check_rc=True)[1]
        )

    def healthy(wanted: dict[str, Any]) -> tuple[bool, str]:
        options = {key: wanted[key] for key in ("kind", "url") if key in wanted}
        if wanted["kind"] == "http":
            options["status"] = wanted["status"]
        result = probe(ProbeSpec.from_mapping({**options, "timeout": module.params["timeout"], "deadline": 0.0}))
        return result.ok, result.last

    listing = module.run_command(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", *FOUNDATION], check_rc=True
    )[1]
    module.exit_json(
        changed=False,
        components=[state(note, show, healthy) for note in notes(Path(module.params["notes"]))],
        foundation=foundation(listing, show),
    )


if __name__ == "__main__":
    main()
