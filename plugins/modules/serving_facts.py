#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""What serves on a host: see module_utils/serving.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_facts
short_description: Tells which slots and versions serve on a host
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Reads the notes that the role P(selfhost.fleet.service#role) leaves on a host.
  - M(selfhost.fleet.plan) takes the slots from this fact where it is there.
  - Reads which databases the host's PgBouncer has pools for; it has to be root for that.
  - Says since when that and PostgreSQL run, too. What was there before the database is may have lost it.
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Ask the hosts which slots serve
  selfhost.fleet.serving_facts:

- name: Compute the plan again where they are others than those it has
  selfhost.fleet.plan:
    again: true
  run_once: true
"""

RETURN = r"""
ansible_facts:
  description: What M(selfhost.fleet.plan) looks up.
  returned: always
  type: dict
  contains:
    fleet_serving:
      description: By service, the C(slot) and the C(version) that serve, and C(uptime), the seconds since that started; null where it does not run.
      type: dict
      returned: always
    fleet_database:
      description: The C(uptime) of the PostgreSQL of this host, in seconds; null where none runs.
      type: dict
      returned: always
    fleet_pools:
      description: As M(selfhost.fleet.config_facts) has it, for the role C(pooler).
      type: dict
      returned: always
"""

import time  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.pools import POOLS_FACT, pools  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.serving import (  # noqa: E402
    DATABASE,
    DATABASE_FACT,
    SERVING_FACT,
    serving,
    uptimes,
    with_uptimes,
)


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    services = serving()
    units = [f"{note['unit']}@{note['slot']}.service" for entry in services.values() for note in entry["notes"]]
    found = uptimes(SystemRunner(timeout=60), [DATABASE, *units], time.monotonic)
    database = with_uptimes(services, found)
    module.exit_json(ansible_facts={SERVING_FACT: services, DATABASE_FACT: database, POOLS_FACT: pools()})


if __name__ == "__main__":
    main()
