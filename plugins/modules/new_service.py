#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Documentation of the action plugin of the same name: nothing here runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: new_service
short_description: Write a first definition of a service beside the inventory
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Writes C(services/<name>.yml) beside the inventory, on the controller, from the answers that C(playbooks/new_service.yml) asks for. The file
    keeps to the schema of definitions, and its comments say what is left to do.
  - A file that exists is never overwritten, and wrong answers are all said at once.
options:
  answers:
    description:
      - What the definition is made from, by C(name), C(description), C(program), C(version), C(checksum), C(arguments), C(version_arguments), C(port),
        C(health), C(websocket), C(state), C(database), C(domain) and C(hosts). See the playbook for their meaning.
      - C(checksum) is read from a program that is a file of the controller's.
    type: dict
    required: true
attributes:
  check_mode:
    description: Says what would be written.
    support: full
  diff_mode:
    description: Shows the file.
    support: full
notes:
  - It contacts no host.
"""

EXAMPLES = r"""
- name: A definition for a program that Debian has
  selfhost.fleet.new_service:
    answers: {name: push, program: ntfy, domain: push.example.com, arguments: serve, state: "yes"}
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
inventory:
  description: What belongs below C(fleet_services) in the inventory.
  returned: success
  type: dict
msg:
  description: What was written and what is left to do, or what is wrong with the answers.
  returned: always
  type: str
"""
