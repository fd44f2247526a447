#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Documentation of the action plugin of the same name: nothing here runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: removal_plan
short_description: Plan the fleet without a service
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Sets the fact C(fleet_plan) as M(selfhost.fleet.plan) does, of the fleet without the service, and the fact C(fleet_removal) with what that service may
    have left on hosts by its definition; what a remaining service uses too is not among it.
  - The service may be in the inventory or not. Its definition has to be there.
  - Contacts no host.
options:
  service:
    description: Name of the service.
    type: str
    required: true
  delete_data:
    description: Empty, or the name of the service once more. Anything else is refused.
    type: str
    default: ""
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
notes:
  - Run it once for all hosts with C(run_once).
"""

EXAMPLES = r"""
- name: Plan the fleet without it
  selfhost.fleet.removal_plan:
    service: fluxbase
  run_once: true
"""

RETURN = r"""
ansible_facts:
  description: The facts C(fleet_plan) and C(fleet_removal).
  returned: success
  type: dict
  contains:
    fleet_plan:
      description: The plan of what stays.
      returned: success
      type: dict
    fleet_removal:
      description: What the service may have left.
      returned: success
      type: dict
      sample:
        {service: fluxbase, in_inventory: true, delete_data: false, components: [server], users: [fluxbase], state: [/var/lib/fluxbase],
         certificates: [/etc/selfhost/tls/api.example.com], databases: [fluxbase], roles: [fluxbase, fluxbase_rotation]}
"""
