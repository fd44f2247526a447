#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Documentation of the action plugin of the same name: nothing here runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_rotation
short_description: Begin and finish the rotation of a secret in the encrypted file
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - V(begun) makes the new value and writes it to C(fleet_secrets_next.<service>.<NAME>) of the file of M(selfhost.fleet.secrets), before anything uses it.
    One that is there already, from a rotation that did not finish or from your own hand, is taken as it is.
  - V(finished) puts it in the place of the old one.
  - The playbook C(rotate.yml) does between the two what makes the service use it.
options:
  secret:
    description: The secret, as C(service.NAME).
    type: str
    required: true
  state:
    description: How far the rotation has come.
    type: str
    choices: [begun, finished]
    required: true
  path:
    description: The file on the controller. By default C(group_vars/all/secrets.yml) beside the inventory's first source.
    type: str
attributes:
  check_mode:
    description: Refused.
    support: none
  diff_mode:
    description: Nothing of the file is shown.
    support: none
notes:
  - Run it once for all hosts with C(run_once). It contacts no host.
"""

EXAMPLES = r"""
- name: Write down the new value
  selfhost.fleet.secret_rotation:
    secret: fluxbase.FLUXBASE_DATABASE_PASSWORD
    state: begun
  register: rotation
  run_once: true
"""

RETURN = r"""
during:
  description: C(fleet_services) with the old value, and the new one as C(<NAME>__NEXT). Never shown.
  returned: when begun
  type: dict
after:
  description: C(fleet_services) with the new value. Never shown.
  returned: when begun
  type: dict
"""
