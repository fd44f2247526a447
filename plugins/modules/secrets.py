#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Documentation of the action plugin of the same name: nothing here runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets
short_description: Make the secrets that the fleet lacks, in a file that Ansible Vault encrypts
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Makes a value for every secret that a service of the inventory cannot be without and that has none, by the rules of the service's definition, and adds it
    to C(fleet_secrets.<service>) in an encrypted file. What is in the file stays as it is, comments included.
  - The file is encrypted with the vault password of the run, a file that exists with the one that it has. Without a vault password it fails.
  - It is replaced as a whole or not at all, and has mode C(0600).
options:
  path:
    description: The file on the controller. By default C(group_vars/all/secrets.yml) beside the inventory's first source.
    type: str
attributes:
  check_mode:
    description: Says what would be made.
    support: full
  diff_mode:
    description: Nothing of the file is shown.
    support: none
notes:
  - Run it once for all hosts with C(run_once). It contacts no host.
"""

EXAMPLES = r"""
- name: Make what is missing
  selfhost.fleet.secrets:
  run_once: true
"""

RETURN = r"""
made:
  description: Names of what was made, each as C(service.NAME).
  returned: success
  type: list
  elements: str
  sample: [fluxbase.FLUXBASE_DATABASE_PASSWORD]
path:
  description: The file.
  returned: when something was made
  type: str
msg:
  description: What was made and where, or what is wrong and the remedy. Never a value.
  returned: always
  type: str
"""
