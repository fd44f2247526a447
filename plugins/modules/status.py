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
  - Of certificates it says how many days they have left, and how their last renewal by certbot ended.
options:
  notes:
    description: Folder of the notes.
    type: path
    default: /etc/selfhost/services
  certificates:
    description: Folder in which each certificate has one of its own.
    type: path
    default: /etc/selfhost/tls
  renewal:
    description: Where certbot's unit notes how it ended.
    type: path
    default: /var/lib/selfhost/acme/renewal
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
certificates:
  description: One entry per certificate on the host.
  returned: always
  type: list
  elements: dict
  sample:
    - {name: api.example.com, days_left: 62, until: 2027-01-22 14:50 UTC, health: 62 days left}
renewal:
  description: How certbot's last run ended, in systemd's word; null on a host without certbot.
  returned: always
  type: dict
  sample: {result: success, at: "2026-11-21T14:50:00Z"}
"""

import subprocess  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.host import Openssl  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.standing import standing  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.probe import ProbeSpec, probe  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.serving import notes  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.status import (  # noqa: E402
    FOUNDATION,
    PROPERTIES,
    foundation,
    renewal,
    state,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "notes": {"type": "path", "default": "/etc/selfhost/services"},
            "certificates": {"type": "path", "default": "/etc/selfhost/tls"},
            "renewal": {"type": "path", "default": "/var/lib/selfhost/acme/renewal"},
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

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, *module.run_command(command))

    listing = module.run_command(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", *FOUNDATION], check_rc=True
    )[1]
    module.exit_json(
        changed=False,
        components=[state(note, show, healthy) for note in notes(Path(module.params["notes"]))],
        foundation=foundation(listing, show),
        certificates=standing(Path(module.params["certificates"]), Openssl(run), now=time.time()),
        renewal=renewal(Path(module.params["renewal"])),
    )


if __name__ == "__main__":
    main()
