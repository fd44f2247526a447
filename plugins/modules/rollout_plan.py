#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Documentation of the action plugin of the same name: nothing here runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_plan
short_description: Compute the rollouts that the inventory asks for
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - A service is rolled out where hosts run another version of it than the inventory names. What they run they have to be asked before, by
    M(selfhost.fleet.serving_facts).
  - Each rollout is a list of steps by the service's strategy, with the most seconds that each may take, and the slices of the plan for them.
  - Everything that is wrong is reported together, as by M(selfhost.fleet.plan).
options:
  service:
    description: This service alone; all of them where it is empty.
    type: str
    default: ""
  back:
    description:
      - Compute the way back instead, to the release that each host has kept in its idle slot; of O(service), which has to be named then.
    type: bool
    default: false
  restore:
    description: With O(back), the id of the rollout from before which the copy of the database is put back; as the ledger has it.
    type: str
    default: ""
  no_way_back:
    description: With O(back), the service that is taken back though nobody has seen its kept release start on the database as it is.
    type: str
    default: ""
  refresh:
    description:
      - Compute instead what brings services back to a database that has restarted; with V(due) of those that started before it did, by
        M(selfhost.fleet.serving_facts).
    type: str
    choices: ["no", due, always]
    default: "no"
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
- name: See what is to be rolled out
  selfhost.fleet.rollout_plan:
  run_once: true
"""

RETURN = r"""
ansible_facts:
  description: >-
    The fact C(fleet_rollouts), a list with C(service), C(strategy), C(hosts), C(from) and C(to) (version and slot by host), C(steps) and the slices
    C(before), C(after) and C(starting).
  returned: when nothing is wrong
  type: dict
msg:
  description: What is wrong, all of it, each with the variable and the remedy.
  returned: on failure
  type: str
"""
