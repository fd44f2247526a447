#!/usr/bin/python
# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sets need no call of their own: see module_utils/transaction/settled.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_facts
short_description: Looks at all sets of configuration on a host at once
version_added: 0.1.0
description:
  - Compares every set that M(selfhost.fleet.config_set) has put on the host with what was asked for then, as that module does, in one call. A set
    is settled where nothing is to be done for it, to its files, folders and units.
  - Later in the same play M(selfhost.fleet.config_set) asks the host nothing for a set that is settled, if it is asked for the very same. A run
    that changes nothing is several times shorter by that.
  - The first set that changes, or fails, ends that, and each set after it is looked at again. So does M(selfhost.fleet.packages) where it installs
    something. What another module changes between this one and the set is found by the next run.
  - A play without this module does the same, with a call for each set.
options:
  timeout:
    description: Seconds for each question to systemd.
    type: float
    default: 60
author:
  - The selfhost.fleet authors (@selfhost)
seealso:
  - module: selfhost.fleet.config_set
extends_documentation_fragment:
  - selfhost.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - Changes nothing in any mode.
  diff_mode:
    support: none
    details:
      - Changes nothing.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: See which configuration is as it was asked for
  selfhost.fleet.config_facts:
"""

RETURN = r"""
ansible_facts:
  description: What M(selfhost.fleet.config_set) looks up.
  returned: always
  type: dict
  contains:
    fleet_settled:
      description: Digests of what was asked for, by the name of the set; of settled ones only.
      type: dict
      returned: always
    fleet_serving:
      description: As M(selfhost.fleet.serving_facts) has it, so that a run asks a host one question less.
      type: dict
      returned: always
    fleet_pools:
      description: The databases that the host's PgBouncer has pools for, each with its line's options, by name; for the role C(pooler).
      type: dict
      returned: always
"""

from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.pools import POOLS_FACT, pools  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.serving import SERVING_FACT, serving  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import SETTLED_FACT  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.settled import settled  # noqa: E402


def main() -> None:
    module = AnsibleModule(argument_spec={"timeout": {"type": "float", "default": 60}}, supports_check_mode=True)
    timeout = module.params["timeout"]
    found = settled(Path("/"), SystemRunner(timeout=timeout), timeout=timeout)
    module.exit_json(ansible_facts={SETTLED_FACT: found, SERVING_FACT: serving(), POOLS_FACT: pools()})


if __name__ == "__main__":
    main()
