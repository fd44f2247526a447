#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Documentation of the action plugin of the same name: nothing here runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: plan
short_description: Compute what every host of the fleet must look like
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Reads C(fleet_services) and the other C(fleet_*) variables of the inventory with the definitions of the services, and computes the plan, on the controller.
  - Everything that is wrong with the inventory is reported together, before any host is touched. Each finding names the variable to mend and the remedy.
  - Definitions lie in C(services/) of the collection, and in C(services/) beside the inventory, which stand before the collection's.
  - The plan holds no secret's value.
options:
  rotate:
    description:
      - A secret that is about to change, as C(service.NAME). The plan then has C(detour), by which the service's other slot
        stands in while it does; see C(docs/decisions/0003-rotation.md).
    type: str
  again:
    description:
      - Compute nothing where the plan is in the facts already, and every host serves from the slot that it has there.
      - Slots are the hosts' to know. The first plan of a run finds the mistakes before any host is asked, and takes the first slot for
        granted where the inventory names none; what M(selfhost.fleet.serving_facts) then finds is in the second.
    type: bool
    default: false
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
- name: Plan the fleet
  selfhost.fleet.plan:
  run_once: true
"""

RETURN = r"""
ansible_facts:
  description: The fact C(fleet_plan), with C(hosts) (a slice for each host), C(budget) (connections) and C(notes).
  returned: when nothing is wrong
  type: dict
msg:
  description: What is wrong with the inventory, all of it, each with the variable and the remedy.
  returned: on failure
  type: str
"""
